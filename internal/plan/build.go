// Package plan decides exactly what a deployment would do: a release, an
// environment's revision and a strategy become a [delivery.Plan], an immutable
// list of waves of steps whose digest is what people approve. It is pure: the
// same input gives the same plan on any machine.
//
// It must not know what is running; what a plan changes is [Diff].
//
// Start reading at [Build].
package plan

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Input is everything a plan is made from.
type Input struct {
	Key                 delivery.PlacementKey
	Release             delivery.Release
	Environment         delivery.Environment // with its defaults
	EnvironmentRevision int64                // 0: built in
	Step                delivery.PathStep
}

// Build makes the plan. The error is invalid when the release can't be placed
// in the environment: a variable that it does not have, no target, or a task
// of a service that the release lacks.
func Build(in Input) (delivery.Plan, error) {
	strategy := strategyOf(in)
	b := &builder{in: in, strategy: strategy}
	p := delivery.Plan{
		Format: delivery.PlanFormat, Key: in.Key, Release: in.Release.Digest, Version: in.Release.Version,
		EnvironmentRevision: in.EnvironmentRevision, Class: in.Environment.Class,
		Bake: strategy.Bake, OnFailure: cmp.Or(in.Release.OnFailure, delivery.OnFailureAll),
	}
	if len(in.Environment.Targets) == 0 {
		return p, delivery.Errorf(delivery.CodeInvalid, "Environment %s has no targets: add spec.targets.", in.Key.Environment)
	}
	p.Waves = append(p.Waves, b.tasks(in.Release.Before)...)
	p.Waves = append(p.Waves, b.services()...)
	p.Waves = append(p.Waves, b.tasks(in.Release.After)...)
	if b.err != nil {
		return delivery.Plan{}, b.err
	}
	p.Digest = p.ComputeDigest()
	return p, nil
}

// strategyOf returns the strategy of the path's step, else the environment's, else the class's.
func strategyOf(in Input) delivery.Strategy {
	s := in.Step.Strategy
	if s == nil {
		s = in.Environment.Strategy
	}
	if s == nil {
		return delivery.DefaultStrategy(in.Environment.Class)
	}
	return s.WithDefaults(in.Environment.Class)
}

// builder collects the first error, so that the code above reads as the plan does.
type builder struct {
	in       Input
	strategy delivery.Strategy
	err      error
}

func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = delivery.Errorf(delivery.CodeInvalid, format, args...)
	}
}

// services returns one wave for all services, or one each in the order of the
// document; a wave has every service on every target.
func (b *builder) services() []delivery.Wave {
	services := slices.Clone(b.in.Release.Services)
	slices.SortStableFunc(services, func(x, y delivery.ReleaseService) int {
		return cmp.Or(cmp.Compare(x.Order, y.Order), cmp.Compare(x.Name, y.Name))
	})
	var waves []delivery.Wave
	for i, s := range services {
		if i == 0 || b.in.Release.Ordered {
			waves = append(waves, delivery.Wave{})
		}
		w := &waves[len(waves)-1]
		for _, target := range b.in.Environment.Targets {
			w.Steps = append(w.Steps, delivery.Step{Name: s.Name + "@" + target, Rollout: b.rollout(s, target)})
		}
	}
	return waves
}

func (b *builder) rollout(rs delivery.ReleaseService, target string) *delivery.Rollout {
	s := rs.Service.WithDefaults()
	where := "services." + s.Name
	w := delivery.Workload{
		Service: s.Name, Artifact: rs.Artifact, Command: s.Command,
		Args: b.expandAll(where+".args", s.Args), Env: b.expandMap(where+".env", s.Env),
		Secrets: maps.Clone(s.Secrets), Readiness: s.Readiness, Stop: s.Stop,
	}
	return &delivery.Rollout{
		Service: s.Name, Target: target, Listen: b.expand(where+".listen", s.Listen), Instances: s.Instances,
		Workload: w, Digest: w.ComputeDigest(), Strategy: b.strategy.Kind,
		Moves: moves(b.strategy, s.Instances), Analysis: b.strategy.Analysis, Deadline: b.strategy.Deadline,
	}
}

// tasks returns a wave for each task, in their order: a command task has a
// step on every target, the others one that the server does.
func (b *builder) tasks(tasks []delivery.Task) []delivery.Wave {
	var waves []delivery.Wave
	for _, t := range tasks {
		t = b.task(t.WithDefaults())
		w := delivery.Wave{}
		if t.Command == nil {
			w.Steps = []delivery.Step{{Name: "task:" + t.Name, Task: &t}}
		} else {
			for _, target := range b.in.Environment.Targets {
				w.Steps = append(w.Steps, delivery.Step{Name: "task:" + t.Name + "@" + target, Task: &t, Target: target})
			}
		}
		waves = append(waves, w)
	}
	return waves
}

func (b *builder) task(t delivery.Task) delivery.Task {
	where := "tasks." + t.Name
	if t.HTTP != nil {
		call := *t.HTTP
		call.URL, call.Body = b.expand(where+".http.url", call.URL), b.expand(where+".http.body", call.Body)
		call.Header = b.expandMap(where+".http.header", call.Header)
		t.HTTP = &call
	}
	if t.Command != nil {
		command := *t.Command
		command.Args = b.expandAll(where+".command.args", command.Args)
		t.Command = &command
		if !slices.ContainsFunc(b.in.Release.Services, func(s delivery.ReleaseService) bool { return s.Name == command.Service }) {
			b.fail("Task %s runs a program of service %q, which release %s does not have.", t.Name, command.Service, b.in.Release.Version)
		}
	}
	if u := t.OnRollback.Undo; u != nil {
		undo := b.task(*u)
		t.OnRollback.Undo = &undo
	}
	return t
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_-]*)\}`)

// expand fills ${NAME} from the environment's variables. ${PORT} is left for the target.
func (b *builder) expand(where, s string) string {
	return variable.ReplaceAllStringFunc(s, func(m string) string {
		name := m[2 : len(m)-1]
		if name == "PORT" {
			return m
		}
		v, ok := b.in.Environment.Variables[name]
		if !ok {
			b.fail("%s of release %s uses ${%s}, which environment %s does not have: add it to spec.variables.", where, b.in.Release.Version, name, b.in.Key.Environment)
		}
		return v
	})
}

func (b *builder) expandAll(where string, all []string) []string {
	var out []string
	for i, s := range all {
		out = append(out, b.expand(fmt.Sprintf("%s[%d]", where, i), s))
	}
	return out
}

func (b *builder) expandMap(where string, m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]string, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) { // sorted, so that the first error is always the same
		out[k] = b.expand(where+"."+k, m[k])
	}
	return out
}
