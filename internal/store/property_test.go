package store_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
	"github.com/tidegate-cd/tidegate/internal/store/storetest"
)

// pair is the memory store and the SQLite store under one clock. Whatever is
// done to both must give one answer.
type pair struct {
	t      *rapid.T
	clock  *storetest.Clock
	stores [2]store.Store
	leases []store.Lease
	ids    int
	steps  int
}

func newPair(t *rapid.T, dir string) *pair {
	p := &pair{t: t, clock: storetest.NewClock()}
	options := func() store.Options {
		return store.Options{Now: p.clock.Now, Random: rand.NewChaCha8([32]byte{1})} // equal salts
	}
	sqlite, err := store.OpenSQLite(context.Background(), filepath.Join(dir, "tidegate.db"), options())
	if err != nil {
		t.Fatal(err)
	}
	p.stores = [2]store.Store{store.NewMemory(options()), sqlite}
	return p
}

// both runs an operation on both stores and compares the answers.
func both[T any](p *pair, what string, do func(s store.Store) (T, error)) (T, error) {
	memory, errMemory := do(p.stores[0])
	sqlite, errSQLite := do(p.stores[1])
	if got, want := fmt.Sprint(errSQLite), fmt.Sprint(errMemory); got != want {
		p.t.Fatalf("%s: SQLite says %q, memory says %q", what, got, want)
	}
	if diff := cmp.Diff(memory, sqlite); diff != "" {
		p.t.Fatalf("%s: memory (-) and SQLite (+) differ:\n%s", what, diff)
	}
	return memory, errMemory
}

var ctx = context.Background()

var (
	drawKey = rapid.Custom(func(t *rapid.T) delivery.PlacementKey {
		return delivery.PlacementKey{
			Project:     rapid.SampledFrom([]string{"default", "other"}).Draw(t, "project"),
			Application: "web",
			Environment: rapid.SampledFrom([]string{"dev", "production"}).Draw(t, "environment"),
		}
	})
	drawTarget = rapid.SampledFrom([]string{"", "a", "b"})
	drawSmall  = rapid.IntRange(0, 4)
)

func drawDigest(t *rapid.T, what string) delivery.Digest {
	return delivery.Digest(fmt.Sprintf("sha256:%s%d", what, drawSmall.Draw(t, what)))
}

func (p *pair) id() delivery.ID {
	p.ids++
	return delivery.ID(fmt.Sprintf("id-%d", p.ids))
}

func drawEffectKey(t *rapid.T) delivery.EffectKey {
	return delivery.EffectKey{Deployment: "d", Sequence: int64(drawSmall.Draw(t, "sequence"))}
}

// records fills in what needs no lease.
func (p *pair) records(t *rapid.T, c *store.Change) {
	maybe := func(what string) bool { return rapid.IntRange(0, 3).Draw(t, what) == 0 }
	at := p.clock.Now()
	if maybe("commands") {
		c.Commands = append(c.Commands, delivery.Command{ID: delivery.ID(fmt.Sprintf("c%d", rapid.IntRange(0, 40).Draw(t, "id"))), Key: drawKey.Draw(t, "key"), At: at})
	}
	if maybe("results") {
		c.Results = append(c.Results, delivery.Result{Key: drawEffectKey(t), OK: rapid.Bool().Draw(t, "ok"), At: at})
	}
	if maybe("reports") {
		c.Reports = append(c.Reports, delivery.Report{Target: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "target"), At: at})
	}
	if maybe("plans") {
		plan := delivery.Plan{Digest: drawDigest(t, "p")} // a digest always names the same plan
		for _, target := range [][]string{{}, {"a"}, {"b"}, {"a", "b"}, {"c"}}[plan.Digest[len(plan.Digest)-1]-'0'] {
			plan.Waves = append(plan.Waves, delivery.Wave{Steps: []delivery.Step{{Name: "x", Target: target}}})
		}
		c.Plans = append(c.Plans, plan)
	}
	if maybe("deployments") {
		c.Deployments = append(c.Deployments, delivery.Deployment{
			ID: delivery.ID(drawDigest(t, "d")), Key: drawKey.Draw(t, "key"), Release: drawDigest(t, "r"),
			Phase: rapid.SampledFrom([]delivery.Phase{delivery.PhaseRunning, delivery.PhaseSucceeded}).Draw(t, "phase"),
		})
	}
	if maybe("objects") {
		c.Objects = append(c.Objects, drawWrite(t, at))
	}
	if maybe("expect") {
		c.Expect = append(c.Expect, store.Expectation{Kind: delivery.KindTarget, Project: "default", Name: "a", Revision: int64(rapid.IntRange(0, 2).Draw(t, "expected"))})
	}
	if maybe("releases") {
		c.Releases = append(c.Releases, delivery.Release{
			Digest: drawDigest(t, "r"), Project: "default", Application: "web", Version: fmt.Sprint(drawSmall.Draw(t, "version")),
		})
	}
	if maybe("decisions") {
		n := drawSmall.Draw(t, "input")
		c.Decisions = append(c.Decisions, delivery.Decision{
			ID: delivery.ID(fmt.Sprint(rapid.IntRange(0, 20).Draw(t, "id"))), Placement: drawKey.Draw(t, "key"),
			InputDigest: delivery.Digest(fmt.Sprint(n)), Input: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n)),
		})
	}
	if maybe("inventory") {
		c.Inventory = append(c.Inventory, delivery.InventoryEntry{
			Key: drawKey.Draw(t, "key"), Target: "a", Service: "web", Artifact: drawDigest(t, "a"),
			Workload: rapid.SampledFrom([]delivery.Digest{"", "sha256:w"}).Draw(t, "workload"),
			Since:    at.Add(time.Duration(drawSmall.Draw(t, "since")-2) * time.Minute),
		})
	}
	if maybe("tokens") {
		n := drawSmall.Draw(t, "token")
		token := store.Token{ID: delivery.ID(fmt.Sprint(n)), Hash: fmt.Sprint("h", n), Kind: "enrol", Revoked: rapid.Bool().Draw(t, "revoked")}
		if rapid.Bool().Draw(t, "used") {
			token.UsedAt = at
		}
		c.Tokens = append(c.Tokens, token)
	}
	if maybe("hosts") {
		c.Hosts = append(c.Hosts, store.Host{Name: fmt.Sprint(drawSmall.Draw(t, "host")), SeenAt: at})
	}
	if maybe("idempotency") {
		c.Idempotency = &store.Idempotency{Key: fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "idempotency key")), Request: drawDigest(t, "q"), At: at}
	}
	for range rapid.IntRange(0, 2).Draw(t, "events") {
		c.Events = append(c.Events, delivery.Event{ID: p.id(), Type: "test.done", At: at, Message: rapid.StringN(0, 20, -1).Draw(t, "message")})
	}
}

func drawWrite(t *rapid.T, at time.Time) store.ObjectWrite {
	w := store.ObjectWrite{Delete: rapid.IntRange(0, 3).Draw(t, "delete") == 0, Object: delivery.Object{
		Kind: delivery.KindTarget, Project: "default", Name: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"),
		Spec:      json.RawMessage(rapid.SampledFrom([]string{`{"x":1,"y":2}`, `{"y":2, "x":1}`, `{}`}).Draw(t, "spec")),
		UpdatedAt: at,
	}}
	if rapid.Bool().Draw(t, "conditional") {
		revision := int64(rapid.IntRange(0, 3).Draw(t, "revision"))
		w.IfRevision = &revision
	}
	return w
}

// turn commits a turn under a lease that may be lost, on a version that may be old.
func (p *pair) turn(t *rapid.T) {
	if len(p.leases) == 0 {
		return
	}
	l := rapid.SampledFrom(p.leases).Draw(t, "lease")
	r, err := both(p, "placement", func(s store.Store) (store.Record, error) { return s.Placement(ctx, l.Key) })
	if err != nil {
		t.Fatal(err)
	}
	c := store.Change{Lease: &l, Placement: &r.Placement, Version: r.Version}
	p.records(t, &c)
	if rapid.IntRange(0, 9).Draw(t, "old version") == 0 {
		c.Version--
	}
	for _, x := range r.Commands {
		if rapid.Bool().Draw(t, "consume") {
			c.ConsumedCommands = append(c.ConsumedCommands, x.ID)
		}
	}
	for _, x := range r.Results {
		if rapid.Bool().Draw(t, "consume") {
			c.ConsumedResults = append(c.ConsumedResults, x.Key)
		}
	}
	if rapid.Bool().Draw(t, "effect") {
		c.Effects = append(c.Effects, delivery.Effect{Key: drawEffectKey(t), Placement: l.Key, Target: drawTarget.Draw(t, "target")})
	}
	if rapid.Bool().Draw(t, "wakes") {
		c.Wake = p.clock.Now().Add(time.Duration(drawSmall.Draw(t, "wake")) * time.Second)
	}
	if rapid.Bool().Draw(t, "active") {
		c.Placement.Active = &delivery.Deployment{ID: "d", Plan: drawDigest(t, "p"), From: &delivery.Good{Plan: drawDigest(t, "p")}}
		c.Turn = json.RawMessage(fmt.Sprintf(`{"n":%d}`, p.ids))
	} else {
		c.Placement.Active = nil
	}
	p.commit(c)
}

func (p *pair) commit(c store.Change) {
	_, _ = both(p, "commit", func(s store.Store) (store.Committed, error) { return s.Commit(ctx, c) })
}

func (p *pair) claim(t *rapid.T) {
	n := rapid.IntRange(1, 3).Draw(t, "max")
	leases, err := both(p, "claim", func(s store.Store) ([]store.Lease, error) { return s.Claim(ctx, "one", 5*time.Second, n) })
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases {
		for _, other := range p.leases {
			if other.Key == l.Key && (other.Token >= l.Token || other.Expires.After(p.clock.Now())) {
				t.Fatalf("claimed %v while %v holds", l, other)
			}
		}
	}
	p.leases = append(p.leases, leases...)
}

func (p *pair) renew(t *rapid.T) {
	if len(p.leases) == 0 {
		return
	}
	i := rapid.IntRange(0, len(p.leases)-1).Draw(t, "lease")
	l, err := both(p, "renew", func(s store.Store) (store.Lease, error) { return s.Renew(ctx, p.leases[i], 5*time.Second) })
	if err == nil {
		p.leases[i] = l
	}
}

func (p *pair) yield(t *rapid.T) {
	if len(p.leases) == 0 {
		return
	}
	i := rapid.IntRange(0, len(p.leases)-1).Draw(t, "lease")
	_, err := both(p, "yield", func(s store.Store) (bool, error) { return true, s.Yield(ctx, p.leases[i]) })
	if err != nil {
		t.Fatal(err)
	}
	p.leases = slices.Delete(p.leases, i, i+1)
}

// compare reads everything from both, after some steps of many.
func (p *pair) compare(t *rapid.T) {
	if p.steps++; p.steps%6 != 0 {
		return
	}
	page := store.Page{Limit: 3}
	if _, err := both(p, "everything", func(s store.Store) (map[string]any, error) { return dump(s, page, p.clock.Now()) }); err != nil {
		t.Fatal(err)
	}
}

// dump reads all that a store has.
func dump(s store.Store, page store.Page, now time.Time) (map[string]any, error) {
	d := map[string]any{}
	var failed error
	put := func(name string, value any, err error) {
		d[name] = value
		if err != nil && delivery.ErrorCode(err) != delivery.CodeNotFound && failed == nil {
			failed = fmt.Errorf("%s: %w", name, err)
		}
	}
	placements, _, err := s.Placements(ctx, "", store.Page{})
	put("placements", placements, err)
	for _, x := range placements {
		r, err := s.Placement(ctx, x.Key)
		put(x.Key.String(), r, err)
	}
	_, next, err := s.Due(ctx)
	put("next", next, err)
	for _, target := range []string{"", "a", "b"} {
		effects, err := s.Effects(ctx, target)
		put("effects "+target, effects, err)
		list, cursor, err := s.Objects(ctx, delivery.KindTarget, "", page)
		put("objects "+target, []any{list, cursor}, err)
		for revision := range int64(4) {
			o, err := s.ObjectAt(ctx, delivery.KindTarget, "default", target, revision)
			put(fmt.Sprint("object ", target, revision), o, err)
		}
	}
	turns, err := s.Turns(ctx, "d")
	put("turns", turns, err)
	reports, err := s.Reports(ctx)
	put("reports", reports, err)
	tokens, err := s.Tokens(ctx)
	put("tokens", tokens, err)
	hosts, err := s.Hosts(ctx)
	put("hosts", hosts, err)
	for _, f := range []store.DeploymentFilter{{}, {Active: true}, {Project: "default", Environment: "dev"}, {Release: "sha256:r1"}} {
		list, cursor, err := s.Deployments(ctx, f, page)
		put(fmt.Sprint("deployments ", f), []any{list, len(cursor) > 0}, err)
	}
	for _, f := range []store.InventoryFilter{{}, {History: true}, {At: now}, {At: now.Add(-time.Minute)}, {Artifact: "sha256:a1"}, {Project: "other", At: now, History: true}} {
		list, cursor, err := s.Inventory(ctx, f, page)
		put(fmt.Sprint("inventory ", f), []any{list, len(cursor) > 0}, err)
	}
	releases, _, err := s.Releases(ctx, "", "", page)
	put("releases", releases, err)
	decisions, _, err := s.Decisions(ctx, "", page)
	put("decisions", decisions, err)
	for _, x := range decisions {
		decision, err := s.Decision(ctx, x.ID)
		put("decision "+string(x.ID), decision, err)
	}
	for i := range 10 {
		r, err := s.Remembered(ctx, fmt.Sprint(i))
		put(fmt.Sprint("remembered ", i), r, err)
	}
	size, err := s.AuditSize(ctx)
	put("size", size, err)
	entries, err := s.AuditEntries(ctx, 0, 1000)
	put("entries", entries, err)
	if int64(len(entries)) != size && failed == nil {
		failed = fmt.Errorf("%d audit entries of %d", len(entries), size)
	}
	return d, failed
}

func TestStoresAgree(t *testing.T) {
	// Memory-backed files where there are any: this is about agreement, not disks.
	base := t.TempDir()
	if dir, err := os.MkdirTemp("/dev/shm", "tidegate-store-"); err == nil {
		base = dir
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
	}
	// rapid's hundred runs take long with -race; -rapid.checks asks for another number.
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("40"); err != nil {
			t.Fatal(err)
		}
	}
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := filepath.Join(base, fmt.Sprint(runs))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		p := newPair(t, dir)
		defer func() {
			for _, s := range p.stores {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"commit": func(t *rapid.T) {
				c := store.Change{}
				p.records(t, &c)
				p.commit(c)
			},
			"claim":  p.claim,
			"turn":   p.turn,
			"turn 2": p.turn,
			"renew":  p.renew,
			"yield":  p.yield,
			"time":   func(t *rapid.T) { p.clock.Advance(time.Duration(drawSmall.Draw(t, "seconds")) * time.Second) },
			"days":   func(t *rapid.T) { p.clock.Advance(time.Duration(drawSmall.Draw(t, "days")) * 24 * time.Hour) },
			"":       p.compare,
		})
	})
}
