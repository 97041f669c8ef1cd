package engine

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// TestStepIsSafe drives a placement with random commands, faults and gates and
// holds every turn against the sentences that must always be true.
func TestStepIsSafe(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld()
		open := true
		terminal := map[delivery.ID]delivery.Phase{}
		w.check = func(before, after delivery.Placement, o Observation, turn Turn) {
			checkTurn(rt, before, after, o, turn, terminal)
		}
		versions := []*delivery.Plan{w.plan("1", canary(), nil), w.plan("2", canary(), nil), w.plan("3", rolling(), nil), w.plan("4", canary(), withBarrier)}
		for _, p := range versions {
			w.bad[p.Rollout("web", "local").Digest] = rapid.SampledFrom([]string{"", "", "", "errors", "unready", "failed", "crash"}).Draw(rt, "behaviour")
		}
		for range rapid.IntRange(5, 60).Draw(rt, "actions") {
			switch rapid.IntRange(0, 11).Draw(rt, "action") {
			case 0, 1, 2:
				w.promote(rapid.SampledFrom(versions).Draw(rt, "version"))
			case 3:
				w.command(delivery.Command{Kind: rapid.SampledFrom([]delivery.CommandKind{
					delivery.CommandAbort, delivery.CommandPause, delivery.CommandResume, delivery.CommandComplete, delivery.CommandRetry,
					delivery.CommandHold, delivery.CommandUnhold, delivery.CommandConfirm, delivery.CommandApprove, delivery.CommandReject,
				}).Draw(rt, "command"), Until: w.now.Add(time.Minute)})
			case 4:
				w.command(delivery.Command{Kind: delivery.CommandRollback, Deployment: w.id()})
			case 5:
				w.down = !w.down
			case 6:
				open = !open
				w.verdicts = []delivery.Verdict{{Gate: delivery.GateWindow, Outcome: delivery.OutcomePass}}
				if !open {
					w.verdicts[0].Outcome = delivery.OutcomeWait
				}
			case 7:
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 900).Draw(rt, "seconds")) * time.Second)
			default:
				for range rapid.IntRange(1, 20).Draw(rt, "turns") {
					w.turn()
					w.pass()
				}
			}
			w.turn()
		}
		for key, n := range w.emitted {
			if n != 1 {
				rt.Fatalf("effect %s was emitted %d times", key, n)
			}
		}
		// Left alone, with the target there and the gates open, everything ends
		// or waits for a person.
		w.down, w.verdicts = false, []delivery.Verdict{{Gate: delivery.GateOrder, Outcome: delivery.OutcomePass}}
		w.command(delivery.Command{Kind: delivery.CommandResume})
		w.command(delivery.Command{Kind: delivery.CommandUnhold})
		if !w.settle(1500) {
			a := w.p.Active
			if a == nil || a.Phase != delivery.PhaseNeedsPerson && a.Paused == nil && !waitsForPerson(a) {
				rt.Fatalf("it hangs: active %+v, queue %+v", a, w.p.Queue)
			}
		}
	})
}

func waitsForPerson(d *delivery.Deployment) bool {
	for _, s := range d.Steps {
		if s.Sent == "undecided" || s.Phase == delivery.StepRunning && s.Name == "task:drop" {
			return true
		}
	}
	return false
}

func checkTurn(rt *rapid.T, before, after delivery.Placement, o Observation, turn Turn, terminal map[delivery.ID]delivery.Phase) {
	// Pure: the same again gives the same.
	again, turn2 := Step(before, o)
	if d := cmp.Diff(after, again); d != "" {
		rt.Fatalf("Step is not a function: %s", d)
	}
	if d := cmp.Diff(turn, turn2); d != "" {
		rt.Fatalf("Step is not a function: %s", d)
	}
	// Terminal is terminal, and said once.
	for _, d := range turn.Finished {
		if was, yes := terminal[d.ID]; yes {
			rt.Fatalf("%s ended twice: %s, %s", d.ID, was, d.Phase)
		}
		if !d.Phase.Terminal() {
			rt.Fatalf("%s finished in phase %s", d.ID, d.Phase)
		}
		terminal[d.ID] = d.Phase
	}
	if a := after.Active; a != nil {
		if _, yes := terminal[a.ID]; yes || a.Phase.Terminal() || a.Phase == delivery.PhaseWaiting {
			rt.Fatalf("active deployment %s is %s", a.ID, a.Phase)
		}
		// Never past a closed gate.
		if (before.Active == nil || before.Active.ID != a.ID) && delivery.Combine(o.Queued.Verdicts) != delivery.OutcomePass {
			rt.Fatalf("%s started past %v", a.ID, o.Queued.Verdicts)
		}
	}
	checkEffects(rt, before, after, turn)
}

func checkEffects(rt *rapid.T, before, after delivery.Placement, turn Turn) {
	for _, e := range turn.Effects {
		var d *delivery.Deployment
		if after.Active != nil && after.Active.ID == e.Key.Deployment {
			d = after.Active
		}
		for i := range turn.Finished {
			if turn.Finished[i].ID == e.Key.Deployment {
				d = &turn.Finished[i]
			}
		}
		if d == nil {
			rt.Fatalf("effect %s of a deployment that is not active", e.Key)
			return
		}
		if e.Shift == nil {
			continue
		}
		sum := 0
		for _, x := range e.Shift.Weights {
			sum += x.Percent
		}
		if sum != 100 {
			rt.Fatalf("weights %v do not add up to 100", e.Shift.Weights)
		}
		s := d.Step(e.Step)
		// Weight rises only while healthy.
		if a := s.Analysis; a != nil && (a.Verdict == delivery.VerdictHarm || a.Verdict == delivery.VerdictHardStop) && s.Phase == delivery.StepRunning {
			rt.Fatalf("weight raised after %s", a.Verdict)
		}
		if d.Phase == delivery.PhaseNeedsPerson {
			rt.Fatalf("traffic moved while a person is needed")
		}
	}
}

func rolling() []delivery.Move {
	return []delivery.Move{{Kind: delivery.MoveStart, Instances: 1}, {Kind: delivery.MoveShift, Weight: 100}}
}

func withBarrier(p *delivery.Plan) {
	task := &delivery.Task{Name: "drop", Manual: &delivery.Manual{Instructions: "drop the column"}, OnRollback: delivery.OnRollback{Barrier: true}}
	p.Waves = append([]delivery.Wave{{Steps: []delivery.Step{{Name: "task:drop", Task: task}}}}, p.Waves...)
}

func TestDiagramNamesEveryPhase(t *testing.T) {
	seen := map[delivery.Phase]bool{}
	for _, x := range Transitions() {
		if x.From.Terminal() {
			t.Errorf("%s is terminal and leads to %s", x.From, x.To)
		}
		seen[x.From], seen[x.To] = true, true
	}
	for _, p := range []delivery.Phase{delivery.PhaseWaiting, delivery.PhaseRunning, delivery.PhaseBaking, delivery.PhaseRetiring, delivery.PhaseReverting,
		delivery.PhaseNeedsPerson, delivery.PhaseSucceeded, delivery.PhaseRolledBack, delivery.PhaseAborted, delivery.PhaseFailed, delivery.PhaseDenied, delivery.PhaseSuperseded} {
		if !seen[p] {
			t.Errorf("no transition knows %s", p)
		}
	}
}
