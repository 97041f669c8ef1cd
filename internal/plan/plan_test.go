package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

func input() Input {
	release := delivery.Release{Project: "default", Application: "shop", Version: "2", Services: []delivery.ReleaseService{
		{Service: delivery.Service{Name: "api", Args: []string{"${PORT}", "${region}"}, Instances: 2}, Artifact: delivery.Artifact{Digest: "sha256:a"}, Order: 1},
		{Service: delivery.Service{Name: "web"}, Artifact: delivery.Artifact{Digest: "sha256:b"}, Order: 0},
	}}
	release.Digest = release.ComputeDigest()
	return Input{
		Key:     delivery.PlacementKey{Project: "default", Application: "shop", Environment: "production"},
		Release: release, EnvironmentRevision: 3,
		Environment: delivery.Environment{Class: delivery.ClassProduction, Targets: []string{"east", "west"}, Variables: map[string]string{"region": "eu"}},
	}
}

func names(p delivery.Plan) string {
	var waves []string
	for _, w := range p.Waves {
		var steps []string
		for _, s := range w.Steps {
			steps = append(steps, s.Name)
		}
		waves = append(waves, strings.Join(steps, " "))
	}
	return strings.Join(waves, " | ")
}

func TestWaves(t *testing.T) {
	migrate := delivery.Task{Name: "migrate", Command: &delivery.CommandTask{Service: "api", Args: []string{"up"}}}
	tell := delivery.Task{Name: "tell", HTTP: &delivery.HTTPTask{URL: "http://x/${region}"}}
	tests := []struct {
		name   string
		change func(*Input)
		want   string
	}{
		{"one wave", func(*Input) {}, "web@east web@west api@east api@west"},
		{"ordered", func(in *Input) { in.Release.Ordered = true }, "web@east web@west | api@east api@west"},
		{"tasks", func(in *Input) { in.Release.Before, in.Release.After = []delivery.Task{migrate}, []delivery.Task{tell} },
			"task:migrate@east task:migrate@west | web@east web@west api@east api@west | task:tell"},
	}
	for _, tt := range tests {
		in := input()
		tt.change(&in)
		p, err := Build(in)
		if err != nil || names(p) != tt.want {
			t.Errorf("%s: %s, %v\nwant %s", tt.name, names(p), err, tt.want)
		}
	}
}

func TestVariables(t *testing.T) {
	p, err := Build(input())
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(p.Rollout("api", "east").Workload.Args); got != "[${PORT} eu]" {
		t.Errorf("args %s", got)
	}
	in := input()
	in.Environment.Variables = nil
	if _, err := Build(in); delivery.ErrorCode(err) != delivery.CodeInvalid || !strings.Contains(err.Error(), "${region}") || !strings.Contains(err.Error(), "services.api.args[1]") {
		t.Errorf("got %v, want the variable and its place", err)
	}
}

func words(moves []delivery.Move) string {
	var all []string
	for _, m := range moves {
		text := string(m.Kind)
		switch m.Kind {
		case delivery.MoveStart, delivery.MoveRetire:
			text += fmt.Sprint(m.Instances)
		case delivery.MoveShift:
			text += fmt.Sprint(m.Weight)
		}
		if m.Final {
			text += "!"
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

func TestMoves(t *testing.T) {
	second := delivery.Duration(time.Second)
	tests := []struct {
		s    delivery.Strategy
		n    int
		want string
	}{
		{delivery.Strategy{Kind: delivery.StrategyRolling}, 1, "start1 shift100"},
		{delivery.Strategy{Kind: delivery.StrategyRolling}, 3, "start1 shift33 retire2 start2 shift66 retire1 start3 shift100"},
		{delivery.Strategy{Kind: delivery.StrategyRecreate}, 2, "retire0 start2 shift100"},
		{delivery.Strategy{Kind: delivery.StrategyBlueGreen, Steps: []delivery.StrategyStep{{UntilPromoted: true}}}, 2, "start2 pause shift100"},
		{delivery.DefaultStrategy(delivery.ClassProduction), 2, "start2 shift10 analyse shift30 analyse shift60 analyse! shift100"},
		{delivery.Strategy{Kind: delivery.StrategyCanary, Steps: []delivery.StrategyStep{{Weight: 20, For: second}, {Approval: &delivery.ApprovalRule{}}}}, 1, "start1 shift20 pause approve shift100"},
	}
	for _, tt := range tests {
		if got := words(moves(tt.s, tt.n)); got != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.s.Kind, got, tt.want)
		}
	}
}

// TestDigests sees a change of what a plan's digest covers: it voids every
// approval that waits, so it must be on purpose.
func TestDigests(t *testing.T) {
	a, err := Build(input())
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Build(input())
	if a.Digest != b.Digest {
		t.Error("the same input gave two digests")
	}
	in := input()
	in.EnvironmentRevision++
	if c, _ := Build(in); c.Digest == a.Digest {
		t.Error("another revision of the environment gave the same digest")
	}
	if got := Diff(&a, &b); len(got) != 0 {
		t.Errorf("equal plans differ: %v", got)
	}
	in = input()
	in.Environment.Variables["region"] = "us"
	c, _ := Build(in)
	if got := Diff(&a, &c); len(got) != 2 || got[0].Path != "services.api@east.args[1]" || got[0].After != "us" {
		t.Errorf("diff %v", got)
	}
}

func TestMovesAreSafe(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := delivery.Strategy{Kind: rapid.SampledFrom([]delivery.StrategyKind{delivery.StrategyRolling, delivery.StrategyRecreate, delivery.StrategyBlueGreen, delivery.StrategyCanary}).Draw(rt, "kind")}
		if s.Kind == delivery.StrategyCanary {
			last := 0
			for range rapid.IntRange(0, 4).Draw(rt, "steps") {
				last = rapid.IntRange(last+1, 100).Draw(rt, "weight")
				s.Steps = append(s.Steps, delivery.StrategyStep{Weight: last})
				if last == 100 {
					break
				}
			}
		}
		s = s.WithDefaults(rapid.SampledFrom([]delivery.Class{delivery.ClassDev, delivery.ClassProduction}).Draw(rt, "class"))
		m := moves(s, rapid.IntRange(1, 9).Draw(rt, "instances"))
		weight := 0
		for _, x := range m {
			if x.Kind == delivery.MoveShift {
				if x.Weight <= weight {
					rt.Fatalf("weight falls: %s", words(m))
				}
				weight = x.Weight
			}
			if x.Kind == delivery.MoveRetire && x.Instances == 0 && s.Kind != delivery.StrategyRecreate {
				rt.Fatalf("nothing to go back to: %s", words(m))
			}
		}
		if last := m[len(m)-1]; last.Kind != delivery.MoveShift || last.Weight != 100 {
			rt.Fatalf("it does not end at 100 %%: %s", words(m))
		}
	})
}
