package facts

import (
	"context"
	"fmt"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/engine"
	"github.com/tidegate-cd/tidegate/internal/gate"
	"github.com/tidegate-cd/tidegate/internal/plan"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// Question asks what the gates of a placement say of a release.
type Question struct {
	Key        delivery.PlacementKey
	Release    delivery.Digest
	Kind       delivery.DeploymentKind // default promotion
	Actor      delivery.Actor
	Reason     string
	Deployment *delivery.Deployment // the queued one, if it is about that
}

// Gates gathers the facts of a question; decisions are asked for and not
// stored. The plan is nil, and the error invalid, if it can't be built.
func (f *Facts) Gates(ctx context.Context, q Question, now time.Time) (gate.Facts, *delivery.Plan, error) {
	var b Basis
	app, err := f.application(ctx, q.Key, &b)
	if err != nil {
		return gate.Facts{}, nil, err
	}
	rec, err := f.o.Store.Placement(ctx, q.Key)
	if err != nil && delivery.ErrorCode(err) != delivery.CodeNotFound {
		return gate.Facts{}, nil, err
	}
	p := rec.Placement
	p.Key = q.Key
	d := delivery.Deployment{Key: q.Key, Kind: orPromotion(q.Kind), Release: q.Release, RequestedBy: q.Actor, Reason: q.Reason, RequestedAt: now}
	if q.Deployment != nil {
		d = *q.Deployment
	}
	return f.gates(ctx, p, d, app, now, q.Deployment == nil, &b)
}

func orPromotion(k delivery.DeploymentKind) delivery.DeploymentKind {
	if k == "" {
		return delivery.KindPromotion
	}
	return k
}

// When returns the earliest time at which the question's deployment could
// start, with the verdicts at that time; see gate.When.
func (f *Facts) When(ctx context.Context, q Question, now time.Time) (time.Time, []delivery.Verdict, error) {
	g, _, err := f.Gates(ctx, q, now)
	if err != nil {
		return time.Time{}, nil, err
	}
	var failed error
	at, verdicts := gate.When(g, func(at time.Time) []delivery.Verdict {
		later, _, err := f.Gates(ctx, q, at)
		if err != nil {
			failed = err
			return nil
		}
		return gate.Evaluate(later)
	})
	return at, verdicts, failed
}

// Forecast says what every environment of the path would say of a release now.
func (f *Facts) Forecast(ctx context.Context, project, application string, release delivery.Digest, actor delivery.Actor, now time.Time) ([]delivery.Forecast, error) {
	app, err := f.application(ctx, delivery.PlacementKey{Project: project, Application: application}, &Basis{})
	if err != nil {
		return nil, err
	}
	var all []delivery.Forecast
	for _, step := range app.Path {
		key := delivery.PlacementKey{Project: project, Application: application, Environment: step.Environment}
		e, _, err := f.environment(ctx, key, &Basis{})
		if err != nil {
			return nil, err
		}
		one := delivery.Forecast{Environment: step.Environment, Class: e.Class}
		g, p, err := f.Gates(ctx, Question{Key: key, Release: release, Actor: actor}, now)
		switch {
		case delivery.ErrorCode(err) == delivery.CodeInvalid:
			one.Outcome = delivery.ProspectUnknown
			one.Verdicts = []delivery.Verdict{{Gate: delivery.GatePolicy, Outcome: delivery.OutcomeUnknown, Reason: err.Error()}}
		case err != nil:
			return nil, err
		default:
			one.Verdicts = gate.Evaluate(g)
			one.Outcome = prospect(one.Verdicts)
			one.Plan = p.Digest
		}
		all = append(all, one)
	}
	return all, nil
}

func prospect(verdicts []delivery.Verdict) delivery.Prospect {
	switch delivery.Combine(verdicts) {
	case delivery.OutcomePass:
		return delivery.ProspectPass
	case delivery.OutcomeDeny:
		return delivery.ProspectDeny
	case delivery.OutcomeWait:
		return delivery.ProspectNotYet
	}
	return delivery.ProspectUnknown
}

// observeQueued puts the facts of the first queued deployment into the observation.
func (f *Facts) observeQueued(ctx context.Context, p delivery.Placement, app delivery.Application, o *engine.Observation, b *Basis) error {
	d := p.Queue[0]
	q := &engine.Queued{Deployment: d.ID}
	o.Queued = q
	g, pl, err := f.gates(ctx, p, *d, app, o.Now, false, b)
	switch code := delivery.ErrorCode(err); {
	case code == delivery.CodeInvalid || code == delivery.CodeNotFound:
		q.Error = err.Error()
		return nil
	case err != nil:
		return err
	}
	q.Plan, q.PlanDigest, q.Verdicts = pl, pl.Digest, gate.Evaluate(g)
	o.Plans[pl.Digest] = pl
	return nil
}

// gates gathers the facts of one deployment: builds or reads its plan and asks
// the policies.
func (f *Facts) gates(ctx context.Context, p delivery.Placement, d delivery.Deployment, app delivery.Application, now time.Time, hypothetical bool, b *Basis) (gate.Facts, *delivery.Plan, error) {
	step, ok := app.Step(p.Key.Environment)
	if !ok {
		return gate.Facts{}, nil, delivery.Errorf(delivery.CodeInvalid, "Environment %s is not on the path of application %s: add it to spec.path.", p.Key.Environment, p.Key.Application)
	}
	release, err := f.o.Store.Release(ctx, d.Release)
	if err != nil {
		return gate.Facts{}, nil, err
	}
	if d.Version == "" {
		d.Version = release.Version
	}
	e, revision, err := f.environment(ctx, p.Key, b)
	if err != nil {
		return gate.Facts{}, nil, err
	}
	pl, err := f.planOf(ctx, d, plan.Input{Key: p.Key, Release: release, Environment: e, EnvironmentRevision: revision, Step: step}, b)
	if err != nil {
		return gate.Facts{}, nil, err
	}
	g := gate.Facts{Now: now, Placement: p, Deployment: d, Plan: pl, Release: release, Step: step, Hypothetical: hypothetical}
	if g.Upstream, err = f.upstream(ctx, p.Key, step, release.Digest); err != nil {
		return g, pl, err
	}
	if g.Calendars, err = f.calendars(ctx, p.Key.Project, step.Calendar, e.Calendar, b); err != nil {
		return g, pl, err
	}
	g.Decisions, err = f.decide(ctx, g, e, revision, b)
	return g, pl, err
}

// planOf builds the plan of a promotion, and reads the one that a rollback names.
func (f *Facts) planOf(ctx context.Context, d delivery.Deployment, in plan.Input, b *Basis) (*delivery.Plan, error) {
	if d.Kind == delivery.KindRollback && d.Plan != "" {
		return f.plan(ctx, d.Plan)
	}
	built, err := plan.Build(in)
	if err != nil {
		return nil, err
	}
	if known, err := f.plan(ctx, built.Digest); err == nil {
		return known, nil
	}
	b.Plans = append(b.Plans, built)
	return &built, nil
}

// upstream tells of the release in every environment before this one.
func (f *Facts) upstream(ctx context.Context, key delivery.PlacementKey, step delivery.PathStep, release delivery.Digest) ([]gate.Upstream, error) {
	var all []gate.Upstream
	for _, name := range step.After {
		above := key
		above.Environment = name
		u := gate.Upstream{Environment: name, Known: true}
		rec, err := f.o.Store.Placement(ctx, above)
		if err != nil && delivery.ErrorCode(err) != delivery.CodeNotFound {
			return nil, err
		}
		p := rec.Placement
		for _, good := range p.Earlier {
			if good.Release == release {
				u.Succeeded = good.Since
			}
		}
		if p.Stable != nil && p.Stable.Release == release {
			u.Succeeded, u.Current = p.Stable.Since, true
		}
		if a := p.Active; a != nil && p.Stable != nil && a.Release == p.Stable.Release && a.Phase == delivery.PhaseRetiring && !u.Succeeded.IsZero() {
			u.Current = true
		}
		for i := range p.Quarantine {
			if p.Quarantine[i].Release == release {
				u.Quarantine = &p.Quarantine[i]
			}
		}
		all = append(all, u)
	}
	return all, nil
}

// application reads an application with its defaults.
func (f *Facts) application(ctx context.Context, key delivery.PlacementKey, b *Basis) (delivery.Application, error) {
	o, err := f.o.Store.Object(ctx, delivery.KindApplication, key.Project, key.Application)
	if err != nil {
		return delivery.Application{}, err
	}
	b.expect(o.Kind, o.Project, o.Name, o.Revision)
	a, err := spec[delivery.Application](o)
	if err != nil {
		return a, err
	}
	var failed error
	a = a.WithDefaultsIn(func(name string) delivery.Class {
		e, _, err := f.environment(ctx, delivery.PlacementKey{Project: key.Project, Environment: name}, &Basis{})
		if err != nil && delivery.ErrorCode(err) != delivery.CodeInvalid {
			failed = err
		}
		return e.Class
	})
	return a, failed
}

// environment reads an environment with its defaults, and its revision; one
// that has no document is built in, at revision 0.
func (f *Facts) environment(ctx context.Context, key delivery.PlacementKey, b *Basis) (delivery.Environment, int64, error) {
	o, err := f.o.Store.Object(ctx, delivery.KindEnvironment, key.Project, key.Environment)
	if delivery.ErrorCode(err) == delivery.CodeNotFound {
		b.expect(delivery.KindEnvironment, key.Project, key.Environment, 0)
		e, ok := delivery.BuiltinEnvironment(key.Environment)
		if !ok {
			return e, 0, delivery.Errorf(delivery.CodeInvalid, "There is no environment %s: apply an Environment document of that name.", key.Environment)
		}
		return e.WithDefaults(key.Environment), 0, nil
	}
	if err != nil {
		return delivery.Environment{}, 0, err
	}
	b.expect(o.Kind, o.Project, o.Name, o.Revision)
	e, err := spec[delivery.Environment](o)
	return e.WithDefaults(key.Environment), o.Revision, err
}

// calendars reads the calendars that apply: the path's, else the environment's.
func (f *Facts) calendars(ctx context.Context, project, ofStep, ofEnvironment string, b *Basis) ([]gate.NamedCalendar, error) {
	name := ofStep
	if name == "" {
		name = ofEnvironment
	}
	if name == "" {
		return nil, nil
	}
	o, err := f.o.Store.Object(ctx, delivery.KindCalendar, project, name)
	if delivery.ErrorCode(err) == delivery.CodeNotFound {
		return nil, delivery.Errorf(delivery.CodeInvalid, "There is no calendar %s: apply a Calendar document of that name.", name)
	}
	if err != nil {
		return nil, err
	}
	b.expect(o.Kind, o.Project, o.Name, o.Revision)
	c, err := spec[delivery.Calendar](o)
	return []gate.NamedCalendar{{Name: name, Calendar: c}}, err
}

// allObjects reads every object of a kind.
func (f *Facts) allObjects(ctx context.Context, kind delivery.Kind, project string) ([]delivery.Object, error) {
	var all []delivery.Object
	page := store.Page{Limit: 1000}
	for {
		some, next, err := f.o.Store.Objects(ctx, kind, project, page)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if next == "" {
			return all, nil
		}
		if page.After == next {
			return nil, fmt.Errorf("facts: the list of %s does not end", kind)
		}
		page.After = next
	}
}

// Application reads an application with its defaults.
func (f *Facts) Application(ctx context.Context, project, name string) (delivery.Application, error) {
	return f.application(ctx, delivery.PlacementKey{Project: project, Application: name}, &Basis{})
}

// Environment reads an environment with its defaults.
func (f *Facts) Environment(ctx context.Context, project, name string) (delivery.Environment, error) {
	e, _, err := f.environment(ctx, delivery.PlacementKey{Project: project, Environment: name}, &Basis{})
	return e, err
}

// Plan reads a stored plan; not_found if there is none.
func (f *Facts) Plan(ctx context.Context, digest delivery.Digest) (*delivery.Plan, error) {
	return f.plan(ctx, digest)
}
