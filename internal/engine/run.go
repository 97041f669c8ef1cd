package engine

import (
	"fmt"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// waitAgain is how often a waiting deployment's facts are read again though
// nothing woke it.
const waitAgain = time.Minute

// maxTries is how often an effect that failed and may be retried is tried.
const maxTries = 8

// run moves every step of the current wave on, and the deployment to its next
// wave, its bake or back.
func (m *machine) run(d *delivery.Deployment) {
	plan := m.plan(d.Plan)
	if plan == nil {
		m.missing(d)
		return
	}
	for i := range d.Wave {
		for _, step := range plan.Waves[i].Steps {
			if m.moveStep(d, plan, step, d.Step(step.Name)); d.Phase != delivery.PhaseRunning {
				return
			}
		}
	}
	for d.Wave < len(plan.Waves) {
		done := true
		for _, step := range plan.Waves[d.Wave].Steps {
			s := d.Step(step.Name)
			m.moveStep(d, plan, step, s)
			if d.Phase != delivery.PhaseRunning {
				return
			}
			if s.Phase == delivery.StepFailed {
				d.Harm = true
				m.startRevert(d, delivery.PhaseRolledBack, delivery.System(), s.Message)
				return
			}
			done = done && s.Phase == delivery.StepDone
		}
		if !done {
			return
		}
		d.Wave++
	}
	m.full(d, plan)
}

// full is the moment at which every wave is done.
func (m *machine) full(d *delivery.Deployment, plan *delivery.Plan) {
	changed := false
	for _, s := range d.Steps {
		changed = changed || !s.Unchanged
	}
	if plan.Bake > 0 && d.From != nil && changed && d.Kind == delivery.KindPromotion {
		d.BakeUntil = m.o.Now.Add(plan.Bake.Std())
		m.setPhase(d, delivery.PhaseBaking, delivery.System(), fmt.Sprintf("Release %s has all the traffic and bakes for %s.", d.Version, plan.Bake))
		return
	}
	m.startRetire(d, m.o.Now)
}

// moveStep moves one step on.
func (m *machine) moveStep(d *delivery.Deployment, plan *delivery.Plan, step delivery.Step, s *delivery.StepState) {
	if s.Phase == delivery.StepPending {
		if d.Paused != nil {
			return
		}
		m.beginStep(d, step, s)
	}
	if s.Phase != delivery.StepRunning {
		if s.Phase == delivery.StepDone && step.Rollout != nil && !s.Unchanged {
			m.watch(d, plan, step, s)
		}
		return
	}
	if step.Task != nil {
		m.task(d, plan, step, s)
		return
	}
	m.rollout(d, plan, step, s)
}

// beginStep starts a step; one that would change nothing is done at once.
func (m *machine) beginStep(d *delivery.Deployment, step delivery.Step, s *delivery.StepState) {
	s.Phase, s.MoveSince = delivery.StepRunning, m.o.Now
	if r := step.Rollout; r != nil {
		if now, ok := m.p.Running[step.Name]; ok {
			s.Before = &now
			s.Unchanged = now.Workload == r.Digest
			if s.Unchanged && now.Instances == r.Instances && now.Listen == r.Listen {
				s.Phase, s.Message = delivery.StepDone, "unchanged"
				m.event(delivery.EventStepDone, d, delivery.System(), step.Name+" is unchanged.", nil)
				return
			}
		}
	}
	m.event(delivery.EventStepStarted, d, delivery.System(), step.Name+" begins.", nil)
}

// ask emits an effect unless the step has asked for the same already.
func (m *machine) ask(d *delivery.Deployment, s *delivery.StepState, what string, e delivery.Effect) {
	if s.Sent == what || m.o.Now.Before(s.RetryAt) {
		if s.Sent != what {
			m.wake(s.RetryAt)
		}
		return
	}
	d.Sequence++
	e.Key = delivery.EffectKey{Deployment: d.ID, Sequence: d.Sequence}
	e.Placement, e.Step = m.p.Key, s.Name
	m.t.Effects = append(m.t.Effects, e)
	s.Sent, s.Pending, s.Effect = what, append(s.Pending, d.Sequence), d.Sequence
}

// result takes what came of an effect.
func (m *machine) result(r delivery.Result) {
	d := m.p.Active
	if d == nil || d.ID != r.Key.Deployment {
		return // of a deployment that ended meanwhile
	}
	for i := range d.Steps {
		s := &d.Steps[i]
		at := -1
		for j, seq := range s.Pending {
			if seq == r.Key.Sequence {
				at = j
			}
		}
		if at < 0 {
			continue
		}
		s.Pending = append(s.Pending[:at:at], s.Pending[at+1:]...)
		if r.At.After(s.AckAt) {
			s.AckAt = r.At
		}
		if !r.OK {
			m.failedEffect(d, s, r)
		} else if s.Effect == r.Key.Sequence {
			s.Message = r.Message
		}
		return
	}
}

// failedEffect asks again later, or gives the step up.
func (m *machine) failedEffect(d *delivery.Deployment, s *delivery.StepState, r delivery.Result) {
	s.Tries++
	s.Message = r.Message
	if r.Retry && (s.Tries < maxTries || s.Phase == delivery.StepReverting) {
		s.RetryAt = m.o.Now.Add(min(time.Second<<min(s.Tries-1, 10), 30*time.Second))
		s.Sent = ""
		m.wake(s.RetryAt)
		return
	}
	if s.Phase == delivery.StepRunning || s.Phase == delivery.StepReverting {
		m.stepFailed(d, s, fmt.Sprintf("%s failed: %s", s.Name, r.Message))
	}
}

// missing waits for a plan that the observation should have had.
func (m *machine) missing(d *delivery.Deployment) {
	d.Message = "The plan could not be read; it is tried again."
	m.wake(m.o.Now.Add(lookAgain))
}

// toMove goes to a move of the rollout.
func (m *machine) toMove(s *delivery.StepState, move int) {
	s.Move, s.MoveSince, s.Sent, s.Tries, s.Resumed = move, m.o.Now, "", 0, false
}

// stepDone records that a step is done.
func (m *machine) stepDone(d *delivery.Deployment, s *delivery.StepState, message string) {
	s.Phase, s.Message = delivery.StepDone, message
	m.event(delivery.EventStepDone, d, delivery.System(), fmt.Sprintf("%s is done.", s.Name), nil)
}

// stepFailed records that a step cannot be done.
func (m *machine) stepFailed(d *delivery.Deployment, s *delivery.StepState, message string) {
	s.Phase, s.Message = delivery.StepFailed, message
	m.event(delivery.EventStepFailed, d, delivery.System(), message, nil)
}
