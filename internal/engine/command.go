package engine

import (
	"fmt"
	"slices"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// command consumes one command. One that has become pointless is recorded as
// refused and changes nothing.
func (m *machine) command(c delivery.Command) {
	switch c.Kind {
	case delivery.CommandPromote:
		m.promote(c)
	case delivery.CommandRollback:
		m.rollback(c)
	case delivery.CommandAbort:
		m.abort(c)
	case delivery.CommandPause, delivery.CommandResume, delivery.CommandComplete, delivery.CommandRetry:
		m.steer(c)
	case delivery.CommandApprove, delivery.CommandReject:
		m.approve(c)
	case delivery.CommandConfirm:
		m.confirm(c)
	case delivery.CommandPin, delivery.CommandUnpin, delivery.CommandHold, delivery.CommandUnhold:
		m.restrain(c)
	case delivery.CommandQuarantine, delivery.CommandLift:
		m.quarantineCommand(c)
	default:
		m.refuse(c, fmt.Sprintf("The command %q is not known.", c.Kind))
	}
}

// refuse records that a command changed nothing.
func (m *machine) refuse(c delivery.Command, why string) {
	m.event(delivery.EventCommandRefused, m.meant(c), c.Actor, fmt.Sprintf("%s was not done: %s", c.Kind, why), nil)
}

// meant returns the deployment that a command is about: the one it names, else
// the active one, else the first queued one.
func (m *machine) meant(c delivery.Command) *delivery.Deployment {
	switch {
	case c.Deployment != "":
		return m.p.Find(c.Deployment)
	case m.p.Active != nil:
		return m.p.Active
	case len(m.p.Queue) > 0:
		return m.p.Queue[0]
	}
	return nil
}

func (m *machine) promote(c delivery.Command) {
	if m.p.Find(c.Deployment) != nil {
		return // the same command again
	}
	if a := m.p.Active; a != nil && a.Kind == delivery.KindPromotion && a.Release == c.Release &&
		a.Phase != delivery.PhaseReverting && a.Phase != delivery.PhaseNeedsPerson {
		m.refuse(c, fmt.Sprintf("release %s is being deployed here already.", c.Version))
		return
	}
	d := &delivery.Deployment{
		ID: c.Deployment, Key: m.p.Key, Kind: delivery.KindPromotion, Release: c.Release, Version: c.Version,
		RequestedBy: c.Actor, Reason: c.Reason, RequestedAt: c.At,
		Phase: delivery.PhaseWaiting, PhaseSince: m.o.Now,
	}
	for _, q := range slices.Clone(m.p.Queue) {
		if q.Kind == delivery.KindPromotion {
			m.setPhase(q, delivery.PhaseSuperseded, c.Actor, fmt.Sprintf("Release %s replaced it before it started.", c.Version))
			m.finish(q)
		}
	}
	m.p.Queue = append(m.p.Queue, d)
	m.t.Again = true
	m.event(delivery.EventDeploymentRequested, d, c.Actor, fmt.Sprintf("Release %s was requested for %s.", c.Version, m.p.Key.Environment), nil)
	if c.Immediate && m.p.Active != nil {
		m.abortActive(m.p.Active, c.Actor, fmt.Sprintf("Release %s replaces it at once.", c.Version))
	}
}

func (m *machine) rollback(c delivery.Command) {
	if a := m.p.Active; a != nil && a.Kind == delivery.KindPromotion {
		m.abort(delivery.Command{Kind: delivery.CommandAbort, Deployment: a.ID, Actor: c.Actor, Reason: c.Reason})
		return
	}
	if m.p.Active != nil || m.p.Find(c.Deployment) != nil {
		m.refuse(c, "a rollback is under way.")
		return
	}
	i := 0
	if c.Plan != "" {
		i = slices.IndexFunc(m.p.Earlier, func(g delivery.Good) bool { return g.Plan == c.Plan })
	}
	if i < 0 || i >= len(m.p.Earlier) {
		m.refuse(c, "there is no such earlier good plan; promote the release instead.")
		return
	}
	to := m.p.Earlier[i]
	if m.p.Stable != nil {
		m.quarantine(delivery.Quarantine{
			Plan: m.p.Stable.Plan, Release: m.p.Stable.Release, Version: m.p.Stable.Version, Deployment: m.p.Stable.Deployment,
			Reason: "rolled back: " + orElse(c.Reason, "no reason was given"), Actor: c.Actor, At: m.o.Now,
		})
	}
	d := &delivery.Deployment{
		ID: c.Deployment, Key: m.p.Key, Kind: delivery.KindRollback, Release: to.Release, Version: to.Version, Plan: to.Plan,
		RequestedBy: c.Actor, Reason: c.Reason, RequestedAt: c.At,
		Phase: delivery.PhaseWaiting, PhaseSince: m.o.Now,
	}
	m.p.Queue = append([]*delivery.Deployment{d}, m.p.Queue...)
	m.t.Again = true
	m.event(delivery.EventDeploymentRequested, d, c.Actor, fmt.Sprintf("A rollback to release %s was requested.", to.Version), nil)
}

func (m *machine) abort(c delivery.Command) {
	d := m.meant(c)
	switch {
	case d == nil:
		m.refuse(c, "no deployment is queued or under way here.")
	case d == m.p.Active:
		if d.Phase == delivery.PhaseRetiring || d.Phase == delivery.PhaseReverting {
			m.refuse(c, fmt.Sprintf("the deployment is %s already; roll back when it has ended.", d.Phase))
			return
		}
		m.abortActive(d, c.Actor, orElse(c.Reason, "aborted by "+c.Actor.Subject))
	default:
		m.setPhase(d, delivery.PhaseAborted, c.Actor, orElse(c.Reason, "Cancelled before it started."))
		m.finish(d)
	}
}

func (m *machine) abortActive(d *delivery.Deployment, actor delivery.Actor, reason string) {
	if d.Phase != delivery.PhaseRunning && d.Phase != delivery.PhaseBaking && d.Phase != delivery.PhaseNeedsPerson {
		return
	}
	d.EndedBy = &actor
	d.Paused = nil
	m.startRevert(d, delivery.PhaseAborted, actor, reason)
}

// steer handles pause, resume, complete and retry of the active deployment.
func (m *machine) steer(c delivery.Command) {
	d := m.p.Active
	if d == nil || c.Deployment != "" && c.Deployment != d.ID {
		m.refuse(c, "no such deployment is under way here.")
		return
	}
	switch {
	case c.Kind == delivery.CommandRetry && d.Phase == delivery.PhaseNeedsPerson:
		m.retry(d, c)
	case d.Phase != delivery.PhaseRunning && d.Phase != delivery.PhaseBaking || c.Kind == delivery.CommandRetry:
		m.refuse(c, fmt.Sprintf("the deployment is %s.", d.Phase))
	case c.Kind == delivery.CommandPause:
		d.Paused = &delivery.Hold{Reason: c.Reason, Actor: c.Actor, At: m.o.Now}
		m.event(delivery.EventDeploymentPaused, d, c.Actor, orElse(c.Reason, "Paused by "+c.Actor.Subject+"."), nil)
	case c.Kind == delivery.CommandResume:
		m.resume(d, c)
	case c.Kind == delivery.CommandComplete:
		m.complete(d, c)
	}
}

func (m *machine) resume(d *delivery.Deployment, c delivery.Command) {
	if d.Paused != nil {
		d.Paused = nil
	} else {
		for i := range d.Steps {
			if s := &d.Steps[i]; s.Phase == delivery.StepRunning && (c.Step == "" || c.Step == s.Name) {
				s.Resumed = true
			}
		}
	}
	m.event(delivery.EventDeploymentResumed, d, c.Actor, orElse(c.Reason, "Resumed by "+c.Actor.Subject+"."), nil)
}

// complete goes to 100 % at once: every rollout under way to its last shift, or the bake to its end.
func (m *machine) complete(d *delivery.Deployment, c delivery.Command) {
	d.Paused = nil
	if d.Phase == delivery.PhaseBaking {
		d.BakeUntil = m.o.Now
	}
	if plan := m.plan(d.Plan); plan != nil {
		for i := range d.Steps {
			s := &d.Steps[i]
			step, ok := plan.Step(s.Name)
			if !ok || step.Rollout == nil || s.Phase != delivery.StepRunning {
				continue
			}
			if last := lastShift(step.Rollout); s.Move < last && step.Rollout.Moves[s.Move].Kind != delivery.MoveStart {
				m.toMove(s, last)
			}
		}
	}
	m.event(delivery.EventDeploymentResumed, d, c.Actor, c.Actor.Subject+" promoted it fully without further looks.", nil)
}

// retry tries the failed steps of a deployment that needs a person again.
func (m *machine) retry(d *delivery.Deployment, c delivery.Command) {
	to := delivery.PhaseRunning
	if d.Ending != "" && !barred(m.plan(d.Plan), d) {
		to = delivery.PhaseReverting
	}
	for i := range d.Steps {
		s := &d.Steps[i]
		s.Analysis, s.Bake = nil, nil
		switch {
		case s.Phase == delivery.StepFailed && to == delivery.PhaseRunning:
			s.Phase = delivery.StepRunning
		case s.Phase == delivery.StepFailed:
			s.Phase = delivery.StepReverting
		case s.Phase != delivery.StepReverting:
			continue
		}
		s.Sent, s.Tries, s.Message, s.Effect, s.MoveSince = "", 0, "", 0, m.o.Now
	}
	d.Harm = false
	if to == delivery.PhaseRunning {
		d.Ending = ""
	}
	m.setPhase(d, to, c.Actor, orElse(c.Reason, "Tried again by "+c.Actor.Subject+"."))
}

func (m *machine) approve(c delivery.Command) {
	d := m.meant(c)
	if c.Deployment == "" && c.Step == "" && len(m.p.Queue) > 0 {
		d = m.p.Queue[0] // an approval without more is for what waits to start
	}
	if d == nil {
		m.refuse(c, "no deployment waits for it here.")
		return
	}
	if d.Phase.Terminal() || d.Phase == delivery.PhaseReverting {
		m.refuse(c, fmt.Sprintf("the deployment is %s.", d.Phase))
		return
	}
	a := delivery.Approval{ID: c.ID, Plan: orElse(c.Plan, d.Plan), Step: c.Step, Actor: c.Actor, At: c.At, Rejected: c.Kind == delivery.CommandReject, Comment: c.Reason}
	d.Approvals = slices.DeleteFunc(d.Approvals, func(b delivery.Approval) bool {
		return b.Plan == a.Plan && b.Step == a.Step && b.Actor.Subject == a.Actor.Subject && b.Actor.Issuer == a.Actor.Issuer
	})
	d.Approvals = append(d.Approvals, a)
	t, verb := delivery.EventApprovalGiven, "approved"
	if a.Rejected {
		t, verb = delivery.EventApprovalRejected, "rejected"
	}
	m.event(t, d, c.Actor, fmt.Sprintf("%s %s plan %s of release %s.", c.Actor.Subject, verb, a.Plan.Short(), d.Version), a)
	m.t.Again = true // the gates were evaluated without it
}

func (m *machine) confirm(c delivery.Command) {
	d := m.p.Active
	if d == nil {
		m.refuse(c, "no deployment is under way here.")
		return
	}
	s := d.Step(c.Step)
	if s == nil {
		s = m.waitingManual(d)
	}
	if s == nil || s.Phase != delivery.StepRunning {
		m.refuse(c, "no manual task waits for it.")
		return
	}
	s.Confirmed = &delivery.Approval{ID: c.ID, Plan: d.Plan, Step: s.Name, Actor: c.Actor, At: c.At, Comment: c.Reason}
	m.event(delivery.EventTaskConfirmed, d, c.Actor, fmt.Sprintf("%s confirmed %s.", c.Actor.Subject, s.Name), s.Confirmed)
}

// waitingManual returns the first running manual task.
func (m *machine) waitingManual(d *delivery.Deployment) *delivery.StepState {
	plan := m.plan(d.Plan)
	if plan == nil {
		return nil
	}
	for i := range d.Steps {
		step, ok := plan.Step(d.Steps[i].Name)
		if ok && step.Task != nil && step.Task.Manual != nil && d.Steps[i].Phase == delivery.StepRunning {
			return &d.Steps[i]
		}
	}
	return nil
}

// restrain handles pins and holds.
func (m *machine) restrain(c delivery.Command) {
	switch c.Kind {
	case delivery.CommandPin:
		m.p.Pin = &delivery.Pin{Release: c.Release, Version: c.Version, Reason: c.Reason, Actor: c.Actor, At: m.o.Now}
		m.event(delivery.EventPinSet, nil, c.Actor, fmt.Sprintf("Pinned to release %s: %s", c.Version, orElse(c.Reason, "no reason was given.")), nil)
	case delivery.CommandUnpin:
		m.p.Pin = nil
		m.event(delivery.EventPinLifted, nil, c.Actor, "The pin was lifted.", nil)
	case delivery.CommandHold:
		m.p.Hold = &delivery.Hold{Reason: c.Reason, Actor: c.Actor, At: m.o.Now, Until: c.Until}
		m.wake(c.Until)
		m.event(delivery.EventHoldSet, nil, c.Actor, "Held: "+orElse(c.Reason, "no reason was given."), nil)
	case delivery.CommandUnhold:
		m.p.Hold = nil
		m.event(delivery.EventHoldLifted, nil, c.Actor, "The hold was lifted.", nil)
	}
	m.t.Again = m.t.Again || len(m.p.Queue) > 0 // the gates were evaluated before
}

func (m *machine) quarantineCommand(c delivery.Command) {
	if c.Kind == delivery.CommandQuarantine {
		m.quarantine(delivery.Quarantine{Release: c.Release, Version: c.Version, Reason: orElse(c.Reason, "no reason was given"), Actor: c.Actor, At: m.o.Now})
	} else {
		m.p.Quarantine = slices.DeleteFunc(m.p.Quarantine, func(q delivery.Quarantine) bool { return q.Release == c.Release })
		m.event(delivery.EventQuarantineLifted, nil, c.Actor, fmt.Sprintf("The quarantine of release %s was lifted.", c.Version), nil)
	}
	m.t.Again = m.t.Again || len(m.p.Queue) > 0
}

// quarantine refuses a plan, or a whole release, here from now on.
func (m *machine) quarantine(q delivery.Quarantine) {
	for _, old := range m.p.Quarantine {
		if old.Plan == q.Plan && old.Release == q.Release {
			return
		}
	}
	m.p.Quarantine = append(m.p.Quarantine, q)
	what := "Release " + q.Version
	if q.Plan != "" {
		what = fmt.Sprintf("Plan %s of release %s", q.Plan.Short(), q.Version)
	}
	m.event(delivery.EventQuarantineSet, nil, q.Actor, fmt.Sprintf("%s is quarantined here: %s", what, q.Reason), q)
}

// orElse returns s, or otherwise where s is empty.
func orElse[S ~string](s, otherwise S) S {
	if s == "" {
		return otherwise
	}
	return s
}
