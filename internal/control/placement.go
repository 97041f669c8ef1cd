package control

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/facts"
	"github.com/tidegate-cd/tidegate/internal/gate"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// command fills in a command and commits it.
func (c *Control) command(ctx context.Context, cmd delivery.Command, now time.Time) (delivery.Command, error) {
	cmd.ID, cmd.At = c.o.NewID(), now
	_, err := c.o.Store.Commit(ctx, store.Change{Commands: []delivery.Command{cmd}})
	return cmd, err
}

// Promote asks that a release goes to an environment. What no waiting would
// change (quarantine, a pin, a policy's denial of the request itself) is
// refused at once and recorded; everything else is a deployment that waits.
func (c *Control) Promote(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, p wire.Promote) (wire.Requested, error) {
	if err := c.may(ctx, actor, OpPromote); err != nil {
		return wire.Requested{}, err
	}
	if _, _, err := c.onPath(ctx, key); err != nil {
		return wire.Requested{}, err
	}
	r, err := c.release(ctx, key.Project, key.Application, p.Release)
	if err != nil {
		return wire.Requested{}, err
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return wire.Requested{}, err
	}
	g, plan, err := c.o.Facts.Gates(ctx, facts.Question{Key: key, Release: r.Digest, Actor: actor, Reason: p.Reason}, now)
	if err != nil {
		return wire.Requested{}, err
	}
	verdicts := gate.Evaluate(g)
	if err := c.refuseNow(ctx, actor, key, r, g, verdicts, now); err != nil {
		return wire.Requested{}, err
	}
	cmd, err := c.command(ctx, delivery.Command{
		Kind: delivery.CommandPromote, Key: key, Deployment: c.o.NewID(), Release: r.Digest, Version: r.Version,
		Immediate: p.Immediate, Reason: p.Reason, Actor: actor,
	}, now)
	if err != nil {
		return wire.Requested{}, err
	}
	done := wire.Requested{Command: cmd.ID, Deployment: cmd.Deployment, Version: r.Version, Plan: plan.Digest, Outcome: delivery.Combine(verdicts), Verdicts: verdicts}
	switch done.Outcome {
	case delivery.OutcomePass:
		done.Message = fmt.Sprintf("%s goes to %s now.", r.Reference(), key.Environment)
	case delivery.OutcomeDeny:
		done.Message = fmt.Sprintf("%s was requested for %s, which will refuse it.", r.Reference(), key.Environment)
	default:
		done.Message = fmt.Sprintf("%s waits for %s.", r.Reference(), key.Environment)
	}
	return done, nil
}

// refuseNow refuses a promotion for what stands at the moment of the request.
func (c *Control) refuseNow(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, r delivery.Release, g gate.Facts, verdicts []delivery.Verdict, now time.Time) error {
	requested := map[delivery.ID]bool{}
	for _, d := range g.Decisions {
		requested[d.ID] = d.Moment == delivery.MomentPromotionRequested
	}
	var denials []delivery.Verdict
	for _, v := range verdicts {
		if v.Outcome == delivery.OutcomeDeny && (v.Gate != delivery.GatePolicy || v.Decision == "" || requested[v.Decision]) {
			denials = append(denials, v)
		}
	}
	if len(denials) == 0 {
		return nil
	}
	e := c.event(delivery.EventPromotionRefused, key, actor, now, "The promotion of %s was refused: %s", r.Reference(), denials[0].Reason)
	e.Release, e.Version = r.Digest, r.Version
	change := store.Change{Events: []delivery.Event{e}}
	for _, d := range g.Decisions {
		if requested[d.ID] && d.Outcome != delivery.DecisionNoPolicy {
			change.Decisions = append(change.Decisions, d)
		}
	}
	if _, err := c.o.Store.Commit(ctx, change); err != nil {
		return err
	}
	return &delivery.Error{Code: delivery.CodeDenied, Message: fmt.Sprintf("%s may not go to %s: %s", r.Reference(), key.Environment, denials[0].Reason), Verdicts: denials}
}

// Rollback asks to go back: a deployment under way to what ran before, else to
// an earlier good plan.
func (c *Control) Rollback(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, r wire.Rollback) (wire.Requested, error) {
	if err := c.may(ctx, actor, OpSteer); err != nil {
		return wire.Requested{}, err
	}
	if _, _, err := c.onPath(ctx, key); err != nil {
		return wire.Requested{}, err
	}
	p, err := c.placement(ctx, key)
	if err != nil {
		return wire.Requested{}, err
	}
	cmd := delivery.Command{Kind: delivery.CommandRollback, Key: key, Deployment: c.o.NewID(), Reason: r.Reason, Actor: actor}
	done := wire.Requested{Outcome: delivery.OutcomePass}
	if a := p.Active; a != nil && a.Kind == delivery.KindPromotion {
		done.Deployment, done.Message = a.ID, fmt.Sprintf("The deployment of release %s is aborted; traffic goes back to what ran before.", a.Version)
		if p.Stable != nil {
			done.Version = p.Stable.Version
		}
	} else {
		i := slices.IndexFunc(p.Earlier, func(g delivery.Good) bool {
			return r.To == "" || g.Version == r.To || string(g.Plan) == r.To || g.Plan.Short() == r.To
		})
		if i < 0 {
			return done, delivery.Errorf(delivery.CodeNotFound, "There is no earlier good plan %s in %s: promote the release that you want instead.", r.To, key.Environment)
		}
		cmd.Plan = p.Earlier[i].Plan
		done.Deployment, done.Version, done.Plan = cmd.Deployment, p.Earlier[i].Version, cmd.Plan
		done.Message = fmt.Sprintf("%s goes back to release %s.", key.Environment, done.Version)
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return done, err
	}
	cmd, err = c.command(ctx, cmd, now)
	done.Command = cmd.ID
	return done, err
}

// Act does what a person does to a deployment under way.
func (c *Control) Act(ctx context.Context, actor delivery.Actor, kind delivery.CommandKind, key delivery.PlacementKey, a wire.Act) (wire.Accepted, error) {
	op := OpSteer
	if kind == delivery.CommandConfirm {
		op = OpApprove // who may confirm is the task's matter
	}
	if kind == delivery.CommandUnpin || kind == delivery.CommandUnhold {
		op = OpRestrain
	}
	if err := c.may(ctx, actor, op); err != nil {
		return wire.Accepted{}, err
	}
	if _, _, err := c.onPath(ctx, key); err != nil {
		return wire.Accepted{}, err
	}
	p, err := c.placement(ctx, key)
	if err != nil {
		return wire.Accepted{}, err
	}
	var d *delivery.Deployment
	if op != OpRestrain {
		if d, err = c.meant(p, a.Deployment, kind == delivery.CommandAbort); err != nil {
			return wire.Accepted{}, err
		}
	}
	cmd := delivery.Command{Kind: kind, Key: key, Step: a.Step, Reason: a.Reason, Actor: actor}
	done := wire.Accepted{Message: fmt.Sprintf("%s was asked for in %s.", kind, key.Environment)}
	if d != nil {
		cmd.Deployment, done.Deployment = d.ID, d.ID
		done.Message = fmt.Sprintf("%s was asked for: release %s in %s.", kind, d.Version, key.Environment)
	}
	return c.accept(ctx, cmd, done)
}

// meant finds the deployment that somebody speaks of.
func (c *Control) meant(p delivery.Placement, id delivery.ID, queued bool) (*delivery.Deployment, error) {
	if id != "" {
		if d := p.Find(id); d != nil {
			return d, nil
		}
		return nil, delivery.Errorf(delivery.CodeConflict, "The deployment %s is not queued or under way in %s any more.", id, p.Key.Environment)
	}
	if p.Active != nil {
		return p.Active, nil
	}
	if queued && len(p.Queue) > 0 {
		return p.Queue[0], nil
	}
	return nil, delivery.Errorf(delivery.CodeConflict, "No deployment is under way in %s: 'tidegate status %s' shows what is.", p.Key.Environment, p.Key.Application)
}

func (c *Control) accept(ctx context.Context, cmd delivery.Command, done wire.Accepted) (wire.Accepted, error) {
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return done, err
	}
	cmd, err = c.command(ctx, cmd, now)
	done.Commands = append(done.Commands, cmd.ID)
	return done, err
}

// Approve gives or refuses a person's approval of exactly one plan.
func (c *Control) Approve(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, a wire.Approve, reject bool) (wire.Accepted, error) {
	if err := c.may(ctx, actor, OpApprove); err != nil {
		return wire.Accepted{}, err
	}
	p, err := c.placement(ctx, key)
	if err != nil {
		return wire.Accepted{}, err
	}
	d := p.Find(a.Deployment)
	switch {
	case d == nil && a.Deployment != "":
		return wire.Accepted{}, delivery.Errorf(delivery.CodeConflict, "The deployment %s is not queued or under way in %s any more.", a.Deployment, key.Environment)
	case d == nil && a.Step == "" && len(p.Queue) > 0:
		d = p.Queue[0]
	case d == nil:
		d = p.Active
	}
	if d == nil {
		return wire.Accepted{}, delivery.Errorf(delivery.CodeConflict, "No deployment waits for an approval in %s.", key.Environment)
	}
	if d.Plan == "" {
		return wire.Accepted{}, delivery.Errorf(delivery.CodeConflict, "The plan of release %s is not built yet; try again in a moment.", d.Version)
	}
	if a.Plan != "" && a.Plan != d.Plan {
		return wire.Accepted{}, delivery.Errorf(delivery.CodeConflict, "The plan that would run now is %s and not %s: look at it, then decide again.", d.Plan.Short(), a.Plan.Short())
	}
	cmd := delivery.Command{Kind: delivery.CommandApprove, Key: key, Deployment: d.ID, Plan: d.Plan, Step: a.Step, Reason: a.Comment, Actor: actor}
	done := wire.Accepted{Deployment: d.ID, Plan: d.Plan, Message: fmt.Sprintf("You approved plan %s of release %s in %s.", d.Plan.Short(), d.Version, key.Environment)}
	if reject {
		cmd.Kind = delivery.CommandReject
		done.Message = fmt.Sprintf("You rejected plan %s of release %s in %s.", d.Plan.Short(), d.Version, key.Environment)
	} else {
		r, err := c.o.Store.Release(ctx, d.Release)
		if err != nil {
			return done, err
		}
		if counts, why := gate.Counts(gate.Facts{Deployment: *d, Release: r}, actor); !counts {
			done.Warning = "It does not count. " + why
		}
	}
	return c.accept(ctx, cmd, done)
}

// Pin keeps a placement on a release.
func (c *Control) Pin(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, p wire.Pin) (wire.Accepted, error) {
	if err := c.may(ctx, actor, OpRestrain); err != nil {
		return wire.Accepted{}, err
	}
	if _, _, err := c.onPath(ctx, key); err != nil {
		return wire.Accepted{}, err
	}
	if p.Release == "" {
		now, err := c.placement(ctx, key)
		if err != nil {
			return wire.Accepted{}, err
		}
		if now.Stable == nil {
			return wire.Accepted{}, delivery.Errorf(delivery.CodeInvalid, "Nothing runs in %s yet: say which release with --release.", key.Environment)
		}
		p.Release = string(now.Stable.Release)
	}
	r, err := c.release(ctx, key.Project, key.Application, p.Release)
	if err != nil {
		return wire.Accepted{}, err
	}
	cmd := delivery.Command{Kind: delivery.CommandPin, Key: key, Release: r.Digest, Version: r.Version, Reason: p.Reason, Actor: actor}
	return c.accept(ctx, cmd, wire.Accepted{Message: fmt.Sprintf("%s is pinned to release %s.", key.Environment, r.Version)})
}

// Hold stops promotions to a placement.
func (c *Control) Hold(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, h wire.Hold) (wire.Accepted, error) {
	if err := c.may(ctx, actor, OpRestrain); err != nil {
		return wire.Accepted{}, err
	}
	if _, _, err := c.onPath(ctx, key); err != nil {
		return wire.Accepted{}, err
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return wire.Accepted{}, err
	}
	if h.For > 0 {
		h.Until = now.Add(h.For.Std())
	}
	if !h.Until.IsZero() && !h.Until.After(now) {
		return wire.Accepted{}, delivery.Errorf(delivery.CodeInvalid, "The hold would have ended already: give a time to come.")
	}
	cmd := delivery.Command{Kind: delivery.CommandHold, Key: key, Until: h.Until, Reason: h.Reason, Actor: actor}
	return c.accept(ctx, cmd, wire.Accepted{Message: fmt.Sprintf("Promotions to %s are held.", key.Environment)})
}

// Quarantine refuses a release in an environment, or in every one of the path
// when the key names none; lift ends that.
func (c *Control) Quarantine(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, q wire.Quarantine, lift bool) (wire.Accepted, error) {
	if err := c.may(ctx, actor, OpRestrain); err != nil {
		return wire.Accepted{}, err
	}
	app, err := c.o.Facts.Application(ctx, key.Project, key.Application)
	if err != nil {
		return wire.Accepted{}, err
	}
	if key.Environment != "" {
		if _, _, err := c.onPath(ctx, key); err != nil {
			return wire.Accepted{}, err
		}
	}
	r, err := c.release(ctx, key.Project, key.Application, q.Release)
	if err != nil {
		return wire.Accepted{}, err
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return wire.Accepted{}, err
	}
	change := store.Change{}
	done := wire.Accepted{Message: fmt.Sprintf("%s is quarantined.", r.Reference())}
	kind := delivery.CommandQuarantine
	if lift {
		kind, done.Message = delivery.CommandLift, fmt.Sprintf("The quarantine of %s is lifted.", r.Reference())
	}
	for _, s := range app.Path {
		if key.Environment != "" && key.Environment != s.Environment {
			continue
		}
		at := key
		at.Environment = s.Environment
		cmd := delivery.Command{ID: c.o.NewID(), Kind: kind, Key: at, Release: r.Digest, Version: r.Version, Reason: q.Reason, Actor: actor, At: now}
		change.Commands = append(change.Commands, cmd)
		done.Commands = append(done.Commands, cmd.ID)
	}
	_, err = c.o.Store.Commit(ctx, change)
	return done, err
}
