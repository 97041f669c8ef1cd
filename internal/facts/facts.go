// Package facts reads what is true now and puts it into the form that the pure
// core decides on: an [engine.Observation] for a placement's turn, and
// [gate.Facts] for a question. It is the only caller of policy for decisions.
//
// It decides nothing and writes nothing: decisions to be recorded and the
// revisions that a verdict rests on are handed back, to be committed with what
// they led to.
//
// Start reading at [Facts.Observe].
package facts

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/engine"
	"github.com/tidegate-cd/tidegate/internal/policy"
	"github.com/tidegate-cd/tidegate/internal/store"
	"github.com/tidegate-cd/tidegate/internal/target"
)

// Options says what facts are read from.
type Options struct {
	Store   store.Reader
	Targets map[string]target.Target // targets that this process reaches itself; the others report to the store
	NewID   func() delivery.ID
}

// Facts reads facts. It is safe for concurrent use.
type Facts struct {
	o Options

	mu        sync.Mutex
	plans     map[delivery.Digest]*delivery.Plan
	engines   map[delivery.Digest]compiled
	decisions map[string]delivery.Decision // by what was asked: see decide
}

type compiled struct {
	engine *policy.Engine
	err    error
}

// New returns facts over a store.
func New(o Options) *Facts {
	return &Facts{o: o, plans: map[delivery.Digest]*delivery.Plan{}, engines: map[delivery.Digest]compiled{}, decisions: map[string]delivery.Decision{}}
}

// Observe reads everything that engine.Step may know of a placement. With it
// come the revisions of what its verdicts rest on, to be expected at commit,
// and the new decisions and plans, to be stored.
func (f *Facts) Observe(ctx context.Context, rec store.Record, now time.Time) (engine.Observation, Basis, error) {
	p := rec.Placement
	o := engine.Observation{Now: now, Commands: rec.Commands, Results: rec.Results, Plans: map[delivery.Digest]*delivery.Plan{}, Reports: map[string]delivery.Report{}}
	if err := f.readPlans(ctx, p, &o); err != nil {
		return o, Basis{}, err
	}
	if err := f.readReports(ctx, &o); err != nil {
		return o, Basis{}, err
	}
	o.Samples = samples(p, o)
	b := Basis{}
	if len(p.Queue) == 0 && p.Active == nil {
		return o, b, nil
	}
	app, err := f.application(ctx, p.Key, &b)
	if err != nil {
		if delivery.ErrorCode(err) != delivery.CodeNotFound {
			return o, b, err
		}
		if len(p.Queue) > 0 {
			o.Queued = &engine.Queued{Deployment: p.Queue[0].ID, Error: "The application has been deleted."}
		}
		return o, b, nil
	}
	o.Next = app.Downstream(p.Key.Environment)
	if len(p.Queue) > 0 {
		return o, b, f.observeQueued(ctx, p, app, &o, &b)
	}
	return o, Basis{}, nil // nothing waits: the turn rests on no configuration
}

// Basis is what an observation rests on and what it brought up.
type Basis struct {
	Expect    []store.Expectation
	Decisions []delivery.Decision
	Plans     []delivery.Plan
}

func (b *Basis) expect(kind delivery.Kind, project, name string, revision int64) {
	b.Expect = append(b.Expect, store.Expectation{Kind: kind, Project: project, Name: name, Revision: revision})
}

// readPlans reads every plan that the state names.
func (f *Facts) readPlans(ctx context.Context, p delivery.Placement, o *engine.Observation) error {
	want := map[delivery.Digest]bool{}
	for _, d := range append(p.Queue[:len(p.Queue):len(p.Queue)], p.Active) {
		if d != nil {
			want[d.Plan] = true
			if d.From != nil {
				want[d.From.Plan] = true
			}
			for _, s := range d.Steps {
				if s.Before != nil {
					want[s.Before.Plan] = true
				}
			}
		}
	}
	for _, r := range p.Running {
		want[r.Plan] = true
	}
	if p.Stable != nil {
		want[p.Stable.Plan] = true
	}
	for digest := range want {
		if digest == "" {
			continue
		}
		plan, err := f.plan(ctx, digest)
		if delivery.ErrorCode(err) == delivery.CodeNotFound {
			continue
		}
		if err != nil {
			return err
		}
		o.Plans[digest] = plan
	}
	return nil
}

// plan reads a plan once; plans never change.
func (f *Facts) plan(ctx context.Context, digest delivery.Digest) (*delivery.Plan, error) {
	f.mu.Lock()
	p := f.plans[digest]
	f.mu.Unlock()
	if p != nil {
		return p, nil
	}
	p, err := f.o.Store.Plan(ctx, digest)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.plans) > 4096 {
		clear(f.plans)
	}
	f.plans[digest] = p
	return p, nil
}

// readReports reads the reports of every target that a plan names.
func (f *Facts) readReports(ctx context.Context, o *engine.Observation) error {
	for _, p := range o.Plans {
		for _, w := range p.Waves {
			for _, s := range w.Steps {
				name := s.Target
				if s.Rollout != nil {
					name = s.Rollout.Target
				}
				if _, known := o.Reports[name]; known || name == "" {
					continue
				}
				r, err := f.report(ctx, name)
				if delivery.ErrorCode(err) == delivery.CodeNotFound {
					continue
				}
				if err != nil {
					return err
				}
				o.Reports[name] = r
			}
		}
	}
	return nil
}

func (f *Facts) report(ctx context.Context, name string) (delivery.Report, error) {
	t, local := f.o.Targets[name]
	if !local {
		return f.o.Store.Report(ctx, name)
	}
	r, err := t.Report(ctx)
	if err != nil {
		return r, delivery.Wrap(delivery.CodeNotFound, err, "Target %s can't be read now.", name)
	}
	return r, nil
}

// samples pairs the counts of candidate and former version of every rollout
// that the active deployment judges. An arm that is absent gives no sample.
func samples(p delivery.Placement, o engine.Observation) map[string]delivery.Sample {
	d := p.Active
	if d == nil || o.Plans[d.Plan] == nil {
		return nil
	}
	all := map[string]delivery.Sample{}
	for _, s := range d.Steps {
		step, ok := o.Plans[d.Plan].Step(s.Name)
		if !ok || step.Rollout == nil || step.Rollout.Analysis == nil || s.Before == nil {
			continue
		}
		report, ok := o.Reports[step.Rollout.Target]
		if !ok {
			continue
		}
		status := report.Service(p.Key, step.Rollout.Service)
		candidate, stable := status.Workload(step.Rollout.Digest), status.Workload(s.Before.Workload)
		if candidate == nil || stable == nil {
			continue
		}
		all[s.Name] = delivery.Sample{At: report.At, Candidate: candidate.Counts, Stable: stable.Counts}
	}
	return all
}

// spec reads an object's spec.
func spec[T any](o delivery.Object) (T, error) {
	var v T
	if err := json.Unmarshal(o.Spec, &v); err != nil {
		return v, delivery.Wrap(delivery.CodeInternal, err, "The stored %s %s can't be read.", o.Kind, o.Name)
	}
	return v, nil
}
