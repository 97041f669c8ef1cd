package engine

import (
	"fmt"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// world is a small target with a router, and the shell around Step: enough to
// let a placement live, with every fault a test asks for.
type world struct {
	now      time.Time
	p        delivery.Placement
	plans    map[delivery.Digest]*delivery.Plan
	key      delivery.PlacementKey
	verdicts []delivery.Verdict
	bad      map[delivery.Digest]string // workload → "unready", "failed", "errors", "crash"
	down     bool                       // the target does nothing and says nothing
	running  map[delivery.Digest]int    // wanted instances
	weights  []delivery.Weight
	counts   map[delivery.Digest]*delivery.Counts
	tasks    []delivery.TaskStatus
	queue    []delivery.Effect
	results  []delivery.Result
	commands []delivery.Command
	report   delivery.Report
	events   []delivery.Event
	emitted  map[delivery.EffectKey]int
	effects  []delivery.Effect
	finished []delivery.Deployment
	onward   []delivery.Command
	taskFail map[string]bool
	ids      int
	check    func(before, after delivery.Placement, o Observation, t Turn)
}

func newWorld() *world {
	w := &world{
		now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), plans: map[delivery.Digest]*delivery.Plan{},
		key: delivery.PlacementKey{Project: "default", Application: "shop", Environment: "production"},
		bad: map[delivery.Digest]string{}, running: map[delivery.Digest]int{}, counts: map[delivery.Digest]*delivery.Counts{},
		emitted: map[delivery.EffectKey]int{}, taskFail: map[string]bool{},
		verdicts: []delivery.Verdict{{Gate: delivery.GateOrder, Outcome: delivery.OutcomePass, Reason: "ok"}},
	}
	w.p = delivery.Placement{Key: w.key}
	return w
}

func (w *world) id() delivery.ID { w.ids++; return delivery.ID(fmt.Sprintf("id-%d", w.ids)) }

// plan makes a plan of one service for a version.
func (w *world) plan(version string, moves []delivery.Move, change func(*delivery.Plan)) *delivery.Plan {
	workload := delivery.Workload{Service: "web", Args: []string{version}}
	r := &delivery.Rollout{
		Service: "web", Target: "local", Instances: 1, Workload: workload, Digest: workload.ComputeDigest(),
		Strategy: delivery.StrategyCanary, Moves: moves, Deadline: delivery.Duration(time.Minute),
		Analysis: &delivery.Analysis{Alpha: .05, Tolerance: 1.2, Floor: .001, Margin: 2, Horizon: delivery.Duration(10 * time.Minute),
			OnUndecided: delivery.OnUndecidedPause, HardStop: delivery.HardStop{Success: .5, Requests: 20}},
	}
	p := &delivery.Plan{
		Format: 1, Key: w.key, Release: delivery.DigestBytes([]byte(version)), Version: version, OnFailure: delivery.OnFailureAll,
		Waves: []delivery.Wave{{Steps: []delivery.Step{{Name: "web@local", Rollout: r}}}}, Bake: delivery.Duration(30 * time.Second),
	}
	if change != nil {
		change(p)
	}
	p.Digest = p.ComputeDigest()
	w.plans[p.Digest] = p
	return p
}

func canary() []delivery.Move {
	return []delivery.Move{
		{Kind: delivery.MoveStart, Instances: 1},
		{Kind: delivery.MoveShift, Weight: 10}, {Kind: delivery.MoveAnalyse, For: delivery.Duration(10 * time.Second)},
		{Kind: delivery.MoveShift, Weight: 50}, {Kind: delivery.MoveAnalyse, For: delivery.Duration(10 * time.Second), Final: true},
		{Kind: delivery.MoveShift, Weight: 100},
	}
}

func (w *world) planFor(release delivery.Digest) *delivery.Plan {
	for _, p := range w.plans {
		if p.Release == release {
			return p
		}
	}
	return nil
}

func (w *world) promote(p *delivery.Plan) delivery.ID {
	id := w.id()
	w.command(delivery.Command{Kind: delivery.CommandPromote, Deployment: id, Release: p.Release, Version: p.Version})
	return id
}

func (w *world) command(c delivery.Command) {
	c.ID, c.Key, c.At = w.id(), w.key, w.now
	if c.Actor.Subject == "" {
		c.Actor = delivery.Actor{Subject: "ana", Issuer: "tidegate"}
	}
	w.commands = append(w.commands, c)
}

// turn lets the target work for a moment and steps once.
func (w *world) turn() Turn {
	w.work()
	o := Observation{Now: w.now, Commands: w.commands, Results: w.results, Plans: w.plans, Reports: map[string]delivery.Report{}, Samples: map[string]delivery.Sample{}}
	if !w.report.At.IsZero() {
		o.Reports["local"] = w.report
	}
	w.samples(&o)
	if len(w.p.Queue) > 0 {
		q := w.p.Queue[0]
		plan := w.plans[q.Plan]
		if plan == nil {
			plan = w.planFor(q.Release)
		}
		o.Queued = &Queued{Deployment: q.ID, Plan: plan, PlanDigest: plan.Digest, Verdicts: w.verdicts}
		if quarantine, yes := w.p.Quarantined(plan.Digest, q.Release); yes {
			o.Queued.Verdicts = []delivery.Verdict{{Gate: delivery.GateQuarantine, Outcome: delivery.OutcomeDeny, Reason: quarantine.Reason}}
		}
	}
	before := clonePlacement(w.p)
	next, t := Step(w.p, o)
	if w.check != nil {
		w.check(before, next, o, t)
	}
	w.p, w.commands, w.results = next, nil, nil
	for _, e := range t.Effects {
		w.emitted[e.Key]++
	}
	w.effects = append(w.effects, t.Effects...)
	w.queue = append(w.queue, t.Effects...)
	w.events = append(w.events, t.Events...)
	w.finished = append(w.finished, t.Finished...)
	w.onward = append(w.onward, t.Commands...)
	return t
}

func (w *world) samples(o *Observation) {
	a := w.p.Active
	if a == nil || w.plans[a.Plan] == nil || w.report.At.IsZero() {
		return
	}
	for i := range a.Steps {
		s := &a.Steps[i]
		step, _ := w.plans[a.Plan].Step(s.Name)
		if step.Rollout == nil || s.Before == nil {
			continue
		}
		status := w.report.Service(w.key, "web")
		c, b := status.Workload(step.Rollout.Digest), status.Workload(s.Before.Workload)
		if c != nil && b != nil {
			o.Samples[s.Name] = delivery.Sample{At: w.report.At, Candidate: c.Counts, Stable: b.Counts}
		}
	}
}

// work does the queued effects and reports.
func (w *world) work() {
	if w.down {
		return
	}
	for _, e := range w.queue {
		r := delivery.Result{Key: e.Key, OK: true, At: w.now}
		switch {
		case e.Start != nil:
			w.running[e.Start.Digest] = e.Start.Instances
		case e.Shift != nil:
			w.weights = e.Shift.Weights
		case e.Stop != nil:
			if w.running[e.Stop.Workload] > e.Stop.Keep {
				w.running[e.Stop.Workload] = e.Stop.Keep
			}
		case e.Run != nil:
			w.tasks = append(w.tasks, delivery.TaskStatus{Key: e.Key, Done: true, OK: !w.taskFail[e.Run.Task]})
		case e.Call != nil:
			r.OK = !w.taskFail[e.Call.Task]
		}
		w.results = append(w.results, r)
	}
	w.queue = nil
	status := delivery.ServiceStatus{Placement: w.key, Service: "web", Weights: w.weights}
	for digest, n := range w.running {
		if n == 0 {
			continue
		}
		ws := delivery.WorkloadStatus{Workload: digest, Wanted: n, Ready: n}
		switch w.bad[digest] {
		case "unready":
			ws.Ready = 0
		case "failed":
			ws.Ready, ws.Failed, ws.Message = 0, true, "exit status 1"
		}
		if c := w.counts[digest]; c != nil {
			ws.Counts = *c
		}
		status.Workloads = append(status.Workloads, ws)
	}
	w.report = delivery.Report{Target: "local", At: w.now, Services: []delivery.ServiceStatus{status}, Tasks: w.tasks}
}

// pass lets a second of traffic pass: 200 requests.
func (w *world) pass() {
	w.now = w.now.Add(time.Second)
	for _, weight := range w.weights {
		c := w.counts[weight.Workload]
		if c == nil {
			c = &delivery.Counts{Epoch: "e"}
			w.counts[weight.Workload] = c
		}
		n := int64(2 * weight.Percent)
		c.Requests += n
		if w.bad[weight.Workload] == "errors" {
			c.Errors += (n + 9) / 10
		}
		if w.bad[weight.Workload] == "crash" {
			c.Errors += n
		}
	}
}

// settle turns until nothing is active or queued, at most that many seconds.
func (w *world) settle(seconds int) bool {
	for range seconds {
		for w.turn().Again {
		}
		if w.p.Active == nil && len(w.p.Queue) == 0 && len(w.commands) == 0 {
			return true
		}
		w.pass()
	}
	return false
}

func (w *world) last() delivery.Deployment { return w.finished[len(w.finished)-1] }
