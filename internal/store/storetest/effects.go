package storetest

import (
	"encoding/json"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

func key(sequence int64) delivery.EffectKey {
	return delivery.EffectKey{Deployment: "d1", Sequence: sequence}
}

// intend commits a turn with effects for a target, whose keys are numbers.
func (w *World) intend(l store.Lease, target string, sequences ...int64) {
	w.Helper()
	turn := w.turn(l)
	for _, s := range sequences {
		turn.Effects = append(turn.Effects, delivery.Effect{
			Key: key(s), Placement: l.Key, Target: target, Step: "web@" + target, Token: 99,
			Stop: &delivery.StopEffect{Service: "web", Keep: int(s)},
		})
	}
	w.commit(turn)
}

func effectKeys(effects []delivery.Effect) []int64 {
	keys := []int64{}
	for _, e := range effects {
		keys = append(keys, e.Key.Sequence)
	}
	return keys
}

func (w *World) effects(target string) []int64 {
	w.Helper()
	effects, err := w.Effects(ctx, target)
	w.ok(err)
	return effectKeys(effects)
}

func effectsAndResults(w *World) {
	w.ask(web)
	l := w.lease()
	w.intend(l, "b", 2, 1) // in order of commit, not of sequence
	w.intend(l, "", 3)
	w.yield(l)
	w.idle()
	w.equal(effectKeys(w.record(web).Pending), []int64{2, 1, 3})
	w.equal(w.effects("b"), []int64{2, 1})
	w.equal(w.effects(""), []int64{3})
	w.equal(w.effects("elsewhere"), []int64{})

	w.commit(store.Change{Results: []delivery.Result{{Key: key(1), OK: true, Message: "first", At: Start}}})
	w.equal(w.effects("b"), []int64{2})
	l = w.lease()
	// A second result, and one that nobody asked for, change nothing.
	w.commit(store.Change{Results: []delivery.Result{{Key: key(1), Message: "second"}, {Key: key(77)}, {Key: key(2)}}})
	r := w.record(web)
	w.equal(r.Results, []delivery.Result{{Key: key(1), OK: true, Message: "first", At: Start}, {Key: key(2)}})
	turn := w.turn(l)
	turn.ConsumedResults = turn.ConsumedResults[:1]
	w.commit(turn)
	w.yield(l)
	l = w.lease() // one is left
	w.equal(w.record(web).Results, []delivery.Result{{Key: key(2)}})
	w.commit(w.turn(l))
	w.yield(l)
	w.commit(store.Change{Results: []delivery.Result{{Key: key(2), Message: "again"}}})
	w.equal(len(w.record(web).Results), 0)
	w.idle()
}

func effectTokens(w *World) {
	w.ask(web)
	l := w.lease()
	w.intend(l, "b", 1)
	for want := int64(1); want < 4; want++ {
		effects, err := w.Effects(ctx, "b")
		w.ok(err)
		w.equal([]int64{effects[0].Token, w.record(web).Pending[0].Token, w.record(web).Token}, []int64{want, want, want})
		w.yield(l)
		w.ask(web)
		l = w.lease()
	}
}

func effectKeyOnce(w *World) {
	w.ask(web)
	l := w.lease()
	w.intend(l, "b", 1)
	turn := w.turn(l)
	turn.Effects = []delivery.Effect{{Key: key(1), Placement: web, Target: "b"}}
	w.refuse(delivery.CodeInternal, turn)
	turn.Effects[0].Placement = webProd
	w.refuse(delivery.CodeInvalid, turn)
}

func plan(digest delivery.Digest, targets ...string) delivery.Plan {
	p := delivery.Plan{Digest: digest, Key: web}
	for _, t := range targets {
		p.Waves = append(p.Waves, delivery.Wave{Steps: []delivery.Step{
			{Name: "web@" + t, Rollout: &delivery.Rollout{Service: "web", Target: t}},
			{Name: "task:x@" + t + "-task", Target: t + "-task", Task: &delivery.Task{Name: "x"}},
		}})
	}
	return p
}

// deploy commits a turn that makes a deployment of a plan active.
func (w *World) deploy(l store.Lease, d, from delivery.Plan) {
	w.Helper()
	turn := w.turn(l)
	turn.Plans = []delivery.Plan{d, from}
	turn.Placement.Active = &delivery.Deployment{ID: "d1", Key: l.Key, Plan: d.Digest, From: &delivery.Good{Plan: from.Digest}}
	w.commit(turn)
}

func (w *World) report(target string) {
	w.Helper()
	w.commit(store.Change{Reports: []delivery.Report{{Target: target, At: w.Clock.Now(), Tasks: []delivery.TaskStatus{{Key: key(1)}}}}})
}

func reportWakes(w *World) {
	w.settle(webProd)
	w.ask(web)
	l := w.lease()
	w.deploy(l, plan("sha256:p", "a", "b"), plan("sha256:q", "old"))
	w.yield(l)
	w.idle()
	for _, target := range []string{"a", "b", "old", "a-task"} {
		w.report("elsewhere")
		w.idle()
		w.report(target)
		l := w.lease()
		w.equal(l.Key, web)
		w.commit(w.turn(l))
		w.yield(l)
		w.idle()
	}
	// When nothing is active any more, reports wake nobody.
	w.ask(web)
	l = w.lease()
	turn := w.turn(l)
	turn.Placement.Active = nil
	w.commit(turn)
	w.yield(l)
	w.report("a")
	w.idle()
	got, err := w.Report(ctx, "a")
	w.ok(err)
	w.equal(got, delivery.Report{Target: "a", At: Start, Tasks: []delivery.TaskStatus{{Key: key(1)}}})
	reports, err := w.Reports(ctx)
	w.ok(err)
	names := []string{}
	for _, r := range reports {
		names = append(names, r.Target)
	}
	w.equal(names, []string{"a", "a-task", "b", "elsewhere", "old"})
	_, err = w.Report(ctx, "never")
	w.code(delivery.CodeNotFound, err)
}

func reportDuringTurn(w *World) {
	w.ask(web)
	l := w.lease()
	w.deploy(l, plan("sha256:p", "a"), plan("sha256:q"))
	turn := w.turn(l)
	w.report("a")
	w.commit(turn)
	w.yield(l)
	l = w.lease()
	w.commit(w.turn(l))
	w.yield(l)
	w.idle()
}

func turns(w *World) {
	w.ask(web)
	l := w.lease()
	for i, deployment := range []delivery.ID{"d1", "d1", "d2"} {
		turn := w.turn(l)
		turn.Placement.Active = &delivery.Deployment{ID: deployment, Key: web}
		turn.Placement.Queue = []*delivery.Deployment{{ID: "d2", Key: web}, {ID: "d3", Key: web}}
		turn.Turn, _ = json.Marshal(i)
		w.commit(turn)
	}
	turn := w.turn(l)
	turn.Placement.Active, turn.Placement.Queue = nil, nil
	turn.Deployments = []delivery.Deployment{{ID: "d2", Key: web, Phase: delivery.PhaseSucceeded}}
	turn.Turn = json.RawMessage(`{"last":true}`)
	w.commit(turn)
	for _, tt := range []struct {
		id   delivery.ID
		want []string
	}{
		{"d1", []string{"0", "1"}},
		{"d2", []string{"0", "1", "2", `{"last":true}`}},
		{"d3", []string{}},
	} {
		recorded, err := w.Turns(ctx, tt.id)
		w.ok(err)
		got := []string{}
		for _, r := range recorded {
			got = append(got, string(r))
		}
		w.equal(got, tt.want)
	}
}
