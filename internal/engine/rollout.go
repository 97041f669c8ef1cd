package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/tidegate-cd/tidegate/internal/analysis"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// fresh is how old a report may be to blame the candidate for what it lacks.
const fresh = 30 * time.Second

// rollout moves a rollout through its moves. It returns when the current move
// waits for something.
func (m *machine) rollout(d *delivery.Deployment, plan *delivery.Plan, step delivery.Step, s *delivery.StepState) {
	r := step.Rollout
	if m.watch(d, plan, step, s); d.Phase != delivery.PhaseRunning || s.Phase != delivery.StepRunning {
		return
	}
	if s.Unchanged {
		m.rescale(d, r, s)
		return
	}
	for s.Move < len(r.Moves) {
		move := r.Moves[s.Move]
		if skipped(d, r, move, s) || m.moved(d, r, move, s) {
			m.toMove(s, s.Move+1)
			continue
		}
		if s.Phase == delivery.StepRunning && s.Message == "" {
			s.Message = string(move.Kind)
		}
		return
	}
	m.runs(d, r, s)
	m.stepDone(d, s, "")
}

// skipped reports whether a move has no sense: without a stable version there
// is nothing to share traffic with or to compare with, so only readiness
// counts; and a rollback goes to a version that is known to be good, at once.
func skipped(d *delivery.Deployment, r *delivery.Rollout, move delivery.Move, s *delivery.StepState) bool {
	if d.Kind == delivery.KindRollback {
		return move.Kind == delivery.MoveAnalyse || move.Kind == delivery.MovePause || move.Kind == delivery.MoveApprove ||
			move.Kind == delivery.MoveShift && move.Weight < 100 && r.Strategy == delivery.StrategyCanary
	}
	if s.Before != nil {
		return false
	}
	switch move.Kind {
	case delivery.MoveShift:
		return move.Weight < 100
	case delivery.MoveAnalyse, delivery.MoveRetire:
		return true
	case delivery.MovePause, delivery.MoveApprove:
		return r.Strategy == delivery.StrategyCanary
	}
	return false
}

// moved does a move and reports whether what it says is true now.
func (m *machine) moved(d *delivery.Deployment, r *delivery.Rollout, move delivery.Move, s *delivery.StepState) bool {
	switch move.Kind {
	case delivery.MoveStart:
		return m.started(d, r, move, s)
	case delivery.MoveShift:
		return m.shifted(d, r, move, s)
	case delivery.MoveAnalyse:
		return m.analysed(d, r, move, s)
	case delivery.MovePause:
		return m.paused(d, move, s)
	case delivery.MoveApprove:
		return m.approved(d, move, s)
	case delivery.MoveRetire:
		return m.retired(d, s, r.Service, r.Target, s.Before, move.Instances)
	}
	m.stepFailed(d, s, fmt.Sprintf("%s has a move %q that this server does not know.", s.Name, move.Kind))
	return false
}

func (m *machine) started(d *delivery.Deployment, r *delivery.Rollout, move delivery.Move, s *delivery.StepState) bool {
	if d.Paused != nil && s.Sent == "" {
		return false
	}
	m.askStart(d, s, fmt.Sprintf("start %d", move.Instances), r, d.Release, d.Version, move.Instances)
	report := m.report(r.Target, s)
	if report == nil {
		m.lookAgain(s, fmt.Sprintf("waiting for target %s", r.Target))
		return false
	}
	w := report.Service(m.p.Key, r.Service).Workload(r.Digest)
	if w != nil && w.Ready >= move.Instances {
		return true
	}
	ready, why := 0, ""
	if w != nil {
		ready, why = w.Ready, w.Message
	}
	m.lookAgain(s, fmt.Sprintf("%d of %d ready", ready, move.Instances))
	due := s.MoveSince.Add(r.Deadline.Std())
	if m.o.Now.Before(due) {
		m.wake(due)
	} else if m.o.Now.Sub(report.At) <= fresh {
		m.stepFailed(d, s, fmt.Sprintf("%s did not get ready within %s: %d of %d ready. %s", s.Name, r.Deadline, ready, move.Instances, why))
	}
	return false
}

func (m *machine) askStart(d *delivery.Deployment, s *delivery.StepState, what string, r *delivery.Rollout, release delivery.Digest, version string, instances int) {
	m.ask(d, s, what, delivery.Effect{Target: r.Target, Start: &delivery.StartEffect{
		Service: r.Service, Listen: r.Listen, Release: release, Version: version,
		Digest: r.Digest, Workload: r.Workload, Instances: instances,
	}})
}

func (m *machine) shifted(d *delivery.Deployment, r *delivery.Rollout, move delivery.Move, s *delivery.StepState) bool {
	raise := move.Weight > s.Weight
	if raise && d.Paused != nil && s.Sent == "" {
		s.Message = "paused: " + d.Paused.Reason
		return false
	}
	what := fmt.Sprintf("shift %d", move.Weight)
	m.askShift(d, s, what, r, weights(r.Digest, s.Before, move.Weight))
	report := m.report(r.Target, s)
	if report == nil {
		m.lookAgain(s, fmt.Sprintf("waiting for target %s to shift to %d %%", r.Target, move.Weight))
		return false
	}
	if percent, ok := report.Service(m.p.Key, r.Service).Percent(r.Digest); !ok || percent != move.Weight {
		m.lookAgain(s, fmt.Sprintf("waiting for the router to give %d %%", move.Weight))
		return false
	}
	m.weight(d, r, s, move.Weight)
	return true
}

// weight records the share that the router confirmed.
func (m *machine) weight(d *delivery.Deployment, r *delivery.Rollout, s *delivery.StepState, percent int) {
	s.Weight = percent
	d.MaxWeight = max(d.MaxWeight, percent)
	if s.FirstShift.IsZero() {
		s.FirstShift = m.o.Now
	}
	m.event(delivery.EventStepWeight, d, delivery.System(), fmt.Sprintf("%s: %d %% of %s goes to release %s.", s.Name, percent, r.Service, d.Version), map[string]int{"weight": percent})
}

func (m *machine) askShift(d *delivery.Deployment, s *delivery.StepState, what string, r *delivery.Rollout, w []delivery.Weight) {
	m.ask(d, s, what, delivery.Effect{Target: r.Target, Shift: &delivery.ShiftEffect{Service: r.Service, Weights: w}})
}

// weights gives the candidate its share and what ran before the rest.
func weights(candidate delivery.Digest, before *delivery.Running, percent int) []delivery.Weight {
	if before == nil || before.Workload == candidate {
		return []delivery.Weight{{Workload: candidate, Percent: 100}}
	}
	return []delivery.Weight{{Workload: candidate, Percent: percent}, {Workload: before.Workload, Percent: 100 - percent}}
}

// analysed reports whether the judge has seen enough to go on.
func (m *machine) analysed(d *delivery.Deployment, r *delivery.Rollout, move delivery.Move, s *delivery.StepState) bool {
	m.wake(m.o.Now.Add(lookAgain))
	if d.Paused != nil {
		s.Message = "paused: " + d.Paused.Reason
		return false
	}
	a := s.Analysis
	if a != nil {
		s.Message = a.Reason
		if a.Verdict == delivery.VerdictSafe {
			return true
		}
	}
	end := s.MoveSince.Add(move.For.Std())
	if !move.Final || r.Analysis == nil {
		return !m.o.Now.Before(end)
	}
	horizon := s.FirstShift.Add(r.Analysis.Horizon.Std())
	if m.o.Now.Before(horizon) {
		return false
	}
	switch r.Analysis.OnUndecided {
	case delivery.OnUndecidedPromote:
		m.event(delivery.EventStepVerdict, d, delivery.System(), s.Name+": undecided at the horizon; it goes on as its strategy says.", a)
		return true
	case delivery.OnUndecidedRollback:
		m.startRevert(d, delivery.PhaseRolledBack, delivery.System(), s.Name+": undecided at the horizon. "+judgeReason(a))
		return false
	}
	if s.Resumed {
		return true
	}
	s.Message = "undecided at the horizon: a person resumes or aborts it. " + judgeReason(a)
	if s.Sent != "undecided" { // say it once
		s.Sent = "undecided"
		m.event(delivery.EventDeploymentPaused, d, delivery.System(), s.Name+" is "+s.Message, a)
	}
	return false
}

func judgeReason(a *delivery.AnalysisState) string {
	if a == nil {
		return "No requests were seen."
	}
	return a.Reason
}

func (m *machine) paused(d *delivery.Deployment, move delivery.Move, s *delivery.StepState) bool {
	if d.Paused != nil {
		s.Message = "paused: " + d.Paused.Reason
		return false
	}
	if s.Resumed {
		return true
	}
	if move.For == 0 {
		s.Message = "waits for a person to resume it"
		return false
	}
	end := s.MoveSince.Add(move.For.Std())
	if m.o.Now.Before(end) {
		s.Message = fmt.Sprintf("pauses for %s", move.For)
		m.wake(end)
		return false
	}
	return true
}

// approved reports whether enough people approved this step of this plan.
func (m *machine) approved(d *delivery.Deployment, move delivery.Move, s *delivery.StepState) bool {
	rule := *move.Approval
	var people []delivery.Actor
	for _, a := range d.Approvals {
		if a.Step != s.Name || a.Plan != d.Plan {
			continue
		}
		if a.Rejected {
			actor := a.Actor
			d.EndedBy = &actor
			m.startRevert(d, delivery.PhaseAborted, actor, fmt.Sprintf("%s rejected %s. %s", actor.Subject, s.Name, a.Comment))
			return false
		}
		known := slices.ContainsFunc(people, func(b delivery.Actor) bool { return b.Same(a.Actor) })
		if a.Actor.Same(d.RequestedBy) || a.Actor.IsSystem() || known || rule.Group != "" && !a.Actor.In(rule.Group) {
			continue
		}
		people = append(people, a.Actor)
	}
	need := max(rule.Count, 1)
	if len(people) < need {
		s.Message = fmt.Sprintf("waits for %d approvals, has %d", need, len(people))
		return false
	}
	return true
}

// retired asks to keep only some instances of a former workload.
func (m *machine) retired(d *delivery.Deployment, s *delivery.StepState, service, target string, former *delivery.Running, keep int) bool {
	if former == nil {
		return true
	}
	m.ask(d, s, fmt.Sprintf("retire %d", keep), delivery.Effect{Target: target, Stop: &delivery.StopEffect{Service: service, Workload: former.Workload, Keep: keep}})
	report := m.report(target, s)
	if report == nil {
		m.lookAgain(s, fmt.Sprintf("waiting for target %s to stop the former version", target))
		return false
	}
	if w := report.Service(m.p.Key, service).Workload(former.Workload); w != nil && w.Wanted > keep {
		m.lookAgain(s, "waiting for the former version to stop")
		return false
	}
	return true
}

// rescale changes the number of instances, or the address, of an unchanged workload.
func (m *machine) rescale(d *delivery.Deployment, r *delivery.Rollout, s *delivery.StepState) {
	move := delivery.Move{Kind: delivery.MoveStart, Instances: r.Instances}
	done := false
	if s.Before.Instances < r.Instances || s.Before.Listen != r.Listen {
		done = m.started(d, r, move, s)
	} else {
		done = m.retired(d, s, r.Service, r.Target, s.Before, r.Instances)
	}
	if done {
		m.runs(d, r, s)
		m.stepDone(d, s, "")
	}
}

// runs records that the candidate has the traffic of its service on its target.
func (m *machine) runs(d *delivery.Deployment, r *delivery.Rollout, s *delivery.StepState) {
	if m.p.Running == nil {
		m.p.Running = map[string]delivery.Running{}
	}
	m.p.Running[s.Name] = delivery.Running{Plan: d.Plan, Workload: r.Digest, Instances: r.Instances, Listen: r.Listen}
	m.t.Inventory = append(m.t.Inventory, delivery.InventoryEntry{
		Key: m.p.Key, Target: r.Target, Service: r.Service, Release: d.Release, Version: d.Version, Workload: r.Digest,
		Artifact: r.Workload.Artifact.Digest, Plan: d.Plan, Deployment: d.ID, Since: m.o.Now,
	})
}

// watch looks at a candidate that runs: it judges the latest sample, and takes
// the deployment back when harm is shown or the candidate failed.
func (m *machine) watch(d *delivery.Deployment, plan *delivery.Plan, step delivery.Step, s *delivery.StepState) {
	r := step.Rollout
	// Before the start was answered, a report may still tell of an earlier try.
	if report, ok := m.o.Reports[r.Target]; ok && !s.AckAt.IsZero() && !report.At.Before(s.AckAt) {
		if w := report.Service(m.p.Key, r.Service).Workload(r.Digest); w != nil && w.Failed {
			d.Harm = true
			m.startRevert(d, delivery.PhaseRolledBack, delivery.System(), fmt.Sprintf("%s failed: %s", s.Name, w.Message))
			return
		}
	}
	if r.Analysis == nil || s.FirstShift.IsZero() || s.Before == nil || s.Unchanged {
		return
	}
	sample, ok := m.o.Samples[s.Name]
	if !ok {
		return
	}
	if d.Phase == delivery.PhaseBaking {
		m.judgeBake(d, r, s, sample)
		return
	}
	if s.Weight <= 0 || s.Weight >= 100 || s.Analysis != nil && !sample.At.After(s.Analysis.At) {
		return
	}
	was := delivery.VerdictUndecided
	if s.Analysis != nil {
		was = s.Analysis.Verdict
	}
	s.Analysis = analysis.Judge(*r.Analysis, s.Analysis, sample)
	if s.Analysis.Verdict != was {
		m.event(delivery.EventStepVerdict, d, delivery.System(), fmt.Sprintf("%s: %s. %s", s.Name, s.Analysis.Verdict, s.Analysis.Reason), s.Analysis)
	}
	switch s.Analysis.Verdict {
	case delivery.VerdictHarm, delivery.VerdictHardStop:
		d.Harm = true
		m.startRevert(d, delivery.PhaseRolledBack, delivery.System(), fmt.Sprintf("%s at %d %%: %s.", s.Name, s.Weight, s.Analysis.Reason))
	}
}

// judgeBake looks at a version that has all the traffic: only the hard stop
// acts, since there is nothing to compare with.
func (m *machine) judgeBake(d *delivery.Deployment, r *delivery.Rollout, s *delivery.StepState, sample delivery.Sample) {
	if s.Bake != nil && !sample.At.After(s.Bake.At) {
		return
	}
	s.Bake = analysis.Judge(*r.Analysis, s.Bake, sample)
	if s.Bake.Verdict == delivery.VerdictHardStop {
		d.Harm = true
		m.startRevert(d, delivery.PhaseRolledBack, delivery.System(), fmt.Sprintf("%s while it baked: %s.", s.Name, s.Bake.Reason))
	}
}

// lastShift returns the index of the rollout's last shift.
func lastShift(r *delivery.Rollout) int {
	for i := len(r.Moves) - 1; i >= 0; i-- {
		if r.Moves[i].Kind == delivery.MoveShift {
			return i
		}
	}
	return 0
}

// lookAgain says what a step waits for on its target, and looks again soon.
func (m *machine) lookAgain(s *delivery.StepState, message string) {
	s.Message = message
	m.wake(m.o.Now.Add(lookAgain))
}
