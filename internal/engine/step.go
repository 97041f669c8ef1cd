package engine

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// lookAgain is how long the engine waits for a report before it looks by
// itself. Reports wake a placement earlier.
const lookAgain = time.Second

// Step decides what a placement does next.
//
// It consumes every command and every result of the observation, moves the
// active deployment on as far as the reports allow, and starts the first
// queued one when every gate passes. The caller must commit the new state,
// the turn and the consumption of commands and results as one change.
func Step(p delivery.Placement, o Observation) (delivery.Placement, Turn) {
	next := clonePlacement(p)
	m := &machine{p: &next, o: o}
	m.p.Format = delivery.PlacementFormat
	m.p.Sequence++
	m.expireHold()
	for _, c := range o.Commands {
		m.command(c)
	}
	for _, r := range o.Results {
		m.result(r)
	}
	if m.p.Active != nil {
		m.advance(m.p.Active)
	}
	if m.p.Active == nil && len(m.p.Queue) > 0 {
		m.admit(m.p.Queue[0])
	} else if len(m.p.Queue) > 0 {
		m.waitBehind(m.p.Queue[0])
	}
	return next, m.t
}

// machine is one turn under way.
type machine struct {
	p *delivery.Placement
	o Observation
	t Turn
}

// advance moves the active deployment on until it needs something new.
func (m *machine) advance(d *delivery.Deployment) {
	// Each round ends or changes a phase or a move; a plan has finitely many.
	for range 1000 {
		phase := d.Phase
		switch d.Phase {
		case delivery.PhaseRunning:
			m.run(d)
		case delivery.PhaseBaking:
			m.bake(d)
		case delivery.PhaseRetiring:
			m.retire(d)
		case delivery.PhaseReverting:
			m.revert(d)
		case delivery.PhaseNeedsPerson:
			return
		}
		if d.Phase == phase {
			return
		}
		if d.Phase.Terminal() {
			m.finish(d)
			return
		}
	}
}

// setPhase changes a deployment's phase and records it.
func (m *machine) setPhase(d *delivery.Deployment, to delivery.Phase, actor delivery.Actor, message string) {
	if !allowed(d.Phase, to) {
		panic(fmt.Sprintf("engine: no transition from %q to %q", d.Phase, to))
	}
	d.Phase, d.PhaseSince, d.Message = to, m.o.Now, message
	if to.Terminal() {
		d.FinishedAt = m.o.Now
	}
	if e, ok := phaseEvents[to]; ok {
		m.event(e, d, actor, message, nil)
	}
}

var phaseEvents = map[delivery.Phase]delivery.EventType{
	delivery.PhaseRunning:     delivery.EventDeploymentStarted,
	delivery.PhaseBaking:      delivery.EventDeploymentBaking,
	delivery.PhaseReverting:   delivery.EventDeploymentReverting,
	delivery.PhaseNeedsPerson: delivery.EventDeploymentStuck,
	delivery.PhaseSucceeded:   delivery.EventDeploymentSucceeded,
	delivery.PhaseRolledBack:  delivery.EventDeploymentRolledBack,
	delivery.PhaseAborted:     delivery.EventDeploymentAborted,
	delivery.PhaseFailed:      delivery.EventDeploymentFailed,
	delivery.PhaseDenied:      delivery.EventDeploymentDenied,
	delivery.PhaseSuperseded:  delivery.EventDeploymentSuperseded,
}

// finish takes a deployment that ended out of the state.
func (m *machine) finish(d *delivery.Deployment) {
	m.t.Finished = append(m.t.Finished, *d)
	if m.p.Active == d {
		m.p.Active = nil
		m.t.Again = m.t.Again || len(m.p.Queue) > 0
		return
	}
	m.p.Queue = slices.DeleteFunc(m.p.Queue, func(q *delivery.Deployment) bool { return q == d })
	m.t.Again = m.t.Again || len(m.p.Queue) > 0
}

// event records what happened. Data is marshalled as it is.
func (m *machine) event(t delivery.EventType, d *delivery.Deployment, actor delivery.Actor, message string, data any) {
	e := delivery.Event{
		Type: t, Project: m.p.Key.Project, Application: m.p.Key.Application, Environment: m.p.Key.Environment,
		Actor: actor, At: m.o.Now, Message: message,
	}
	if d != nil {
		e.Deployment, e.Release, e.Version = d.ID, d.Release, d.Version
	}
	if data != nil {
		b, err := json.Marshal(data)
		if err != nil {
			panic(fmt.Sprintf("engine: event data of %s: %v", t, err)) // only our own plain structs come here
		}
		e.Data = b
	}
	m.t.Events = append(m.t.Events, e)
}

// wake asks for a turn at that time at the latest.
func (m *machine) wake(at time.Time) {
	if at.IsZero() {
		return
	}
	if m.t.Wake.IsZero() || at.Before(m.t.Wake) {
		m.t.Wake = at
	}
}

// plan returns a plan by digest, nil if the observation has none.
func (m *machine) plan(d delivery.Digest) *delivery.Plan { return m.o.Plans[d] }

// report returns the report of a target that shows what came of everything
// that the step asked for, nil if none does yet.
func (m *machine) report(target string, s *delivery.StepState) *delivery.Report {
	r, ok := m.o.Reports[target]
	if !ok || len(s.Pending) > 0 || r.At.Before(s.AckAt) {
		return nil
	}
	return &r
}

// expireHold lifts a hold whose time has come.
func (m *machine) expireHold() {
	h := m.p.Hold
	if h == nil || h.Until.IsZero() {
		return
	}
	if m.o.Now.Before(h.Until) {
		m.wake(h.Until)
		return
	}
	m.p.Hold = nil
	m.event(delivery.EventHoldLifted, nil, delivery.System(), "The hold ended at its time.", nil)
}
