package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// stable gives a world in which version 1 runs.
func stable(t *testing.T) *world {
	t.Helper()
	w := newWorld()
	w.promote(w.plan("1", canary(), nil))
	if !w.settle(60) || w.last().Phase != delivery.PhaseSucceeded {
		t.Fatalf("version 1 did not succeed: %+v", w.p.Active)
	}
	return w
}

func TestFirstDeploymentNeedsOnlyReadiness(t *testing.T) {
	w := stable(t)
	if got := w.now.Sub(w.last().StartedAt); got > 5*time.Second {
		t.Errorf("took %s: a first deployment has nothing to be compared with", got)
	}
	if w.p.Stable == nil || w.p.Stable.Version != "1" {
		t.Errorf("stable = %+v, want version 1", w.p.Stable)
	}
}

func TestCanaryIsPromotedAndBakes(t *testing.T) {
	w := stable(t)
	w.promote(w.plan("2", canary(), nil))
	if !w.settle(600) {
		t.Fatalf("did not settle: %+v", w.p.Active)
	}
	d := w.last()
	if d.Phase != delivery.PhaseSucceeded || d.MaxWeight != 100 {
		t.Fatalf("got %s at %d %%: %s", d.Phase, d.MaxWeight, d.Message)
	}
	if d.BakeUntil.IsZero() {
		t.Error("it did not bake")
	}
	if got := w.p.Earlier; len(got) != 1 || got[0].Version != "1" {
		t.Errorf("earlier = %+v, want version 1", got)
	}
	if w.running[w.planFor(delivery.DigestBytes([]byte("1"))).Rollout("web", "local").Digest] != 0 {
		t.Error("the former version still runs")
	}
}

func TestHarmRollsBackQuarantinesAndRefuses(t *testing.T) {
	w := stable(t)
	p := w.plan("3", canary(), nil)
	r := p.Rollout("web", "local")
	w.bad[r.Digest] = "errors"
	w.promote(p)
	if !w.settle(600) {
		t.Fatalf("did not settle: %+v", w.p.Active)
	}
	d := w.last()
	if d.Phase != delivery.PhaseRolledBack || d.MaxWeight >= 100 {
		t.Fatalf("got %s at %d %%, want rolled_back below 100 %%", d.Phase, d.MaxWeight)
	}
	if w.p.Stable.Version != "1" || w.weights[len(w.weights)-1].Percent != 100 {
		t.Errorf("stable %v, weights %v: want all on version 1", w.p.Stable, w.weights)
	}
	if _, yes := w.p.Quarantined(p.Digest, p.Release); !yes {
		t.Error("the plan is not quarantined")
	}
	w.promote(p)
	w.settle(10)
	if got := w.last(); got.Phase != delivery.PhaseDenied {
		t.Errorf("promoted again: %s, want denied", got.Phase)
	}
}

func TestFailures(t *testing.T) {
	tests := []struct {
		name, bad string
		want      delivery.Phase
	}{
		{"never ready", "unready", delivery.PhaseRolledBack},
		{"crashes at start", "failed", delivery.PhaseRolledBack},
		{"every request fails", "crash", delivery.PhaseRolledBack},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := stable(t)
			p := w.plan("2", canary(), nil)
			w.bad[p.Rollout("web", "local").Digest] = tt.bad
			w.promote(p)
			if !w.settle(600) || w.last().Phase != tt.want {
				t.Fatalf("got %+v, want %s", w.p.Active, tt.want)
			}
			if len(w.p.Quarantine) != 1 {
				t.Errorf("quarantine = %v, want one", w.p.Quarantine)
			}
		})
	}
}

func TestFirstDeploymentThatFailsHasNothingToGoBackTo(t *testing.T) {
	w := newWorld()
	p := w.plan("1", canary(), nil)
	w.bad[p.Rollout("web", "local").Digest] = "failed"
	w.promote(p)
	if !w.settle(60) || w.last().Phase != delivery.PhaseFailed {
		t.Fatalf("got %+v, want failed", w.finished)
	}
	if w.p.Stable != nil || len(w.p.Running) != 0 {
		t.Errorf("stable %v running %v: want none", w.p.Stable, w.p.Running)
	}
}

func TestAbortReturnsAtOnceThoughTheTargetHangs(t *testing.T) {
	w := stable(t)
	w.promote(w.plan("2", canary(), nil))
	for range 5 {
		for w.turn().Again {
		}
		w.pass()
	}
	w.down = true
	w.command(delivery.Command{Kind: delivery.CommandAbort, Reason: "no"})
	tr := w.turn()
	if len(tr.Effects) == 0 || tr.Effects[0].Shift == nil {
		t.Fatalf("effects = %+v, want the shift back at once", tr.Effects)
	}
	w.down = false
	if !w.settle(60) || w.last().Phase != delivery.PhaseAborted || len(w.p.Quarantine) != 0 {
		t.Fatalf("got %+v, want aborted without quarantine", w.last())
	}
}

func TestTargetDownDelaysButDoesNotFail(t *testing.T) {
	w := stable(t)
	w.down = true
	w.promote(w.plan("2", canary(), nil))
	w.settle(300)
	if w.p.Active == nil || w.p.Active.Phase != delivery.PhaseRunning {
		t.Fatalf("active = %+v, want running", w.p.Active)
	}
	w.down = false
	if !w.settle(600) || w.last().Phase != delivery.PhaseSucceeded {
		t.Fatalf("got %+v", w.last())
	}
}

func TestNewerReplacesOnlyWhatHasNotStarted(t *testing.T) {
	w := stable(t)
	w.promote(w.plan("2", canary(), nil))
	for w.turn().Again {
	}
	w.promote(w.plan("3", canary(), nil))
	w.promote(w.plan("4", canary(), nil))
	w.turn()
	if a := w.p.Active; a == nil || a.Version != "2" {
		t.Fatalf("active = %+v, want version 2 going on", a)
	}
	if len(w.p.Queue) != 1 || w.p.Queue[0].Version != "4" {
		t.Fatalf("queue = %+v, want only version 4", w.p.Queue)
	}
	if got := w.last(); got.Version != "3" || got.Phase != delivery.PhaseSuperseded {
		t.Errorf("got %s %s, want 3 superseded", got.Version, got.Phase)
	}
	if !w.settle(900) || w.p.Stable.Version != "4" {
		t.Errorf("stable = %+v, want 4", w.p.Stable)
	}
}

func TestRollbackGoesToTheEarlierPlanAtOnce(t *testing.T) {
	w := stable(t)
	w.promote(w.plan("2", canary(), nil))
	w.settle(600)
	began := w.now
	w.command(delivery.Command{Kind: delivery.CommandRollback, Deployment: w.id(), Reason: "customers complain"})
	if !w.settle(60) || w.last().Phase != delivery.PhaseSucceeded || w.p.Stable.Version != "1" {
		t.Fatalf("got %+v stable %+v", w.last(), w.p.Stable)
	}
	if took := w.now.Sub(began); took > 10*time.Second {
		t.Errorf("took %s: a rollback does not go through the canary", took)
	}
	if q, yes := w.p.Quarantined(w.planFor(delivery.DigestBytes([]byte("2"))).Digest, delivery.DigestBytes([]byte("2"))); !yes || !strings.Contains(q.Reason, "customers complain") {
		t.Errorf("quarantine = %+v, want version 2's plan", w.p.Quarantine)
	}
}

func TestUndecidedAtTheHorizon(t *testing.T) {
	tests := []struct {
		on    delivery.OnUndecided
		phase delivery.Phase
	}{
		{delivery.OnUndecidedPromote, delivery.PhaseSucceeded},
		{delivery.OnUndecidedRollback, delivery.PhaseRolledBack},
		{delivery.OnUndecidedPause, ""},
	}
	for _, tt := range tests {
		t.Run(string(tt.on), func(t *testing.T) {
			w := stable(t)
			w.promote(w.plan("2", canary(), func(p *delivery.Plan) { p.Rollout("web", "local").Analysis.OnUndecided = tt.on }))
			settled := false
			for range 900 { // nobody asks for anything: no requests, no evidence
				for w.turn().Again {
				}
				if settled = w.p.Active == nil; settled {
					break
				}
				w.now = w.now.Add(time.Second)
			}
			if tt.phase == "" {
				if settled || w.p.Active.Step("web@local").Weight != 50 {
					t.Fatalf("active = %+v, want it waiting at 50 %%", w.p.Active)
				}
				w.command(delivery.Command{Kind: delivery.CommandResume})
				if !w.settle(120) || w.last().Phase != delivery.PhaseSucceeded {
					t.Fatalf("after resume: %+v", w.last())
				}
				return
			}
			if !settled || w.last().Phase != tt.phase || len(w.p.Quarantine) != 0 {
				t.Fatalf("got %+v, quarantine %v", w.last(), w.p.Quarantine)
			}
		})
	}
}

func TestTasksUndoAndBarrier(t *testing.T) {
	withTasks := func(barrier bool) func(*delivery.Plan) {
		return func(p *delivery.Plan) {
			migrate := &delivery.Task{Name: "migrate", HTTP: &delivery.HTTPTask{URL: "http://x/"}, Timeout: delivery.Duration(time.Minute)}
			migrate.OnRollback = delivery.OnRollback{Barrier: barrier}
			if !barrier {
				migrate.OnRollback.Undo = &delivery.Task{Name: "unmigrate", HTTP: &delivery.HTTPTask{URL: "http://x/undo"}, Timeout: delivery.Duration(time.Minute)}
			}
			p.Waves = append([]delivery.Wave{{Steps: []delivery.Step{{Name: "task:migrate", Task: migrate}}}}, p.Waves...)
		}
	}
	t.Run("undo", func(t *testing.T) {
		w := stable(t)
		p := w.plan("2", canary(), withTasks(false))
		w.bad[p.Rollout("web", "local").Digest] = "errors"
		w.promote(p)
		if !w.settle(600) || w.last().Phase != delivery.PhaseRolledBack {
			t.Fatalf("got %+v", w.last())
		}
		last := w.effects[len(w.effects)-2]
		if last.Call == nil || last.Call.Task != "unmigrate" {
			t.Errorf("effects end with %+v: want the undo before the candidate is stopped", last)
		}
	})
	t.Run("barrier", func(t *testing.T) {
		w := stable(t)
		p := w.plan("2", canary(), withTasks(true))
		w.bad[p.Rollout("web", "local").Digest] = "errors"
		w.promote(p)
		w.settle(100)
		a := w.p.Active
		if a == nil || a.Phase != delivery.PhaseNeedsPerson || !strings.Contains(a.Message, "task:migrate") {
			t.Fatalf("active = %+v, want needs_person naming the barrier", a)
		}
		weight := w.weights[0].Percent
		w.settle(30)
		if w.weights[0].Percent != weight {
			t.Errorf("traffic moved from %d to %d %% behind a barrier", weight, w.weights[0].Percent)
		}
		w.command(delivery.Command{Kind: delivery.CommandAbort, Reason: "I know what I do"})
		if !w.settle(60) || w.last().Phase != delivery.PhaseAborted {
			t.Fatalf("got %+v, want aborted by the person", w.last())
		}
	})
	t.Run("failing", func(t *testing.T) {
		w := stable(t)
		w.taskFail["migrate"] = true
		w.promote(w.plan("2", canary(), withTasks(false)))
		if !w.settle(600) || w.last().Phase != delivery.PhaseRolledBack || w.p.Stable.Version != "1" {
			t.Fatalf("got %+v", w.last())
		}
	})
}

func TestAutomaticPromotionIsACommandOfTheSameTurn(t *testing.T) {
	w := newWorld()
	p := w.plan("1", canary(), nil)
	w.promote(p)
	var commands []delivery.Command
	for range 20 {
		w.work()
		o := Observation{Now: w.now, Commands: w.commands, Results: w.results, Plans: w.plans, Reports: map[string]delivery.Report{"local": w.report},
			Next: []delivery.PathStep{{Environment: "eu", Promotion: delivery.PromotionAutomatic}, {Environment: "us", Promotion: delivery.PromotionManual}}}
		if len(w.p.Queue) > 0 {
			o.Queued = &Queued{Deployment: w.p.Queue[0].ID, Plan: p, PlanDigest: p.Digest, Verdicts: w.verdicts}
		}
		next, turn := Step(w.p, o)
		w.p, w.commands, w.results, w.queue = next, nil, nil, append(w.queue, turn.Effects...)
		commands = append(commands, turn.Commands...)
		if len(turn.Commands) > 0 && len(turn.Finished) == 0 {
			t.Error("the promotion came in another turn than the success")
		}
		w.pass()
	}
	if len(commands) != 1 || commands[0].Key.Environment != "eu" || !commands[0].Actor.IsSystem() {
		t.Fatalf("commands = %+v, want one for eu", commands)
	}
}

func TestWindowThatPassesLaterWakes(t *testing.T) {
	w := newWorld()
	earliest := w.now.Add(time.Hour)
	w.verdicts = []delivery.Verdict{{Gate: delivery.GateWindow, Outcome: delivery.OutcomeWait, Reason: "closed", Earliest: earliest}}
	w.promote(w.plan("1", canary(), nil))
	for range 3 {
		w.turn()
	}
	if len(w.effects) != 0 || w.p.Queue[0].Phase != delivery.PhaseWaiting {
		t.Fatalf("it did not wait: %+v", w.p.Queue[0])
	}
	waits := 0
	for _, e := range w.events {
		if e.Type == delivery.EventDeploymentWaiting {
			waits++
		}
	}
	if waits != 1 {
		t.Errorf("%d waiting events, want one while nothing changes", waits)
	}
}

func TestAnotherAddressAloneIsADeployment(t *testing.T) {
	w := stable(t)
	p := w.plan("1", canary(), func(p *delivery.Plan) { p.Rollout("web", "local").Listen = "127.0.0.1:8080" })
	for _, q := range w.plans { // the release has this plan now
		if q != p && q.Release == p.Release {
			delete(w.plans, q.Digest)
		}
	}
	w.promote(p)
	w.settle(60)
	var start *delivery.StartEffect
	for _, e := range w.effects {
		if e.Start != nil {
			start = e.Start
		}
	}
	if start == nil || start.Listen != "127.0.0.1:8080" || w.p.Running["web@local"].Listen != "127.0.0.1:8080" {
		t.Errorf("last start %+v, running %+v: want the new address", start, w.p.Running)
	}
}
