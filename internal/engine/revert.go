package engine

import (
	"fmt"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// startRevert turns a deployment round. Harm quarantines its plan at once, so
// that no environment after this one takes the release meanwhile. Behind a
// barrier only a person may turn round.
func (m *machine) startRevert(d *delivery.Deployment, ending delivery.Phase, actor delivery.Actor, reason string) {
	if d.Harm && d.Kind == delivery.KindPromotion {
		m.quarantine(delivery.Quarantine{
			Plan: d.Plan, Release: d.Release, Version: d.Version, Deployment: d.ID,
			Reason: reason, Actor: delivery.System(), At: m.o.Now,
		})
	}
	byPerson := d.EndedBy != nil
	plan := m.plan(d.Plan)
	d.Ending = ending
	if name := barrier(plan, d); name != "" && !byPerson {
		m.setPhase(d, delivery.PhaseNeedsPerson, actor, fmt.Sprintf("%s Nothing rolls back by itself past the barrier %s: retry, or abort to go back all the same.", reason, name))
		return
	}
	if ending == delivery.PhaseRolledBack && d.From == nil {
		d.Ending = delivery.PhaseFailed
	}
	wave := plan != nil && plan.OnFailure == delivery.OnFailureWave && ending == delivery.PhaseRolledBack
	for i := range d.Steps {
		s := &d.Steps[i]
		if s.Phase == delivery.StepPending || wave && !inWave(plan, d.Wave, s.Name) {
			continue
		}
		if s.Unchanged && s.Phase == delivery.StepDone && (s.Before == nil || m.p.Running[s.Name] == *s.Before) {
			continue
		}
		s.Phase = delivery.StepReverting
		s.Sent, s.Pending, s.Tries, s.MoveSince = "", nil, 0, m.o.Now
	}
	m.setPhase(d, delivery.PhaseReverting, actor, reason)
}

// barrier returns the name of a step that is done, or under way, behind which
// nothing rolls back by itself.
func barrier(plan *delivery.Plan, d *delivery.Deployment) string {
	if plan == nil {
		return ""
	}
	for i := range d.Steps {
		s := &d.Steps[i]
		step, ok := plan.Step(s.Name)
		begun := s.Phase == delivery.StepDone || s.Phase == delivery.StepRunning && s.Sent != "" || s.Phase == delivery.StepFailed
		if ok && begun && step.OnRollback().Barrier {
			return s.Name
		}
	}
	return ""
}

func barred(plan *delivery.Plan, d *delivery.Deployment) bool { return barrier(plan, d) != "" }

func inWave(plan *delivery.Plan, wave int, name string) bool {
	if wave >= len(plan.Waves) {
		wave = len(plan.Waves) - 1
	}
	for _, s := range plan.Waves[wave].Steps {
		if s.Name == name {
			return true
		}
	}
	return false
}

// revert takes the steps back: first all traffic, then the undo tasks from the
// last to the first, then the candidates are stopped.
func (m *machine) revert(d *delivery.Deployment) {
	plan := m.plan(d.Plan)
	if plan == nil {
		m.missing(d)
		return
	}
	back := true
	for i := range d.Steps {
		s := &d.Steps[i]
		if step, _ := plan.Step(s.Name); s.Phase == delivery.StepReverting && step.Rollout != nil {
			back = m.trafficBack(d, step.Rollout, s) && back
		}
		if s.Phase == delivery.StepFailed {
			m.setPhase(d, delivery.PhaseNeedsPerson, delivery.System(), fmt.Sprintf("%s could not be taken back: %s", s.Name, s.Message))
			return
		}
	}
	if !back || !m.undo(d, plan) || d.Phase != delivery.PhaseReverting {
		return
	}
	stopped := true
	for i := range d.Steps {
		s := &d.Steps[i]
		if step, _ := plan.Step(s.Name); s.Phase == delivery.StepReverting && step.Rollout != nil {
			stopped = m.candidateStopped(d, step.Rollout, s) && stopped
		}
	}
	if stopped {
		m.reverted(d)
	}
}

// trafficBack gives all traffic to what ran before and reports whether it has
// it, with all its instances.
func (m *machine) trafficBack(d *delivery.Deployment, r *delivery.Rollout, s *delivery.StepState) bool {
	if s.Before == nil {
		return true
	}
	former := m.formerRollout(s)
	if former == nil {
		s.Phase, s.Message = delivery.StepFailed, "the plan that ran before is not known any more."
		return false
	}
	status := (*delivery.ServiceStatus)(nil)
	if report, ok := m.o.Reports[r.Target]; ok {
		status = report.Service(m.p.Key, r.Service)
	}
	ready, wanted := 0, 0
	if w := status.Workload(s.Before.Workload); w != nil {
		ready, wanted = w.Ready, w.Wanted
	}
	// The shift does not wait for the full number: one ready instance of a
	// version that is known to be good beats the candidate.
	if ready > 0 && s.Before.Workload != r.Digest {
		percent, _ := status.Percent(s.Before.Workload)
		if percent == 100 && len(s.Pending) == 0 && s.Weight != 0 {
			s.Weight = 0
			m.event(delivery.EventStepWeight, d, delivery.System(), fmt.Sprintf("%s: all traffic of %s is back on the former version.", s.Name, r.Service), map[string]int{"weight": 0})
		}
		if percent != 100 {
			m.askAgain(s, "back", m.report(r.Target, s) != nil)
			m.askShift(d, s, "back", r, weights(r.Digest, s.Before, 0))
			m.lookAgain(s, "traffic goes back to the former version")
			return false
		}
		if ready >= s.Before.Instances {
			return true
		}
	}
	if s.Before.Workload == r.Digest {
		return true // only the number of instances had changed; see candidateStopped
	}
	if wanted < s.Before.Instances {
		m.askStart(d, s, "start former", former, m.formerRelease(s), m.formerVersion(s), s.Before.Instances)
	}
	m.lookAgain(s, fmt.Sprintf("%d of %d of the former version ready", ready, s.Before.Instances))
	return false
}

// askAgain forgets that something was asked for when the target answered and
// yet does not show it: an effect that had been under way undid it.
func (m *machine) askAgain(s *delivery.StepState, what string, answered bool) {
	if s.Sent == what && answered && m.o.Now.Sub(s.AckAt) > 2*lookAgain {
		s.Sent = ""
	}
}

func (m *machine) formerRollout(s *delivery.StepState) *delivery.Rollout {
	plan := m.plan(s.Before.Plan)
	if plan == nil {
		return nil
	}
	step, ok := plan.Step(s.Name)
	if !ok {
		return nil
	}
	return step.Rollout
}

func (m *machine) formerRelease(s *delivery.StepState) delivery.Digest {
	return m.plan(s.Before.Plan).Release
}
func (m *machine) formerVersion(s *delivery.StepState) string { return m.plan(s.Before.Plan).Version }

// undo runs the undo tasks of steps that were done, from the last to the
// first, one at a time, and reports whether none is left.
func (m *machine) undo(d *delivery.Deployment, plan *delivery.Plan) bool {
	for i := len(d.Steps) - 1; i >= 0; i-- {
		s := &d.Steps[i]
		step, _ := plan.Step(s.Name)
		if s.Phase != delivery.StepReverting || step.Task == nil {
			continue
		}
		u := step.OnRollback().Undo
		if u == nil {
			s.Phase = delivery.StepReverted
			continue
		}
		if s.Sent == "" {
			s.MoveSince = m.o.Now
		}
		done, failure := m.work(d, plan, delivery.Step{Name: s.Name, Task: u, Target: step.Target}, s, "undo")
		switch {
		case failure != "":
			s.Phase, s.Message = delivery.StepFailed, failure
			m.setPhase(d, delivery.PhaseNeedsPerson, delivery.System(), fmt.Sprintf("%s could not be undone: %s", s.Name, failure))
			return false
		case !done:
			return false
		}
		s.Phase = delivery.StepReverted
		m.event(delivery.EventStepReverted, d, delivery.System(), s.Name+" was undone.", nil)
	}
	return true
}

// candidateStopped stops what the deployment started.
func (m *machine) candidateStopped(d *delivery.Deployment, r *delivery.Rollout, s *delivery.StepState) bool {
	candidate := &delivery.Running{Workload: r.Digest}
	keep := 0
	if s.Before != nil && s.Before.Workload == r.Digest {
		keep = s.Before.Instances
	}
	if !m.retired(d, s, r.Service, r.Target, candidate, keep) {
		return false
	}
	s.Phase, s.Message = delivery.StepReverted, ""
	m.event(delivery.EventStepReverted, d, delivery.System(), s.Name+" is back on what ran before.", nil)
	if now, ok := m.p.Running[s.Name]; ok && now.Plan == d.Plan {
		m.runsFormer(r, s)
	}
	return true
}

// runsFormer records that what ran before has the traffic again.
func (m *machine) runsFormer(r *delivery.Rollout, s *delivery.StepState) {
	e := delivery.InventoryEntry{Key: m.p.Key, Target: r.Target, Service: r.Service, Since: m.o.Now}
	if s.Before == nil {
		delete(m.p.Running, s.Name)
		m.t.Inventory = append(m.t.Inventory, e)
		return
	}
	m.p.Running[s.Name] = *s.Before
	plan, former := m.plan(s.Before.Plan), m.formerRollout(s)
	e.Release, e.Version, e.Workload, e.Plan = plan.Release, plan.Version, s.Before.Workload, s.Before.Plan
	e.Artifact = former.Workload.Artifact.Digest
	m.t.Inventory = append(m.t.Inventory, e)
}

// reverted ends the deployment in the phase it turned round for.
func (m *machine) reverted(d *delivery.Deployment) {
	actor := delivery.System()
	if d.EndedBy != nil {
		actor = *d.EndedBy
	}
	m.setPhase(d, d.Ending, actor, d.Message)
}
