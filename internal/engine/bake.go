package engine

import (
	"fmt"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// bake keeps the former version ready while the new one has all the traffic.
func (m *machine) bake(d *delivery.Deployment) {
	plan := m.plan(d.Plan)
	if plan == nil {
		m.missing(d)
		return
	}
	for _, w := range plan.Waves {
		for _, step := range w.Steps {
			s := d.Step(step.Name)
			if step.Rollout == nil || s.Unchanged {
				continue
			}
			if m.watch(d, plan, step, s); d.Phase != delivery.PhaseBaking {
				return
			}
		}
	}
	if d.Paused != nil {
		return
	}
	if m.o.Now.Before(d.BakeUntil) {
		m.wake(d.BakeUntil)
		m.wake(m.o.Now.Add(lookAgain))
		return
	}
	m.startRetire(d, d.PhaseSince)
}

// startRetire makes the plan the stable one: from here on a return is a new
// deployment, and the former version may be stopped.
func (m *machine) startRetire(d *delivery.Deployment, since time.Time) {
	if m.p.Stable != nil && m.p.Stable.Plan != d.Plan {
		earlier := []delivery.Good{*m.p.Stable}
		for _, g := range m.p.Earlier {
			if g.Plan != d.Plan && g.Plan != m.p.Stable.Plan && len(earlier) < delivery.HorizonDefault {
				earlier = append(earlier, g)
			}
		}
		m.p.Earlier = earlier
	}
	if m.p.Stable == nil || m.p.Stable.Plan != d.Plan {
		m.p.Stable = &delivery.Good{Plan: d.Plan, Release: d.Release, Version: d.Version, Deployment: d.ID, Since: since}
	}
	for i := range d.Steps {
		d.Steps[i].Sent, d.Steps[i].Tries = "", 0
	}
	m.setPhase(d, delivery.PhaseRetiring, delivery.System(), fmt.Sprintf("Release %s is good; the former version is stopped.", d.Version))
}

// retire stops what the deployment replaced, and the services that the new
// plan has no more.
func (m *machine) retire(d *delivery.Deployment) {
	plan := m.plan(d.Plan)
	if plan == nil {
		m.missing(d)
		return
	}
	gone := true
	for i := range d.Steps {
		s := &d.Steps[i]
		step, _ := plan.Step(s.Name)
		if r := step.Rollout; r != nil && s.Before != nil && s.Before.Workload != r.Digest {
			gone = m.retired(d, s, r.Service, r.Target, s.Before, 0) && gone
		}
	}
	for name, running := range m.p.Running {
		if _, ok := plan.Step(name); ok {
			continue
		}
		gone = m.retireRemoved(d, name, running) && gone
	}
	if gone {
		m.succeed(d)
	}
}

// retireRemoved stops a service or a target that the new plan does not have.
func (m *machine) retireRemoved(d *delivery.Deployment, name string, running delivery.Running) bool {
	former := m.plan(running.Plan)
	if former == nil {
		return true
	}
	step, ok := former.Step(name)
	if !ok || step.Rollout == nil {
		return true
	}
	s := d.Step(name)
	if s == nil {
		d.Steps = append(d.Steps, delivery.StepState{Name: name, Phase: delivery.StepDone, Before: &running, MoveSince: m.o.Now})
		s = &d.Steps[len(d.Steps)-1]
	}
	if !m.retired(d, s, step.Rollout.Service, step.Rollout.Target, &running, 0) {
		return false
	}
	delete(m.p.Running, name)
	m.t.Inventory = append(m.t.Inventory, delivery.InventoryEntry{Key: m.p.Key, Target: step.Rollout.Target, Service: step.Rollout.Service, Since: m.o.Now})
	return true
}

// succeed ends the deployment and hands the release on over the automatic
// edges of the path. A rollback hands nothing on.
func (m *machine) succeed(d *delivery.Deployment) {
	m.setPhase(d, delivery.PhaseSucceeded, delivery.System(), fmt.Sprintf("Release %s is what runs in %s.", d.Version, m.p.Key.Environment))
	if d.Kind != delivery.KindPromotion {
		return
	}
	for _, next := range m.o.Next {
		if next.Promotion != delivery.PromotionAutomatic {
			continue
		}
		key := m.p.Key
		key.Environment = next.Environment
		m.t.Commands = append(m.t.Commands, delivery.Command{
			Kind: delivery.CommandPromote, Key: key, Release: d.Release, Version: d.Version,
			Reason: fmt.Sprintf("it succeeded in %s", m.p.Key.Environment), Actor: delivery.System(), At: m.o.Now,
		})
	}
}
