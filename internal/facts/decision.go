package facts

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/gate"
	"github.com/tidegate-cd/tidegate/internal/policy"
)

// again is how long an answer is good for the same question: policies may look
// at the clock, which is therefore no part of what makes a question the same.
const again = time.Minute

// moments are asked for every deployment, in this order.
var moments = []delivery.Moment{delivery.MomentPromotionRequested, delivery.MomentPlanRendered}

// decide asks the policies at each moment about one deployment. An answer of
// the last minute to the same question is used again, so that a deployment
// that waits does not record a decision a second.
func (f *Facts) decide(ctx context.Context, g gate.Facts, e delivery.Environment, revision int64, b *Basis) ([]delivery.Decision, error) {
	engine, err := f.policies(ctx, g.Placement.Key.Project, b)
	if err != nil {
		return nil, err
	}
	var all []delivery.Decision
	for _, moment := range moments {
		in := input(g, e, revision)
		if moment == delivery.MomentPromotionRequested {
			in.Plan = nil
		}
		key, err := json.Marshal([]any{moment, in, engine.revision(), g.Hypothetical})
		if err != nil {
			return nil, delivery.Wrap(delivery.CodeInternal, err, "The policies' input can't be written.")
		}
		d, known := f.known(string(key), g.Now)
		if !known {
			d = engine.ask(ctx, moment, in, g.Now)
			d.ID = f.o.NewID()
			f.keep(string(key), d)
			if d.Outcome != delivery.DecisionNoPolicy {
				b.Decisions = append(b.Decisions, d)
			}
		}
		all = append(all, d)
	}
	return all, nil
}

func (f *Facts) known(key string, now time.Time) (delivery.Decision, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, ok := f.decisions[key]
	age := now.Sub(d.At)
	return d, ok && age >= 0 && age < again
}

func (f *Facts) keep(key string, d delivery.Decision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.decisions) > 2048 {
		clear(f.decisions)
	}
	f.decisions[key] = d
}

// input is what policies see of a deployment.
func input(g gate.Facts, e delivery.Environment, revision int64) policy.Input {
	in := policy.Input{
		Project: g.Placement.Key.Project, Application: g.Placement.Key.Application,
		Environment: policy.EnvironmentFacts{
			Name: g.Placement.Key.Environment, Class: e.Class, Owner: e.Owner,
			Capabilities: e.Capabilities, Variables: e.Variables, Revision: revision,
		},
		Release: g.Release, Plan: g.Plan, Actor: g.Deployment.RequestedBy, Reason: g.Deployment.Reason,
	}
	for _, u := range g.Upstream {
		in.Upstream = append(in.Upstream, policy.UpstreamFacts{Environment: u.Environment, Succeeded: !u.Succeeded.IsZero(), Since: u.Succeeded})
	}
	return in
}

// asker is an engine, or the reason why there is none.
type asker struct {
	compiled
	digest delivery.Digest
}

func (a asker) revision() delivery.Digest { return a.digest }

func (a asker) ask(ctx context.Context, m delivery.Moment, in policy.Input, now time.Time) delivery.Decision {
	if a.err != nil { // stored sets were checked when they were applied: this server reads them otherwise
		return delivery.Decision{Moment: m, Placement: in.Key(), Outcome: delivery.DecisionError, Revision: a.digest, At: now, Error: a.err.Error()}
	}
	return a.engine.Decide(ctx, m, in, now)
}

// policies returns the engine of the policy sets as they are now.
func (f *Facts) policies(ctx context.Context, project string, b *Basis) (asker, error) {
	objects, err := f.allObjects(ctx, delivery.KindPolicySet, project)
	if err != nil {
		return asker{}, err
	}
	var sets []policy.NamedSet
	for _, o := range objects {
		b.expect(o.Kind, o.Project, o.Name, o.Revision)
		s, err := spec[delivery.PolicySet](o)
		if err != nil {
			return asker{}, err
		}
		sets = append(sets, policy.NamedSet{Name: o.Name, Set: s})
	}
	digest := policy.Revision(sets)
	f.mu.Lock()
	c, ok := f.engines[digest]
	f.mu.Unlock()
	if ok {
		return asker{c, digest}, nil
	}
	engine, err := policy.Compile(ctx, sets)
	if ctx.Err() != nil {
		return asker{}, fmt.Errorf("compile policies: %w", ctx.Err())
	}
	c = compiled{engine, err}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.engines) > 16 {
		clear(f.engines)
	}
	f.engines[digest] = c
	return asker{c, digest}, nil
}
