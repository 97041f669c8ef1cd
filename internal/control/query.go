package control

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/facts"
	"github.com/tidegate-cd/tidegate/internal/gate"
	"github.com/tidegate-cd/tidegate/internal/plan"
	"github.com/tidegate-cd/tidegate/internal/remote"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// question is about the deployment that waits or is under way, unless another
// release is named.
func (c *Control) question(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, reference string) (facts.Question, *delivery.Deployment, error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return facts.Question{}, nil, err
	}
	if _, _, err := c.onPath(ctx, key); err != nil {
		return facts.Question{}, nil, err
	}
	p, err := c.placement(ctx, key)
	if err != nil {
		return facts.Question{}, nil, err
	}
	var d *delivery.Deployment
	if p.Active != nil {
		d = p.Active
	}
	if len(p.Queue) > 0 {
		d = p.Queue[0]
	}
	q := facts.Question{Key: key, Actor: actor}
	if reference != "" {
		r, err := c.release(ctx, key.Project, key.Application, reference)
		if err != nil {
			return q, nil, err
		}
		q.Release = r.Digest
		if d == nil || d.Release != r.Digest {
			return q, nil, nil
		}
	}
	if d == nil {
		list, _, err := c.o.Store.Releases(ctx, key.Project, key.Application, store.Page{Limit: 1})
		if err != nil {
			return q, nil, err
		}
		if len(list) == 0 {
			return q, nil, delivery.Errorf(delivery.CodeNotFound, "Application %s has no release yet: make one with 'tidegate release create'.", key.Application)
		}
		q.Release = list[0].Digest
		return q, nil, nil
	}
	q.Release, q.Deployment = d.Release, d
	return q, d, nil
}

// Why says what every gate says.
func (c *Control) Why(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, reference string) (wire.Why, error) {
	q, d, err := c.question(ctx, actor, key, reference)
	if err != nil {
		return wire.Why{}, err
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return wire.Why{}, err
	}
	g, p, err := c.o.Facts.Gates(ctx, q, now)
	if err != nil {
		return wire.Why{}, err
	}
	why := wire.Why{Key: key, Release: q.Release, Version: g.Release.Version, Plan: p.Digest, At: now, Verdicts: gate.Evaluate(g)}
	why.Outcome = delivery.Combine(why.Verdicts)
	switch {
	case d != nil && d.Phase != delivery.PhaseWaiting:
		why.Deployment, why.Phase = d.ID, d.Phase
		why.Message = fmt.Sprintf("Release %s is %s in %s: %s", d.Version, d.Phase, key.Environment, progress(d))
	case d != nil:
		why.Deployment, why.Phase = d.ID, d.Phase
		why.Message = fmt.Sprintf("Release %s waits for %s: %s", d.Version, key.Environment, d.Message)
	default:
		why.Message = fmt.Sprintf("If release %s were promoted to %s now: %s.", g.Release.Version, key.Environment, outcomeWord(why.Outcome))
	}
	return why, nil
}

func outcomeWord(o delivery.Outcome) string {
	return map[delivery.Outcome]string{
		delivery.OutcomePass: "it would start", delivery.OutcomeWait: "it would wait",
		delivery.OutcomeDeny: "it would be refused", delivery.OutcomeUnknown: "nobody can tell",
	}[o]
}

// progress says where the steps of a deployment are.
func progress(d *delivery.Deployment) string {
	parts := []string{d.Message}
	for _, s := range d.Steps {
		if s.Phase != delivery.StepPending && s.Phase != delivery.StepDone && s.Message != "" {
			parts = append(parts, fmt.Sprintf("%s at %d %%: %s.", s.Name, s.Weight, strings.TrimSuffix(s.Message, ".")))
		}
	}
	return strings.Join(parts, " ")
}

// When says the earliest time at which a release could start.
func (c *Control) When(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, reference string) (wire.When, error) {
	q, _, err := c.question(ctx, actor, key, reference)
	if err != nil {
		return wire.When{}, err
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return wire.When{}, err
	}
	r, err := c.o.Store.Release(ctx, q.Release)
	if err != nil {
		return wire.When{}, err
	}
	at, verdicts, err := c.o.Facts.When(ctx, q, now)
	if err != nil {
		return wire.When{}, err
	}
	w := wire.When{Key: key, Release: q.Release, Version: r.Version, At: now, Earliest: at, Verdicts: verdicts}
	switch {
	case at.IsZero():
		w.Message = fmt.Sprintf("No time alone lets release %s into %s.", r.Version, key.Environment)
	case delivery.Combine(verdicts) == delivery.OutcomePass && !at.After(now):
		w.Message = fmt.Sprintf("Release %s could start in %s now.", r.Version, key.Environment)
	default:
		w.Message = fmt.Sprintf("Release %s could start in %s at %s at the earliest.", r.Version, key.Environment, at.Format("2006-01-02 15:04:05 MST"))
	}
	return w, nil
}

// Forecast says what every environment of the path would say of a release.
func (c *Control) Forecast(ctx context.Context, actor delivery.Actor, project, application, reference string) (wire.ForecastOfRelease, error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return wire.ForecastOfRelease{}, err
	}
	r, err := c.release(ctx, project, application, reference)
	if err != nil {
		return wire.ForecastOfRelease{}, err
	}
	return c.forecast(ctx, actor, r)
}

func (c *Control) forecast(ctx context.Context, actor delivery.Actor, r delivery.Release) (wire.ForecastOfRelease, error) {
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return wire.ForecastOfRelease{}, err
	}
	all, err := c.o.Facts.Forecast(ctx, r.Project, r.Application, r.Digest, actor, now)
	if err != nil {
		return wire.ForecastOfRelease{}, err
	}
	f := wire.ForecastOfRelease{Project: r.Project, Application: r.Application, Release: r.Digest, Version: r.Version, At: now}
	for _, one := range all {
		e := wire.EnvironmentForecast{Environment: one.Environment, Class: one.Class, Outcome: wire.Prospect(one.Outcome), Verdicts: one.Verdicts, Plan: one.Plan}
		e.Message = "every gate would pass now"
		if blocking := delivery.Blocking(one.Verdicts); len(blocking) > 0 {
			e.Message = blocking[0].Reason
		}
		p, err := c.placement(ctx, delivery.PlacementKey{Project: r.Project, Application: r.Application, Environment: one.Environment})
		if err != nil {
			return f, err
		}
		if p.Stable != nil && p.Stable.Release == r.Digest {
			e.Outcome, e.Message = wire.ProspectDone, "it runs there"
		}
		f.Environments = append(f.Environments, e)
	}
	return f, nil
}

// DryRun says what a promotion would do.
func (c *Control) DryRun(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, reference string) (wire.DryRun, error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return wire.DryRun{}, err
	}
	r, err := c.release(ctx, key.Project, key.Application, reference)
	if err != nil {
		return wire.DryRun{}, err
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return wire.DryRun{}, err
	}
	g, p, err := c.o.Facts.Gates(ctx, facts.Question{Key: key, Release: r.Digest, Actor: actor}, now)
	if err != nil {
		return wire.DryRun{}, err
	}
	dry := wire.DryRun{Plan: *p, Verdicts: gate.Evaluate(g), Changes: []wire.Difference{}}
	dry.Outcome = delivery.Combine(dry.Verdicts)
	var from *delivery.Plan
	if s := g.Placement.Stable; s != nil {
		dry.From = s.Version
		if from, err = c.o.Facts.Plan(ctx, s.Plan); err != nil {
			return dry, err
		}
	}
	dry.Changes = differences(from, p)
	return dry, nil
}

func differences(from, to *delivery.Plan) []wire.Difference {
	all := []wire.Difference{}
	for _, d := range plan.Diff(from, to) {
		all = append(all, wire.Difference{Path: d.Path, Before: d.Before, After: d.After})
	}
	return all
}

// Diff compares what runs with what a release would be, or with another environment.
func (c *Control) Diff(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, q wire.DiffQuery) (wire.Diff, error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return wire.Diff{}, err
	}
	if (q.Release == "") == (q.With == "") {
		return wire.Diff{}, delivery.Errorf(delivery.CodeInvalid, "Say one of a release (APPLICATION@VERSION) and another environment (--with).")
	}
	from, x, err := c.running(ctx, key)
	if err != nil {
		return wire.Diff{}, err
	}
	d := wire.Diff{From: from}
	if q.With != "" {
		other := key
		other.Environment = q.With
		to, y, err := c.running(ctx, other)
		d.To, d.Changes = to, differences(x, y)
		return d, err
	}
	dry, err := c.DryRun(ctx, actor, key, q.Release)
	d.To = wire.Compared{Environment: key.Environment, Release: dry.Plan.Release, Version: dry.Plan.Version, Plan: dry.Plan.Digest}
	d.Changes = dry.Changes
	return d, err
}

// running returns what runs in a placement, and its plan.
func (c *Control) running(ctx context.Context, key delivery.PlacementKey) (wire.Compared, *delivery.Plan, error) {
	if _, _, err := c.onPath(ctx, key); err != nil {
		return wire.Compared{}, nil, err
	}
	one := wire.Compared{Environment: key.Environment}
	p, err := c.placement(ctx, key)
	if err != nil || p.Stable == nil {
		return one, nil, err
	}
	one.Release, one.Version, one.Plan = p.Stable.Release, p.Stable.Version, p.Stable.Plan
	pl, err := c.o.Facts.Plan(ctx, p.Stable.Plan)
	return one, pl, err
}

// Deployments lists deployments, newest first.
func (c *Control) Deployments(ctx context.Context, actor delivery.Actor, q wire.DeploymentQuery, p wire.Page) (wire.List[delivery.Deployment], error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return wire.List[delivery.Deployment]{}, err
	}
	items, next, err := c.o.Store.Deployments(ctx, store.DeploymentFilter{Project: q.Project, Application: q.Application, Environment: q.Environment, Release: q.Release, Active: q.Active}, page(p))
	return wire.List[delivery.Deployment]{Items: items, Next: next}, err
}

// Deployment reads a deployment.
func (c *Control) Deployment(ctx context.Context, actor delivery.Actor, id delivery.ID) (delivery.Deployment, error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return delivery.Deployment{}, err
	}
	return c.o.Store.Deployment(ctx, id)
}

// Turns returns the recorded turns of a deployment, oldest first.
func (c *Control) Turns(ctx context.Context, actor delivery.Actor, id delivery.ID) (wire.List[json.RawMessage], error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return wire.List[json.RawMessage]{}, err
	}
	items, err := c.o.Store.Turns(ctx, id)
	return wire.List[json.RawMessage]{Items: items}, err
}

// Plan reads a plan.
func (c *Control) Plan(ctx context.Context, actor delivery.Actor, d delivery.Digest) (delivery.Plan, error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return delivery.Plan{}, err
	}
	p, err := c.o.Facts.Plan(ctx, d)
	if err != nil {
		return delivery.Plan{}, err
	}
	return *p, nil
}

// Inventory says what runs, or ran, where.
func (c *Control) Inventory(ctx context.Context, actor delivery.Actor, q wire.InventoryQuery, p wire.Page) (wire.List[delivery.InventoryEntry], error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return wire.List[delivery.InventoryEntry]{}, err
	}
	items, next, err := c.o.Store.Inventory(ctx, store.InventoryFilter{Project: q.Project, Application: q.Application, Environment: q.Environment, Artifact: q.Artifact, At: q.At, History: q.History}, page(p))
	return wire.List[delivery.InventoryEntry]{Items: items, Next: next}, err
}

// Decisions lists policy decisions, newest first.
func (c *Control) Decisions(ctx context.Context, actor delivery.Actor, project string, p wire.Page) (wire.List[delivery.Decision], error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return wire.List[delivery.Decision]{}, err
	}
	items, next, err := c.o.Store.Decisions(ctx, project, page(p))
	return wire.List[delivery.Decision]{Items: items, Next: next}, err
}

// Decision reads a policy decision with its input.
func (c *Control) Decision(ctx context.Context, actor delivery.Actor, id delivery.ID) (delivery.Decision, error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return delivery.Decision{}, err
	}
	return c.o.Store.Decision(ctx, id)
}

// Logs returns the last lines that a service's instances wrote.
func (c *Control) Logs(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, q wire.LogQuery) (wire.List[wire.LogLine], error) {
	list := wire.List[wire.LogLine]{Items: []wire.LogLine{}}
	if err := c.may(ctx, actor, OpRead); err != nil {
		return list, err
	}
	app, _, err := c.onPath(ctx, key)
	if err != nil {
		return list, err
	}
	e, err := c.o.Facts.Environment(ctx, key.Project, key.Environment)
	if err != nil {
		return list, err
	}
	for _, target := range e.Targets {
		for _, s := range app.Services {
			if c.o.Hosts == nil || q.Target != "" && q.Target != target || q.Service != "" && q.Service != s.Name {
				continue
			}
			host, err := c.hostOf(ctx, key.Project, target)
			if err != nil {
				return list, err
			}
			lines, err := c.o.Hosts.Logs(ctx, host, remote.LogQuery{Placement: key, Service: s.Name, Target: target, Lines: q.Lines})
			if err != nil {
				return list, err
			}
			for _, l := range lines {
				list.Items = append(list.Items, wire.LogLine{Service: s.Name, Target: target, Workload: l.Workload, Version: l.Version, Instance: l.Instance, Text: l.Text})
			}
		}
	}
	return list, nil
}
