package policy

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

var now = time.Date(2026, 11, 19, 12, 0, 0, 0, time.UTC) // a Thursday

func input() Input {
	return Input{
		Project: "default", Application: "shop", Environment: EnvironmentFacts{Name: "production", Class: delivery.ClassProduction},
		Release: delivery.Release{Version: "4"},
		Plan: &delivery.Plan{Waves: []delivery.Wave{{Steps: []delivery.Step{{Name: "web@local", Rollout: &delivery.Rollout{
			Service: "web", Workload: delivery.Workload{Service: "web", Env: map[string]string{"DEBUG": "true"}},
		}}}}}},
		Actor: delivery.Actor{Subject: "ana"}, Reason: "not-a-date",
	}
}

func decide(t *testing.T, set delivery.PolicySet, in Input, at time.Time) delivery.Decision {
	t.Helper()
	e, err := Compile(t.Context(), []NamedSet{{Name: "test", Set: set}})
	if err != nil {
		t.Fatal(err)
	}
	return e.Decide(t.Context(), delivery.MomentPlanRendered, in, at)
}

func module(body string) delivery.PolicySet {
	return delivery.PolicySet{Modules: map[string]string{"p.rego": "package tidegate.p\n" + body}}
}

const noDebug = `deny contains {"message": sprintf("%s runs with DEBUG", [step.name]), "hint": "remove it", "path": "services.web.env.DEBUG", "severity": "mandatory"} if {
	some wave in input.plan.waves
	some step in wave.steps
	step.rollout.workload.env.DEBUG == "true"
}`

func TestDecide(t *testing.T) {
	clean := input()
	clean.Plan.Waves[0].Steps[0].Rollout.Workload.Env = nil
	tests := []struct {
		name  string
		set   delivery.PolicySet
		in    Input
		at    time.Time
		want  delivery.DecisionOutcome
		error string
	}{
		{"denies", module(noDebug), input(), now, delivery.DecisionDeny, ""},
		{"allows what meets it", module(noDebug), clean, now, delivery.DecisionAllow, ""},
		{"other class", delivery.PolicySet{Modules: module(noDebug).Modules, Classes: []delivery.Class{delivery.ClassDev}}, input(), now, delivery.DecisionNoPolicy, ""},
		{"advisory never denies", delivery.PolicySet{Modules: module(noDebug).Modules, Mode: delivery.PolicyAdvisory}, input(), now, delivery.DecisionAllow, ""},
		{"time is an input: Thursday", module(`deny contains "no Friday" if time.weekday(time.now_ns()) == "Friday"`), input(), now, delivery.DecisionAllow, ""},
		{"time is an input: Friday", module(`deny contains "no Friday" if time.weekday(time.now_ns()) == "Friday"`), input(), now.AddDate(0, 0, 1), delivery.DecisionDeny, ""},
		{"a builtin that fails is an error, not silence", module(`deny contains "x" if time.parse_rfc3339_ns(input.reason) > 0`), input(), now, delivery.DecisionError, "parse"},
		{"a message of another form", module(`deny contains {"text": "x"} if true`), input(), now, delivery.DecisionError, "not understood"},
		{"deny is no set", module(`deny := true`), input(), now, delivery.DecisionError, "is no set"},
		{"endless", module(`deny contains "x" if count([1 | some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); some c in numbers.range(1, 3000); a + b == c]) > 0`), input(), now, delivery.DecisionError, "did not answer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := decide(t, tt.set, tt.in, tt.at)
			if got.Outcome != tt.want || !strings.Contains(got.Error, tt.error) {
				t.Errorf("got %s %q %+v, want %s with %q", got.Outcome, got.Error, got.Messages, tt.want, tt.error)
			}
		})
	}
}

func TestMessageAndObligations(t *testing.T) {
	got := decide(t, module(noDebug+`
require contains {"approvals": {"count": 2, "group": "security"}} if input.environment.class == "production"
require contains {"soak": "1h"}
warn contains "old base image"`), input(), now)
	if len(got.Messages) != 2 || got.Messages[0].Hint != "remove it" || got.Messages[0].Severity != delivery.SeverityMandatory || got.Messages[1].Denies {
		t.Errorf("messages = %+v", got.Messages)
	}
	if len(got.Obligations) != 2 || got.InputDigest == "" {
		t.Errorf("obligations = %+v", got.Obligations)
	}
}

func TestLoadErrorsSayWhere(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{"syntax", "deny contains x if {", "p.rego:2"},
		{"v0 rule", `deny[msg] { msg := "x" }`, "p.rego:2"},
		{"network", `deny contains "x" if http.send({"method": "get", "url": "http://x"})`, "undefined function http.send"},
		{"mocked network", `deny contains "x" if json.filter({}, []) with json.filter as http.send`, "unsafe"},
		{"environment", `deny contains "x" if opa.runtime().env`, "undefined function opa.runtime"},
		{"random", `deny contains "x" if rand.intn("a", 2) == 1`, "undefined function rand.intn"},
		{"wrong path", `deny contains "x" if input.deploy.manifest == 1`, "undefined ref: input.deploy"},
		{"unused variable", "deny contains \"x\" if { y := 1 }", "y unused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Check(context.Background(), "test", module(tt.body).Modules)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "p.rego:") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if err := Check(context.Background(), "test", map[string]string{"q.rego": "package main\n"}); err == nil || !strings.Contains(err.Error(), "under tidegate") {
		t.Errorf("package outside: %v", err)
	}
}

func TestDecisionIsAFunctionOfItsInput(t *testing.T) {
	a, b := decide(t, module(noDebug), input(), now), decide(t, module(noDebug), input(), now)
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("%v\n%v", a, b)
	}
}

func BenchmarkDecideTrivial(b *testing.B) {
	e, err := Compile(b.Context(), []NamedSet{{Name: "test", Set: module(noDebug)}})
	if err != nil {
		b.Fatal(err)
	}
	in := input()
	for b.Loop() {
		e.Decide(b.Context(), delivery.MomentPlanRendered, in, now)
	}
}
