package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate-cd/tidegate/internal/audit"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

func events(w *World) {
	done := w.commit(store.Change{Hosts: []store.Host{{Name: "h"}}})
	w.equal(done.FirstAudit, int64(-1))
	for i, n := range []int{1, 3, 1, 2} {
		c := store.Change{}
		for range n {
			c.Events = append(c.Events, delivery.Event{ID: w.id(), Type: "test.done", Message: fmt.Sprintf("<%d>", i), At: Start,
				Data: json.RawMessage(`{"b": 2, "a": "&"}`)})
		}
		done = w.commit(c)
	}
	w.equal(done.FirstAudit, int64(5))
	size, err := w.AuditSize(ctx)
	w.ok(err)
	w.equal(size, int64(7))
	entries, err := w.AuditEntries(ctx, 0, 100)
	w.ok(err)
	var leaves [][]byte
	for i, e := range entries {
		w.ok(e.Check(int64(i)))
		var event delivery.Event
		w.ok(json.Unmarshal(e.Payload, &event))
		w.equal(event.ID, delivery.ID(fmt.Sprintf("id-%04d", i+1)))
		leaves = append(leaves, e.Leaf)
	}
	w.equal(treeOf(leaves), w.root(size))
	page, err := w.AuditEntries(ctx, 5, 1)
	w.ok(err)
	w.equal(page, entries[5:6])
	page, err = w.AuditEntries(ctx, 7, 5)
	w.ok(err)
	w.equal(len(page), 0)
	_, err = w.AuditEntries(ctx, -1, 5)
	w.code(delivery.CodeInvalid, err)
	_, err = w.AuditHashes(ctx, []int64{tlog.StoredHashCount(7)})
	w.code(delivery.CodeNotFound, err)
}

// root computes the head of the stored tree.
func (w *World) root(size int64) tlog.Hash {
	w.Helper()
	h, err := tlog.TreeHash(size, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		stored, err := w.AuditHashes(ctx, indexes)
		hashes := make([]tlog.Hash, len(stored))
		for i := range stored {
			hashes[i] = stored[i]
		}
		return hashes, err
	}))
	w.ok(err)
	return h
}

// treeOf computes a head by the definition of RFC 6962, section 2.1.
func treeOf(leaves [][]byte) tlog.Hash {
	if len(leaves) == 1 {
		return tlog.RecordHash(leaves[0])
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	return tlog.NodeHash(treeOf(leaves[:k]), treeOf(leaves[k:]))
}

func longEvent(w *World) {
	data, _ := json.Marshal(strings.Repeat("x", audit.PayloadLimit))
	w.refuse(delivery.CodeInvalid, store.Change{Hosts: []store.Host{{Name: "h"}}, Events: []delivery.Event{{ID: "e", Data: data}}})
	w.refuse(delivery.CodeInvalid, store.Change{Events: []delivery.Event{{ID: "e", Data: json.RawMessage(`{`)}}})
	_, err := w.Host(ctx, "h")
	w.code(delivery.CodeNotFound, err)
}

// pageAll reads a list in pages of two and returns its names.
func pageAll[T any](w *World, list func(p store.Page) ([]T, string, error), name func(T) string) string {
	w.Helper()
	var names []string
	p := store.Page{Limit: 2}
	for range 20 {
		values, next, err := list(p)
		w.ok(err)
		for _, v := range values {
			names = append(names, name(v))
		}
		if next == "" {
			return strings.Join(names, " ")
		}
		w.equal(len(values), 2)
		p.After = next
	}
	w.Fatal("the pages do not end")
	return ""
}

func pages(w *World) {
	names := []string{"e", "a", "d", "b", "c"}
	for i, n := range names {
		w.ask(delivery.PlacementKey{Project: "default", Application: n, Environment: "dev"})
		w.commit(store.Change{
			Objects:     write(object(n, `{}`)).Objects,
			Releases:    []delivery.Release{release(n, delivery.Digest("sha256:"+n))},
			Deployments: []delivery.Deployment{{ID: delivery.ID(n), Key: web}},
			Decisions:   []delivery.Decision{{ID: delivery.ID(n), Placement: web}},
			Inventory:   []delivery.InventoryEntry{{Key: web, Service: n, Workload: "w", Since: Start.Add(time.Duration(i))}},
		})
	}
	// Same names in another project, to see that pages go over the border.
	w.ask(delivery.PlacementKey{Project: "other", Application: "a", Environment: "dev"})
	w.equal(pageAll(w, func(p store.Page) ([]delivery.Placement, string, error) { return w.Placements(ctx, "", p) },
		func(p delivery.Placement) string { return p.Key.Application }), "a b c d e a")
	w.equal(pageAll(w, func(p store.Page) ([]delivery.Placement, string, error) { return w.Placements(ctx, "other", p) },
		func(p delivery.Placement) string { return p.Key.String() }), "other/a@dev")
	w.equal(pageAll(w, func(p store.Page) ([]delivery.Object, string, error) {
		return w.Objects(ctx, delivery.KindEnvironment, "default", p)
	}, func(o delivery.Object) string { return o.Name }), "a b c d e")
	w.equal(pageAll(w, func(p store.Page) ([]delivery.Release, string, error) { return w.Releases(ctx, "default", "web", p) },
		func(r delivery.Release) string { return r.Version }), "c b d a e")
	w.equal(pageAll(w, func(p store.Page) ([]delivery.Deployment, string, error) {
		return w.Deployments(ctx, store.DeploymentFilter{}, p)
	}, func(d delivery.Deployment) string { return string(d.ID) }), "c b d a e")
	w.equal(pageAll(w, func(p store.Page) ([]delivery.Decision, string, error) { return w.Decisions(ctx, "", p) },
		func(d delivery.Decision) string { return string(d.ID) }), "c b d a e")
	w.equal(pageAll(w, func(p store.Page) ([]delivery.InventoryEntry, string, error) {
		return w.Inventory(ctx, store.InventoryFilter{}, p)
	}, func(e delivery.InventoryEntry) string { return e.Service }), "e a d b c")
}

func badCursors(w *World) {
	bad := store.Page{After: "nonsense"}
	_, _, err := w.Placements(ctx, "", bad)
	w.code(delivery.CodeInvalid, err)
	_, _, err = w.Objects(ctx, delivery.KindTarget, "", bad)
	w.code(delivery.CodeInvalid, err)
	_, _, err = w.Releases(ctx, "", "", bad)
	w.code(delivery.CodeInvalid, err)
	_, _, err = w.Inventory(ctx, store.InventoryFilter{}, bad)
	w.code(delivery.CodeInvalid, err)
}

func malformed(w *World) {
	for name, c := range map[string]store.Change{
		"command without id":        {Commands: []delivery.Command{{Key: web}}},
		"command without placement": {Commands: []delivery.Command{{ID: "x"}}},
		"report without target":     {Reports: []delivery.Report{{}}},
		"plan without digest":       {Plans: []delivery.Plan{{}}},
		"deployment without id":     {Deployments: []delivery.Deployment{{}}},
		"object without name":       write(object("", `{}`)),
		"object without JSON":       write(object("x", `{`)),
		"release without digest":    {Releases: []delivery.Release{{}}},
		"decision without id":       {Decisions: []delivery.Decision{{}}},
		"input without digest":      {Decisions: []delivery.Decision{{ID: "x", Input: json.RawMessage(`{}`)}}},
		"token without hash":        {Tokens: []store.Token{{ID: "x"}}},
		"host without name":         {Hosts: []store.Host{{}}},
		"idempotency without key":   {Idempotency: &store.Idempotency{}},
	} {
		if _, err := w.Commit(ctx, c); delivery.ErrorCode(err) != delivery.CodeInvalid {
			w.Errorf("%s: got error %v, want one of code invalid", name, err)
		}
	}
}

func has(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func signals(w *World) {
	one, cancelOne := context.WithCancel(ctx)
	two, cancelTwo := context.WithCancel(ctx)
	defer cancelTwo()
	first, _, err := w.Due(one)
	w.ok(err)
	second, _, err := w.Due(two)
	w.ok(err)
	if !has(first) || !has(second) || has(first) {
		w.Error("a new channel has exactly one value, so that nothing from before is missed")
	}
	same, _, err := w.Due(one)
	w.ok(err)
	if same != first {
		w.Error("the channel of one context changed")
	}
	changed := w.Changed()
	w.commit(store.Change{Hosts: []store.Host{{Name: "h"}}})
	if has(first) || has(changed) {
		w.Error("a change that concerns no placement and records nothing woke somebody")
	}
	w.ask(web)
	w.ask(web)
	if !has(first) || !has(second) || has(first) {
		w.Error("two commands give each channel one value")
	}
	l := w.lease()
	turn := w.turn(l)
	turn.Effects = []delivery.Effect{{Key: key(1), Placement: web, Target: "a"}}
	w.commit(turn)
	if !has(first) {
		w.Error("an effect woke nobody")
	}
	w.yield(l)
	if has(first) {
		w.Error("a placement with nothing to do woke somebody")
	}
	w.commit(store.Change{Events: []delivery.Event{{ID: "e"}}})
	if !has(changed) || has(w.Changed()) {
		w.Error("an entry closes the channel that was given before it, not the next")
	}
	cancelOne()
}

func faults(w *World) {
	crash := errors.New("crash")
	at := ""
	w.fault = func(point string) error {
		if point == at {
			return crash
		}
		return nil
	}
	fails := func(err error) {
		w.Helper()
		if !errors.Is(err, crash) {
			w.Fatalf("got error %v, want the fault's own", err)
		}
	}
	c := store.Change{Commands: []delivery.Command{{ID: "c", Key: web}}, Events: []delivery.Event{{ID: "e"}}}
	at = "commit.before"
	_, err := w.Commit(ctx, c)
	fails(err)
	_, err = w.Placement(ctx, web)
	w.code(delivery.CodeNotFound, err)
	at = "commit.after"
	_, err = w.Commit(ctx, c)
	fails(err)
	w.equal(len(w.record(web).Commands), 1)
	size, err := w.AuditSize(ctx)
	w.ok(err)
	w.equal(size, int64(1))
	at = "claim.before"
	_, err = w.Claim(ctx, "x", ttl, 1)
	fails(err)
	at = "claim.after"
	_, err = w.Claim(ctx, "x", ttl, 1)
	fails(err)
	at = ""
	w.idle()
	w.Clock.Advance(ttl)
	w.equal(w.lease().Token, int64(2))
}

func concurrentCommits(w *World) {
	const writers, each = 8, 25
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			for j := range each {
				id := delivery.ID(fmt.Sprintf("c-%d-%d", i, j))
				_, err := w.Commit(ctx, store.Change{
					Commands: []delivery.Command{{ID: id, Key: web}},
					Events:   []delivery.Event{{ID: id}},
				})
				if err != nil {
					w.Errorf("commit: %v", err)
				}
			}
		})
	}
	group.Wait()
	w.equal(len(w.record(web).Commands), writers*each)
	entries, err := w.AuditEntries(ctx, 0, 1000)
	w.ok(err)
	w.equal(len(entries), writers*each)
	var leaves [][]byte
	for i, e := range entries {
		w.ok(e.Check(int64(i)))
		leaves = append(leaves, e.Leaf)
	}
	w.equal(treeOf(leaves), w.root(int64(len(leaves))))
}

func concurrentTurns(w *World) {
	w.ask(web)
	l := w.lease()
	turn := w.turn(l)
	turn.Events = []delivery.Event{{ID: "e"}}
	var done atomic.Int64
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			switch _, err := w.Commit(ctx, turn); delivery.ErrorCode(err) {
			case "":
				done.Add(1)
			case delivery.CodeConflict:
			default:
				w.Errorf("commit: %v", err)
			}
		})
	}
	group.Wait()
	w.equal(done.Load(), int64(1))
	size, err := w.AuditSize(ctx)
	w.ok(err)
	w.equal(size, int64(1))
	w.equal(w.record(web).Version, int64(1))
}
