package storetest

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

func commandMakesDue(w *World) {
	w.idle()
	id := w.ask(web)
	l := w.lease()
	w.equal(l, store.Lease{Key: web, Holder: "one", Token: 1, Expires: Start.Add(ttl)})
	r := w.record(web)
	w.equal(r.Placement, delivery.Placement{Format: delivery.PlacementFormat, Key: web})
	w.equal(r.Version, int64(0))
	if len(r.Commands) != 1 || r.Commands[0].ID != id || !r.Commands[0].At.Equal(Start) {
		w.Fatalf("got commands %v, want the one with id %s", r.Commands, id)
	}
	w.equal(w.commit(w.turn(l)).Version, int64(1))
	r = w.record(web)
	w.equal(r.Placement.Sequence, int64(1))
	w.equal(len(r.Commands), 0)
	w.yield(l)
	w.idle()
}

func placementNotFound(w *World) {
	_, err := w.Placement(ctx, web)
	w.code(delivery.CodeNotFound, err)
}

func commandsInOrder(w *World) {
	var want []delivery.ID
	for range 5 {
		want = append([]delivery.ID{w.ask(web)}, want...)
	}
	// Ids and times that go backwards do not matter: arrival counts.
	w.commit(store.Change{Commands: []delivery.Command{{ID: "a-last", Key: web, At: Start.Add(-time.Hour)}}})
	var got []delivery.ID
	for _, c := range w.record(web).Commands {
		got = append([]delivery.ID{c.ID}, got...)
	}
	w.equal(got, append([]delivery.ID{"a-last"}, want...))
}

func commandOnce(w *World) {
	c := store.Change{Commands: []delivery.Command{{ID: "x", Key: web}}}
	w.commit(c)
	w.commit(c)
	w.equal(len(w.record(web).Commands), 1)
	l := w.lease()
	w.commit(w.turn(l))
	w.yield(l)
	w.commit(c) // also after it was consumed
	w.equal(len(w.record(web).Commands), 0)
	w.idle()
}

// A command that comes between a turn's reading and its commit must not be
// lost, whatever wake-up the turn asks for.
func commandDuringTurn(w *World) {
	w.ask(web)
	l := w.lease()
	turn := w.turn(l)
	late := w.ask(web)
	w.commit(turn)
	w.yield(l)
	l = w.lease()
	r := w.record(web)
	if len(r.Commands) != 1 || r.Commands[0].ID != late {
		w.Fatalf("got commands %v, want the late one", r.Commands)
	}
	w.commit(w.turn(l))
	w.yield(l)
	w.idle()
	w.ask(web)
	l = w.lease()
	unconsumed := w.turn(l)
	unconsumed.ConsumedCommands = nil
	unconsumed.Wake = Start.Add(time.Hour)
	w.commit(unconsumed)
	w.yield(l)
	w.lease() // what nobody consumed keeps it due
}

func wakeMakesDue(w *World) {
	w.ask(web)
	l := w.lease()
	turn := w.turn(l)
	turn.Wake = Start.Add(time.Minute + 500*time.Nanosecond)
	w.commit(turn)
	w.yield(l)
	wake := Start.Add(time.Minute + time.Microsecond) // rounded up: never before its time
	w.equal(w.record(web).Wake, wake)
	_, next, err := w.Due(ctx)
	w.ok(err)
	w.equal(next, wake)
	w.idle()
	w.Clock.Advance(time.Minute)
	w.idle()
	w.Clock.Advance(time.Microsecond)
	l = w.lease()
	_, next, err = w.Due(ctx)
	w.ok(err)
	w.equal(next, l.Expires) // while it is leased, the end of the lease counts
	w.commit(w.turn(l))
	w.yield(l)
	_, next, err = w.Due(ctx)
	w.ok(err)
	w.equal(next, time.Time{})
	w.equal(w.record(web).Wake, time.Time{})
}

func oldVersion(w *World) {
	w.ask(web)
	l := w.lease()
	turn := w.turn(l)
	w.commit(turn)
	w.refuse(delivery.CodeConflict, turn)
	turn.Version = 7
	w.refuse(delivery.CodeConflict, turn)
	turn.Version = 1
	w.commit(turn)
}

func turnNeedsLease(w *World) {
	w.ask(web)
	l := w.lease()
	turn := w.turn(l)
	turn.Lease = nil
	w.refuse(delivery.CodeInvalid, turn)
	other := l
	other.Key = webProd
	turn.Lease = &other
	w.refuse(delivery.CodeInvalid, turn)
	turn = w.turn(l)
	turn.Placement = nil
	w.refuse(delivery.CodeInvalid, turn) // it consumes
	never := store.Lease{Key: webProd, Holder: "one", Token: 1}
	w.refuse(delivery.CodeConflict, store.Change{Lease: &never, Placement: &delivery.Placement{Key: webProd}})
}

func oldToken(w *World) {
	w.ask(web)
	old := w.lease()
	turn := w.turn(old)
	w.Clock.Advance(ttl)
	leases, err := w.Claim(ctx, "two", ttl, 10)
	w.ok(err)
	w.equal(leases, []store.Lease{{Key: web, Holder: "two", Token: 2, Expires: Start.Add(2 * ttl)}})
	w.refuse(delivery.CodeConflict, turn)
	forged := old
	forged.Token = 2
	turn.Lease = &forged // the number alone does not help
	w.refuse(delivery.CodeConflict, turn)
	_, err = w.Renew(ctx, old, ttl)
	w.code(delivery.CodeConflict, err)
	w.ok(w.Yield(ctx, old))
	turn.Lease = &leases[0] // yielding a lost lease takes nothing from its new holder
	w.commit(turn)
	w.equal(w.record(web).Token, int64(2))
}

func expiredLease(w *World) {
	w.ask(web)
	l := w.lease()
	turn := w.turn(l)
	w.Clock.Advance(ttl - time.Microsecond)
	w.commit(turn)
	w.ask(web)
	turn = w.turn(l)
	w.Clock.Advance(time.Microsecond)
	w.refuse(delivery.CodeConflict, turn)
	_, err := w.Renew(ctx, l, ttl)
	w.code(delivery.CodeConflict, err)
}

func renewAndYield(w *World) {
	w.ask(web)
	l := w.lease()
	w.Clock.Advance(ttl / 2)
	renewed, err := w.Renew(ctx, l, ttl)
	w.ok(err)
	w.equal(renewed.Expires, Start.Add(ttl+ttl/2))
	w.equal(renewed.Token, l.Token)
	w.Clock.Advance(ttl / 2)
	w.idle()
	turn := w.turn(l)
	w.commit(turn) // the token counts, not the copy of the expiry
	w.yield(renewed)
	turn.Version = 1
	w.refuse(delivery.CodeConflict, turn)
	_, err = w.Renew(ctx, renewed, 0)
	w.code(delivery.CodeInvalid, err)
	for _, bad := range []struct {
		holder string
		ttl    time.Duration
		max    int
	}{{"", ttl, 1}, {"x", 0, 1}, {"x", ttl, 0}} {
		_, err = w.Claim(ctx, bad.holder, bad.ttl, bad.max)
		w.code(delivery.CodeInvalid, err)
	}
}

func claimedOnce(w *World) {
	w.ask(web)
	w.Clock.Advance(time.Second)
	w.ask(webProd)
	first := w.claim(1)
	w.equal(first[0].Key, web) // longest due first
	second := w.claim(10)
	w.equal(len(second), 1)
	w.equal(second[0].Key, webProd)
	w.idle()
	w.Clock.Advance(ttl)
	w.equal(len(w.claim(10)), 2) // a holder that died loses them
}

func manyClaimers(w *World) {
	const placements, claimers = 40, 8
	for i := range placements {
		w.ask(delivery.PlacementKey{Project: "p", Application: string(rune('a'+i%26)) + string(rune('a'+i/26)), Environment: "dev"})
	}
	var mu sync.Mutex
	got := map[delivery.PlacementKey]int{}
	var group sync.WaitGroup
	for i := range claimers {
		group.Go(func() {
			for range placements { // more than any needs
				leases, err := w.Claim(ctx, string(rune('A'+i)), ttl, 3)
				if err != nil {
					w.Errorf("claim: %v", err)
					return
				}
				if len(leases) == 0 {
					return
				}
				mu.Lock()
				for _, l := range leases {
					got[l.Key]++
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	w.equal(len(got), placements)
	for key, n := range got {
		if n != 1 {
			w.Errorf("%s was claimed %d times", key, n)
		}
	}
}

func newerFormat(w *World) {
	w.ask(web)
	l := w.lease()
	turn := w.turn(l)
	turn.Placement.Format = delivery.PlacementFormat + 1
	w.commit(turn)
	w.yield(l)
	w.ask(web)
	w.idle()
}

func nothingHalfDone(w *World) {
	w.ask(web)
	l := w.lease()
	turn := w.turn(l)
	turn.Version = 9 // fails
	turn.Effects = []delivery.Effect{{Key: delivery.EffectKey{Deployment: "d", Sequence: 1}, Placement: web, Target: "local"}}
	w.refuse(delivery.CodeConflict, turn)
	// The last thing that can fail, after everything else was written.
	turn.Version = 0
	turn.Turn = json.RawMessage(`{}`)
	turn.Commands = []delivery.Command{{ID: "c", Key: webProd}}
	turn.Reports = []delivery.Report{{Target: "local"}}
	turn.Plans = []delivery.Plan{{Digest: "sha256:p"}}
	turn.Deployments = []delivery.Deployment{{ID: "d", Key: web}}
	turn.Objects = []store.ObjectWrite{{Object: delivery.Object{Kind: "Target", Name: "x", Spec: []byte(`{}`)}}}
	turn.Releases = []delivery.Release{{Digest: "sha256:a", Version: "1"}}
	turn.Decisions = []delivery.Decision{{ID: "x"}}
	turn.Inventory = []delivery.InventoryEntry{{Key: web, Workload: "sha256:w", Since: Start}}
	turn.Tokens = []store.Token{{ID: "t", Hash: "h"}}
	turn.Hosts = []store.Host{{Name: "h"}}
	turn.Idempotency = &store.Idempotency{Key: "k", At: Start}
	turn.Events = []delivery.Event{{ID: "e"}}
	bad := turn
	bad.Effects = append(bad.Effects, turn.Effects[0]) // one key twice
	w.refuse(delivery.CodeInternal, bad)
	w.empty()
	bad = turn
	bad.Releases = append(bad.Releases, delivery.Release{Digest: "sha256:b", Version: "1"})
	w.refuse(delivery.CodeConflict, bad)
	w.empty()
	w.equal(w.record(web).Version, int64(0))
	w.equal(len(w.record(web).Commands), 1)
	w.commit(turn)
	w.equal(w.record(web).Version, int64(1))
}

// empty fails unless the change of nothingHalfDone left nothing.
func (w *World) empty() {
	w.Helper()
	_, err := w.Placement(ctx, webProd)
	w.code(delivery.CodeNotFound, err)
	_, err = w.Report(ctx, "local")
	w.code(delivery.CodeNotFound, err)
	_, err = w.Plan(ctx, "sha256:p")
	w.code(delivery.CodeNotFound, err)
	_, err = w.Deployment(ctx, "d")
	w.code(delivery.CodeNotFound, err)
	_, err = w.Object(ctx, "Target", "", "x")
	w.code(delivery.CodeNotFound, err)
	_, err = w.ObjectAt(ctx, "Target", "", "x", 1)
	w.code(delivery.CodeNotFound, err)
	_, err = w.Release(ctx, "sha256:a")
	w.code(delivery.CodeNotFound, err)
	_, err = w.Decision(ctx, "x")
	w.code(delivery.CodeNotFound, err)
	_, err = w.TokenByHash(ctx, "h")
	w.code(delivery.CodeNotFound, err)
	_, err = w.Host(ctx, "h")
	w.code(delivery.CodeNotFound, err)
	_, err = w.Remembered(ctx, "k")
	w.code(delivery.CodeNotFound, err)
	effects, err := w.Effects(ctx, "local")
	w.ok(err)
	entries, _, err := w.Inventory(ctx, store.InventoryFilter{History: true}, store.Page{})
	w.ok(err)
	turns, err := w.Turns(ctx, "d")
	w.ok(err)
	size, err := w.AuditSize(ctx)
	w.ok(err)
	w.equal([]int{len(effects), len(entries), len(turns), int(size)}, []int{0, 0, 0, 0})
}
