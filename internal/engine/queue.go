package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// admit starts the first queued deployment when every gate passes, ends it
// when one denies, and otherwise records what it waits for.
func (m *machine) admit(d *delivery.Deployment) {
	q := m.o.Queued
	if q == nil || q.Deployment != d.ID || m.t.Again {
		// The facts are of another deployment, or of before this turn's commands.
		m.t.Again = true
		return
	}
	if q.Error != "" {
		m.deny(d, q.Error)
		return
	}
	m.bindPlan(d, q)
	changed := unmet(d.Verdicts) != unmet(q.Verdicts)
	d.Verdicts = q.Verdicts
	switch delivery.Combine(q.Verdicts) {
	case delivery.OutcomePass:
		m.start(d)
	case delivery.OutcomeDeny:
		m.deny(d, reasons(q.Verdicts, delivery.OutcomeDeny))
	default:
		d.Message = reasons(q.Verdicts, delivery.OutcomeWait, delivery.OutcomeUnknown)
		if changed {
			m.event(delivery.EventDeploymentWaiting, d, delivery.System(), d.Message, delivery.Blocking(q.Verdicts))
		}
		for _, v := range q.Verdicts {
			if v.Outcome == delivery.OutcomeWait {
				m.wake(v.Earliest)
			}
		}
		m.wake(m.o.Now.Add(waitAgain)) // facts outside Tidegate change without telling
	}
}

// waitBehind keeps the verdicts of a deployment that waits behind the active one current.
func (m *machine) waitBehind(d *delivery.Deployment) {
	q := m.o.Queued
	if q == nil || q.Deployment != d.ID || q.Error != "" {
		return
	}
	m.bindPlan(d, q)
	d.Verdicts = q.Verdicts
	d.Message = reasons(q.Verdicts, delivery.OutcomeDeny, delivery.OutcomeWait, delivery.OutcomeUnknown)
}

// bindPlan gives a waiting deployment the plan that would run now.
func (m *machine) bindPlan(d *delivery.Deployment, q *Queued) {
	if q.PlanDigest == "" || q.PlanDigest == d.Plan {
		return
	}
	message := fmt.Sprintf("The plan is %s.", q.PlanDigest.Short())
	if d.Plan != "" {
		message = fmt.Sprintf("The plan is now %s; approvals of %s are void.", q.PlanDigest.Short(), d.Plan.Short())
	}
	d.Plan = q.PlanDigest
	m.event(delivery.EventDeploymentPlanned, d, delivery.System(), message, map[string]delivery.Digest{"plan": d.Plan})
}

func (m *machine) deny(d *delivery.Deployment, why string) {
	m.setPhase(d, delivery.PhaseDenied, delivery.System(), why)
	m.finish(d)
}

// start makes a queued deployment the active one and begins its first wave.
func (m *machine) start(d *delivery.Deployment) {
	plan := m.plan(d.Plan)
	if plan == nil && m.o.Queued != nil && m.o.Queued.Plan != nil {
		plan = m.o.Queued.Plan
		if m.o.Plans == nil {
			m.o.Plans = map[delivery.Digest]*delivery.Plan{}
		}
		m.o.Plans[d.Plan] = plan
	}
	if plan == nil {
		m.missing(d)
		return
	}
	m.p.Queue = slices.DeleteFunc(m.p.Queue, func(q *delivery.Deployment) bool { return q == d })
	m.p.Active = d
	if m.p.Stable != nil {
		from := *m.p.Stable
		d.From = &from
	}
	d.StartedAt, d.Wave = m.o.Now, 0
	for _, w := range plan.Waves {
		for _, s := range w.Steps {
			d.Steps = append(d.Steps, delivery.StepState{Name: s.Name, Phase: delivery.StepPending})
		}
	}
	m.setPhase(d, delivery.PhaseRunning, d.RequestedBy, fmt.Sprintf("Release %s starts in %s.", d.Version, m.p.Key.Environment))
	m.advance(d)
}

// unmet names the gates that do not pass, to notice when the set changes.
func unmet(verdicts []delivery.Verdict) string {
	var names []string
	for _, v := range delivery.Blocking(verdicts) {
		names = append(names, string(v.Gate)+"="+string(v.Outcome)+"="+v.Rule)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// reasons joins the reasons of the verdicts with one of the outcomes.
func reasons(verdicts []delivery.Verdict, outcomes ...delivery.Outcome) string {
	var all []string
	for _, v := range verdicts {
		if slices.Contains(outcomes, v.Outcome) {
			all = append(all, v.Reason)
		}
	}
	return strings.Join(all, " ")
}
