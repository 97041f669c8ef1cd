package storetest

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

func object(name, spec string) delivery.Object {
	return delivery.Object{Kind: delivery.KindEnvironment, Project: "default", Name: name, Spec: json.RawMessage(spec),
		UpdatedAt: Start, UpdatedBy: delivery.Actor{Subject: "ana", Issuer: "tidegate", Channel: delivery.ChannelCLI}}
}

func write(objects ...delivery.Object) store.Change {
	c := store.Change{}
	for _, o := range objects {
		c.Objects = append(c.Objects, store.ObjectWrite{Object: o})
	}
	return c
}

func objectRevisions(w *World) {
	done := w.commit(write(object("dev", `{"a":1,"b":[1,2]}`), object("test", `{}`)))
	w.equal([]int64{done.Objects[0].Revision, done.Objects[1].Revision}, []int64{1, 1})

	same := object("dev", ` { "b": [1, 2], "a": 1 }`) // another text, the same value
	same.UpdatedAt = Start.Add(time.Hour)
	done = w.commit(write(same))
	w.equal(done.Objects[0].Revision, int64(1))
	w.equal(done.Objects[0].UpdatedAt, Start)

	done = w.commit(write(object("dev", `{"a":1,"b":[2,1]}`))) // order in a list is meaning
	w.equal(done.Objects[0].Revision, int64(2))
	got, err := w.Object(ctx, delivery.KindEnvironment, "default", "dev")
	w.ok(err)
	want := object("dev", `{"a":1,"b":[2,1]}`)
	want.Revision = 2
	w.equal(got, want)
	got, err = w.ObjectAt(ctx, delivery.KindEnvironment, "default", "dev", 1)
	w.ok(err)
	w.equal(string(got.Spec), `{"a":1,"b":[1,2]}`)
	_, err = w.ObjectAt(ctx, delivery.KindEnvironment, "default", "dev", 3)
	w.code(delivery.CodeNotFound, err)

	gone := store.Change{Objects: []store.ObjectWrite{{Object: object("dev", ""), Delete: true}}}
	done = w.commit(gone)
	w.equal(done.Objects[0].Revision, int64(0))
	w.refuse(delivery.CodeNotFound, gone)
	_, err = w.Object(ctx, delivery.KindEnvironment, "default", "dev")
	w.code(delivery.CodeNotFound, err)
	_, err = w.ObjectAt(ctx, delivery.KindEnvironment, "default", "dev", 2)
	w.ok(err)
	done = w.commit(write(object("dev", `{"a":1,"b":[2,1]}`)))
	w.equal(done.Objects[0].Revision, int64(3)) // a revision never means two things
	// Kinds and projects do not see each other.
	_, err = w.Object(ctx, delivery.KindTarget, "default", "dev")
	w.code(delivery.CodeNotFound, err)
	_, err = w.Object(ctx, delivery.KindEnvironment, "other", "dev")
	w.code(delivery.CodeNotFound, err)
}

func objectConditions(w *World) {
	at := func(revision int64, o delivery.Object, remove bool) store.Change {
		return store.Change{Objects: []store.ObjectWrite{{Object: o, IfRevision: &revision, Delete: remove}}}
	}
	w.refuse(delivery.CodeConflict, at(1, object("dev", `{}`), false))
	w.commit(at(0, object("dev", `{}`), false))
	w.refuse(delivery.CodeConflict, at(0, object("dev", `{"a":1}`), false))
	w.commit(at(1, object("dev", `{"a":1}`), false))
	w.refuse(delivery.CodeConflict, at(1, object("dev", `{"a":2}`), false))
	w.refuse(delivery.CodeConflict, at(1, object("dev", ""), true))
	w.commit(at(2, object("dev", ""), true))
	w.commit(at(0, object("dev", `{}`), false))
}

func expectations(w *World) {
	expect := func(revision int64) store.Change {
		return store.Change{
			Expect: []store.Expectation{{Kind: delivery.KindEnvironment, Project: "default", Name: "dev", Revision: revision}},
			Events: []delivery.Event{{ID: "e"}},
		}
	}
	w.commit(expect(0))
	w.refuse(delivery.CodeConflict, expect(1))
	w.commit(write(object("dev", `{}`)))
	w.commit(expect(1))
	w.refuse(delivery.CodeConflict, expect(0))
	w.commit(store.Change{Objects: []store.ObjectWrite{{Object: object("dev", ""), Delete: true}}})
	w.commit(expect(0))
	w.refuse(delivery.CodeConflict, expect(1))
	size, err := w.AuditSize(ctx)
	w.ok(err)
	w.equal(size, int64(3))
}

func release(version string, digest delivery.Digest) delivery.Release {
	return delivery.Release{Digest: digest, Project: "default", Application: "web", Version: version, CreatedAt: Start}
}

func releases(w *World) {
	first := release("1", "sha256:a")
	w.commit(store.Change{Releases: []delivery.Release{first}})
	again := first
	again.CreatedAt = Start.Add(time.Hour)
	w.commit(store.Change{Releases: []delivery.Release{again}})
	got, err := w.Release(ctx, "sha256:a")
	w.ok(err)
	w.equal(got, first)
	w.refuse(delivery.CodeConflict, store.Change{Releases: []delivery.Release{release("1", "sha256:b")}})
	other := release("1", "sha256:c")
	other.Application = "api"
	w.commit(store.Change{Releases: []delivery.Release{release("2", "sha256:b"), other}})
	got, err = w.ReleaseByVersion(ctx, "default", "web", "2")
	w.ok(err)
	w.equal(got.Digest, delivery.Digest("sha256:b"))
	_, err = w.ReleaseByVersion(ctx, "default", "web", "3")
	w.code(delivery.CodeNotFound, err)
	_, err = w.Release(ctx, "sha256:x")
	w.code(delivery.CodeNotFound, err)
	list, next, err := w.Releases(ctx, "default", "web", store.Page{})
	w.ok(err)
	w.equal(next, "")
	w.equal([]string{list[0].Version, list[1].Version}, []string{"2", "1"})
	list, _, err = w.Releases(ctx, "", "", store.Page{})
	w.ok(err)
	w.equal(len(list), 3)
}

func plans(w *World) {
	p := plan("sha256:p", "a", "b")
	w.commit(store.Change{Plans: []delivery.Plan{p}})
	w.commit(store.Change{Plans: []delivery.Plan{p}})
	got, err := w.Plan(ctx, "sha256:p")
	w.ok(err)
	w.equal(got, &p)
	_, err = w.Plan(ctx, "sha256:q")
	w.code(delivery.CodeNotFound, err)
}

func deployments(w *World) {
	d := func(id delivery.ID, key delivery.PlacementKey, release delivery.Digest, phase delivery.Phase) delivery.Deployment {
		return delivery.Deployment{ID: id, Key: key, Release: release, Phase: phase, RequestedAt: Start, PhaseSince: Start}
	}
	w.commit(store.Change{Deployments: []delivery.Deployment{
		d("b", web, "sha256:a", delivery.PhaseRunning), d("a", webProd, "sha256:a", delivery.PhaseWaiting),
	}})
	w.commit(store.Change{Deployments: []delivery.Deployment{d("c", web, "sha256:b", delivery.PhaseWaiting)}})
	w.commit(store.Change{Deployments: []delivery.Deployment{d("b", web, "sha256:a", delivery.PhaseSucceeded)}})
	got, err := w.Deployment(ctx, "b")
	w.ok(err)
	w.equal(got, d("b", web, "sha256:a", delivery.PhaseSucceeded))
	_, err = w.Deployment(ctx, "x")
	w.code(delivery.CodeNotFound, err)
	for _, tt := range []struct {
		filter store.DeploymentFilter
		want   string
	}{
		{store.DeploymentFilter{}, "c a b"}, // newest first, by when they came
		{store.DeploymentFilter{Active: true}, "c a"},
		{store.DeploymentFilter{Environment: "dev"}, "c b"},
		{store.DeploymentFilter{Project: "default", Application: "web", Environment: "production"}, "a"},
		{store.DeploymentFilter{Release: "sha256:a"}, "a b"},
		{store.DeploymentFilter{Release: "sha256:a", Active: true}, "a"},
		{store.DeploymentFilter{Project: "other"}, ""},
		{store.DeploymentFilter{Application: "other"}, ""},
	} {
		list, _, err := w.Deployments(ctx, tt.filter, store.Page{})
		w.ok(err)
		got := ""
		for i, x := range list {
			if i > 0 {
				got += " "
			}
			got += string(x.ID)
		}
		if got != tt.want {
			w.Errorf("filter %+v: got %q, want %q", tt.filter, got, tt.want)
		}
	}
}

func decisions(w *World) {
	d := func(id delivery.ID, input string) delivery.Decision {
		return delivery.Decision{ID: id, Placement: web, Moment: delivery.MomentPlanRendered, Outcome: delivery.DecisionAllow,
			InputDigest: "sha256:i", Input: json.RawMessage(input), At: Start}
	}
	w.commit(store.Change{Decisions: []delivery.Decision{d("one", `{"a":1}`)}})
	w.commit(store.Change{Decisions: []delivery.Decision{d("two", "")}}) // the input is there already
	w.commit(store.Change{Decisions: []delivery.Decision{d("one", `{"a":1}`)}})
	for _, id := range []delivery.ID{"one", "two"} {
		got, err := w.Decision(ctx, id)
		w.ok(err)
		w.equal(got, d(id, `{"a":1}`))
	}
	_, err := w.Decision(ctx, "three")
	w.code(delivery.CodeNotFound, err)
	list, _, err := w.Decisions(ctx, "default", store.Page{})
	w.ok(err)
	w.equal([]delivery.ID{list[0].ID, list[1].ID}, []delivery.ID{"two", "one"})
	list, _, err = w.Decisions(ctx, "other", store.Page{})
	w.ok(err)
	w.equal(len(list), 0)
}

func inventory(w *World) {
	at := func(minute int) time.Time { return Start.Add(time.Duration(minute) * time.Minute) }
	entry := func(key delivery.PlacementKey, service string, artifact delivery.Digest, minute int) delivery.InventoryEntry {
		return delivery.InventoryEntry{Key: key, Target: "local", Service: service, Artifact: artifact, Workload: "w-" + artifact, Since: at(minute)}
	}
	w.commit(store.Change{Inventory: []delivery.InventoryEntry{entry(web, "web", "a1", 0), entry(web, "db", "b1", 0)}})
	w.commit(store.Change{Inventory: []delivery.InventoryEntry{entry(webProd, "web", "a1", 5)}})
	w.commit(store.Change{Inventory: []delivery.InventoryEntry{entry(web, "web", "a2", 10)}})
	gone := entry(web, "db", "", 20)
	gone.Workload = ""
	w.commit(store.Change{Inventory: []delivery.InventoryEntry{gone}})
	for _, tt := range []struct {
		name   string
		filter store.InventoryFilter
		want   string
	}{
		{"now", store.InventoryFilter{}, "production/web:a1@5 dev/web:a2@10"},
		{"before all", store.InventoryFilter{At: at(-1)}, ""},
		{"at the start", store.InventoryFilter{At: at(0)}, "dev/web:a1@0-10 dev/db:b1@0-20"},
		{"at a change", store.InventoryFilter{At: at(10)}, "dev/db:b1@0-20 production/web:a1@5 dev/web:a2@10"},
		{"just before it", store.InventoryFilter{At: at(10).Add(-time.Microsecond)}, "dev/web:a1@0-10 dev/db:b1@0-20 production/web:a1@5"},
		{"history", store.InventoryFilter{History: true, Application: "web", Environment: "dev"}, "dev/web:a1@0-10 dev/db:b1@0-20 dev/web:a2@10"},
		{"history until", store.InventoryFilter{History: true, At: at(6)}, "dev/web:a1@0-10 dev/db:b1@0-20 production/web:a1@5"},
		{"where is an artifact", store.InventoryFilter{Artifact: "a1"}, "production/web:a1@5"},
		{"where was it", store.InventoryFilter{Artifact: "a1", At: at(7)}, "dev/web:a1@0-10 production/web:a1@5"},
		{"another project", store.InventoryFilter{Project: "other", History: true}, ""},
	} {
		list, _, err := w.Inventory(ctx, tt.filter, store.Page{})
		w.ok(err)
		got := ""
		for i, e := range list {
			if i > 0 {
				got += " "
			}
			got += fmt.Sprintf("%s/%s:%s@%d", e.Key.Environment, e.Service, e.Artifact, int(e.Since.Sub(Start).Minutes()))
			if !e.Until.IsZero() {
				got += fmt.Sprintf("-%d", int(e.Until.Sub(Start).Minutes()))
			}
		}
		if got != tt.want {
			w.Errorf("%s:\n got %q\nwant %q", tt.name, got, tt.want)
		}
	}
}

func tokens(w *World) {
	enrol := store.Token{ID: "e", Hash: "aa", Name: "host-1", Kind: "enrol", CreatedAt: Start, Expires: Start.Add(time.Hour)}
	api := store.Token{ID: "a", Hash: "bb", Name: "ana", Kind: "api", Groups: []string{"g"}, CreatedAt: Start}
	w.commit(store.Change{Tokens: []store.Token{enrol, api}})
	got, err := w.TokenByHash(ctx, "aa")
	w.ok(err)
	w.equal(got, enrol)
	_, err = w.TokenByHash(ctx, "cc")
	w.code(delivery.CodeNotFound, err)
	list, err := w.Tokens(ctx)
	w.ok(err)
	w.equal(list, []store.Token{api, enrol})
	enrol.UsedAt = Start
	w.commit(store.Change{Tokens: []store.Token{enrol}})
	w.refuse(delivery.CodeConflict, store.Change{Tokens: []store.Token{enrol}, Hosts: []store.Host{{Name: "thief"}}})
	_, err = w.Host(ctx, "thief")
	w.code(delivery.CodeNotFound, err)
	enrol.Revoked, api.Revoked = true, true
	w.commit(store.Change{Tokens: []store.Token{enrol, api}})
	got, err = w.TokenByHash(ctx, "bb")
	w.ok(err)
	w.equal(got, api)
}

func hosts(w *World) {
	h := store.Host{Name: "b", Certificate: "ff", EnrolledAt: Start}
	w.commit(store.Change{Hosts: []store.Host{h, {Name: "a", EnrolledAt: Start}}})
	h.SeenAt = Start.Add(time.Second)
	w.commit(store.Change{Hosts: []store.Host{h}})
	got, err := w.Host(ctx, "b")
	w.ok(err)
	w.equal(got, h)
	list, err := w.Hosts(ctx)
	w.ok(err)
	w.equal(list, []store.Host{{Name: "a", EnrolledAt: Start}, h})
	_, err = w.Host(ctx, "c")
	w.code(delivery.CodeNotFound, err)
}

func idempotency(w *World) {
	request := func(digest delivery.Digest) store.Change {
		return store.Change{
			Idempotency: &store.Idempotency{Key: "ana:k", Request: digest, Response: json.RawMessage(`{"id":1}`), At: w.Clock.Now()},
			Commands:    []delivery.Command{{ID: w.id(), Key: web}},
		}
	}
	_, err := w.Remembered(ctx, "ana:k")
	w.code(delivery.CodeNotFound, err)
	w.commit(request("sha256:a"))
	w.refuse(delivery.CodeConflict, request("sha256:a"))
	w.refuse(delivery.CodeConflict, request("sha256:b"))
	got, err := w.Remembered(ctx, "ana:k")
	w.ok(err)
	w.equal(got, store.Idempotency{Key: "ana:k", Request: "sha256:a", Response: json.RawMessage(`{"id":1}`), At: Start})
	w.equal(len(w.record(web).Commands), 1)
	// After a long time it is forgotten, when another one comes.
	w.Clock.Advance(8 * 24 * time.Hour)
	w.commit(store.Change{Idempotency: &store.Idempotency{Key: "other", At: w.Clock.Now()}})
	_, err = w.Remembered(ctx, "ana:k")
	w.code(delivery.CodeNotFound, err)
}
