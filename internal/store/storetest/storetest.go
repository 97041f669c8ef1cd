// Package storetest is the list of what every store does. It decides nothing
// and imports no store but the port. Start reading at [Exercise].
package storetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// Open makes an empty store, which the test closes.
type Open func(t testing.TB, o store.Options) store.Store

// Exercise runs the whole list on stores that open makes.
func Exercise(t *testing.T, open Open) {
	tests := []struct {
		name string
		test func(w *World)
	}{
		{"a command makes a placement due", commandMakesDue},
		{"a placement without anything is not found", placementNotFound},
		{"commands are listed in order of arrival", commandsInOrder},
		{"a command with a known id is ignored", commandOnce},
		{"a command during a turn stays", commandDuringTurn},
		{"a wake-up makes a placement due", wakeMakesDue},
		{"an old version is refused", oldVersion},
		{"a turn needs a lease", turnNeedsLease},
		{"an old token is refused", oldToken},
		{"an expired lease is refused", expiredLease},
		{"a lease is renewed and yielded", renewAndYield},
		{"a claimed placement is nobody else's", claimedOnce},
		{"many claimers get each placement once", manyClaimers},
		{"a newer state format is not claimed", newerFormat},
		{"a failed change leaves nothing", nothingHalfDone},
		{"effects wait for their first result", effectsAndResults},
		{"effects carry the token of today", effectTokens},
		{"an effect key is used once", effectKeyOnce},
		{"a report wakes the deployments on its target", reportWakes},
		{"a report during a turn stays", reportDuringTurn},
		{"turns are recorded by deployment", turns},
		{"objects have revisions", objectRevisions},
		{"objects are written on conditions", objectConditions},
		{"a change expects revisions", expectations},
		{"releases never change", releases},
		{"plans are kept", plans},
		{"deployments are updated and filtered", deployments},
		{"decisions keep each input once", decisions},
		{"inventory answers for any time", inventory},
		{"tokens are kept and enrol once", tokens},
		{"hosts are kept", hosts},
		{"a request is done once", idempotency},
		{"events become entries in order", events},
		{"an event that is too long is refused", longEvent},
		{"lists have pages", pages},
		{"bad cursors are refused", badCursors},
		{"malformed changes are refused", malformed},
		{"waiting readers are woken", signals},
		{"a crash before leaves nothing, one after everything", faults},
		{"concurrent commits all arrive", concurrentCommits},
		{"only one of concurrent turns is committed", concurrentTurns},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.test(newWorld(t, open)) })
	}
}

// Clock is a time that only a test moves.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Start is where a [Clock] begins.
var Start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// NewClock returns a clock at [Start].
func NewClock() *Clock { return &Clock{now: Start} }

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// World is a store with a clock, and short forms that fail the test.
type World struct {
	*testing.T
	store.Store
	Clock *Clock
	fault func(point string) error
	ids   int
}

func newWorld(t *testing.T, open Open) *World {
	w := &World{T: t, Clock: NewClock()}
	w.Store = open(t, store.Options{Now: w.Clock.Now, Fault: func(point string) error {
		if w.fault == nil {
			return nil
		}
		return w.fault(point)
	}})
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return w
}

var (
	ctx     = context.Background()
	web     = delivery.PlacementKey{Project: "default", Application: "web", Environment: "dev"}
	webProd = delivery.PlacementKey{Project: "default", Application: "web", Environment: "production"}
)

const ttl = 10 * time.Second

func (w *World) id() delivery.ID {
	w.ids++
	return delivery.ID(fmt.Sprintf("id-%04d", w.ids))
}

func (w *World) commit(c store.Change) store.Committed {
	w.Helper()
	done, err := w.Commit(ctx, c)
	w.ok(err)
	return done
}

// refuse commits a change that must fail with code.
func (w *World) refuse(code delivery.Code, c store.Change) {
	w.Helper()
	_, err := w.Commit(ctx, c)
	w.code(code, err)
}

func (w *World) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatalf("got error %v", err)
	}
}

func (w *World) code(want delivery.Code, err error) {
	w.Helper()
	if got := delivery.ErrorCode(err); got != want {
		w.Fatalf("got error %v of code %q, want code %q", err, got, want)
	}
}

func (w *World) equal(got, want any) {
	w.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		w.Fatalf("difference (-want +got):\n%s", diff)
	}
}

// ask sends a command to a placement and returns its id.
func (w *World) ask(key delivery.PlacementKey) delivery.ID {
	w.Helper()
	id := w.id()
	w.commit(store.Change{Commands: []delivery.Command{{ID: id, Kind: delivery.CommandPause, Key: key, At: w.Clock.Now()}}})
	return id
}

func (w *World) claim(max int) []store.Lease {
	w.Helper()
	leases, err := w.Claim(ctx, "one", ttl, max)
	w.ok(err)
	return leases
}

// lease claims exactly one placement.
func (w *World) lease() store.Lease {
	w.Helper()
	leases := w.claim(10)
	if len(leases) != 1 {
		w.Fatalf("claimed %d placements, want 1: %v", len(leases), leases)
	}
	return leases[0]
}

func (w *World) idle() {
	w.Helper()
	if leases := w.claim(10); len(leases) > 0 {
		w.Fatalf("claimed %v, want nothing to be due", leases)
	}
}

func (w *World) yield(l store.Lease) {
	w.Helper()
	w.ok(w.Yield(ctx, l))
}

func (w *World) record(key delivery.PlacementKey) store.Record {
	w.Helper()
	r, err := w.Placement(ctx, key)
	w.ok(err)
	return r
}

// turn returns the change of a turn that consumes all that waits.
func (w *World) turn(l store.Lease) store.Change {
	w.Helper()
	r := w.record(l.Key)
	p := r.Placement
	p.Sequence++
	c := store.Change{Lease: &l, Placement: &p, Version: r.Version}
	for _, x := range r.Commands {
		c.ConsumedCommands = append(c.ConsumedCommands, x.ID)
	}
	for _, x := range r.Results {
		c.ConsumedResults = append(c.ConsumedResults, x.Key)
	}
	return c
}

// settle makes a placement with one turn behind it and nothing to do.
func (w *World) settle(key delivery.PlacementKey) {
	w.Helper()
	w.ask(key)
	l := w.lease()
	w.commit(w.turn(l))
	w.yield(l)
}
