package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/facts"
	"github.com/tidegate-cd/tidegate/internal/store"
	"github.com/tidegate-cd/tidegate/internal/target"
)

var errCrash = errors.New("crash")

// city is a target and the time it lives in. It outlives crashes of the server.
type city struct {
	mu      sync.Mutex
	now     time.Time
	fault   func(point string) error
	done    map[delivery.EffectKey]delivery.Result
	tokens  map[string]int64 // highest fencing token by placement
	doubled int
	places  map[delivery.PlacementKey]*place
	bad     map[string]float64 // version → share of errors
}

type place struct {
	wanted  map[delivery.Digest]int
	version map[delivery.Digest]string
	weights []delivery.Weight
	counts  map[delivery.Digest]*delivery.Counts
	changes map[string]int // what was done, to see what was done twice
}

func newCity() *city {
	return &city{
		now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), fault: func(string) error { return nil },
		done: map[delivery.EffectKey]delivery.Result{}, tokens: map[string]int64{}, places: map[delivery.PlacementKey]*place{}, bad: map[string]float64{},
	}
}

func (c *city) clock() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

// pass lets a second go by: 200 requests to every placement.
func (c *city) pass() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Second)
	for _, p := range c.places {
		for _, w := range p.weights {
			if p.counts[w.Workload] == nil {
				p.counts[w.Workload] = &delivery.Counts{Epoch: "e"}
			}
			n := int64(2 * w.Percent)
			p.counts[w.Workload].Requests += n
			p.counts[w.Workload].Errors += int64(float64(n) * c.bad[p.version[w.Workload]])
		}
	}
}

func (c *city) Do(_ context.Context, e delivery.Effect) (delivery.Result, error) {
	if err := c.fault("target.before"); err != nil {
		return delivery.Result{}, err
	}
	c.mu.Lock()
	r := c.doLocked(e)
	c.mu.Unlock()
	return r, c.fault("target.after")
}

func (c *city) doLocked(e delivery.Effect) delivery.Result {
	if r, ok := c.done[e.Key]; ok {
		r.Already = true
		return r
	}
	if e.Token < c.tokens[e.Placement.String()] {
		return delivery.Result{Key: e.Key, Message: "a newer server has the placement"}
	}
	c.tokens[e.Placement.String()] = e.Token
	p := c.places[e.Placement]
	if p == nil {
		p = &place{wanted: map[delivery.Digest]int{}, version: map[delivery.Digest]string{}, counts: map[delivery.Digest]*delivery.Counts{}, changes: map[string]int{}}
		c.places[e.Placement] = p
	}
	switch {
	case e.Start != nil:
		p.wanted[e.Start.Digest], p.version[e.Start.Digest] = e.Start.Instances, e.Start.Version
	case e.Shift != nil:
		p.weights = e.Shift.Weights
	case e.Stop != nil:
		p.wanted[e.Stop.Workload] = min(p.wanted[e.Stop.Workload], e.Stop.Keep)
	}
	id := e.Key.String()
	if p.changes[id]++; p.changes[id] > 1 {
		c.doubled++
	}
	c.done[e.Key] = delivery.Result{Key: e.Key, OK: true}
	return c.done[e.Key]
}

func (c *city) Report(context.Context) (delivery.Report, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := delivery.Report{Target: "local", At: c.now}
	for key, p := range c.places {
		s := delivery.ServiceStatus{Placement: key, Service: "web", Weights: p.weights}
		for d, n := range p.wanted {
			if n == 0 {
				continue
			}
			w := delivery.WorkloadStatus{Workload: d, Version: p.version[d], Wanted: n, Ready: n}
			if p.counts[d] != nil {
				w.Counts = *p.counts[d]
			}
			s.Workloads = append(s.Workloads, w)
		}
		r.Services = append(r.Services, s)
	}
	return r, nil
}

// life is a city with a server that may crash at any boundary and come again.
type life struct {
	t     *testing.T
	city  *city
	store store.Store
	run   *Runner
	ids   int
	point int // boundaries passed
	crash int // at which one; 0: never
}

func newLife(t *testing.T, crash int, open func(store.Options) store.Store) *life {
	l := &life{t: t, city: newCity(), crash: crash}
	fault := func(string) error {
		if l.point++; l.point == l.crash {
			return errCrash
		}
		return nil
	}
	l.city.fault = fault
	l.store = open(store.Options{Now: l.city.clock, Fault: fault})
	l.boot()
	return l
}

// boot starts a server that knows nothing but the store.
func (l *life) boot() {
	id := func() delivery.ID { l.ids++; return delivery.ID(fmt.Sprintf("id-%06d", l.ids)) }
	targets := map[string]target.Target{"local": l.city}
	l.run = New(Options{
		Store: l.store, Facts: facts.New(facts.Options{Store: l.store, Targets: targets, NewID: id}),
		Targets: targets, Holder: string(id()), NewID: id, Inline: true,
	})
}

// commit writes what a user asks for; after a crash the user asks again.
func (l *life) commit(c store.Change) {
	l.t.Helper()
	for range 2 {
		_, err := l.store.Commit(l.t.Context(), c)
		if !errors.Is(err, errCrash) {
			if err != nil {
				l.t.Fatal(err)
			}
			return
		}
		l.boot()
	}
}

// live lets seconds go by.
func (l *life) live(seconds int) {
	l.t.Helper()
	for range seconds {
		for range 3 {
			_, err := l.run.Drain(l.t.Context())
			if err == nil {
				break
			}
			if !errors.Is(err, errCrash) {
				l.t.Fatal(err)
			}
			l.boot() // its leases run out by themselves
		}
		l.city.pass()
	}
}

// canary lets time go by until production's candidate has traffic.
func (l *life) canary() {
	l.t.Helper()
	for range 120 {
		rec, err := l.store.Placement(l.t.Context(), l.key("production"))
		if err != nil {
			l.t.Fatal(err)
		}
		if a := rec.Placement.Active; a != nil && a.MaxWeight > 0 {
			return
		}
		l.live(1)
	}
	l.t.Fatal("the candidate got no traffic")
}

func (l *life) key(environment string) delivery.PlacementKey {
	return delivery.PlacementKey{Project: "default", Application: "shop", Environment: environment}
}

func (l *life) command(c delivery.Command, environment string) {
	l.ids++
	c.ID, c.Key, c.At = delivery.ID(fmt.Sprintf("command-%06d", l.ids)), l.key(environment), l.city.clock()
	c.Actor = delivery.Actor{Subject: "ana", Issuer: "tidegate"}
	l.commit(store.Change{Commands: []delivery.Command{c}})
}

func (l *life) release(version string) delivery.Digest {
	r := delivery.Release{Project: "default", Application: "shop", Version: version, Services: []delivery.ReleaseService{{
		Service: delivery.Service{Name: "web", Args: []string{version}}, Artifact: delivery.Artifact{Digest: delivery.DigestBytes([]byte(version)), Kind: delivery.ArtifactExecutable},
	}}}
	r.Digest = r.ComputeDigest()
	l.commit(store.Change{Releases: []delivery.Release{r}})
	return r.Digest
}

func (l *life) promote(version string, release delivery.Digest, environment string) {
	l.command(delivery.Command{Kind: delivery.CommandPromote, Deployment: delivery.ID("d-" + version + "-" + environment), Release: release, Version: version}, environment)
}

func (l *life) configure() {
	second := delivery.Duration(2 * time.Second)
	app := delivery.Application{Services: []delivery.Service{{Name: "web"}}, Path: []delivery.PathStep{
		{Environment: "dev"},
		{Environment: "production", Promotion: delivery.PromotionAutomatic, Strategy: &delivery.Strategy{
			Kind: delivery.StrategyCanary, Steps: []delivery.StrategyStep{{Weight: 10, For: second}, {Weight: 50, For: second}, {Weight: 100}},
			Analysis: &delivery.Analysis{Floor: 0.01}, Bake: second,
		}},
	}}
	spec, err := json.Marshal(app)
	if err != nil {
		l.t.Fatal(err)
	}
	l.commit(store.Change{Objects: []store.ObjectWrite{{Object: delivery.Object{Kind: delivery.KindApplication, Project: "default", Name: "shop", Spec: spec}}}})
}

// stories are what users do; each says how it must end, crash or not.
var stories = map[string]struct {
	tell func(l *life)
	want string
}{
	"the path, by itself": {func(l *life) {
		l.promote("1", l.release("1"), "dev")
		l.live(60)
	}, "dev stable 1 succeeded, production stable 1 succeeded"},
	"a canary is promoted": {func(l *life) {
		l.promote("1", l.release("1"), "dev")
		l.live(60)
		l.promote("2", l.release("2"), "dev")
		l.live(120)
	}, "dev stable 2 succeeded, production stable 2 succeeded"},
	"a canary does harm": {func(l *life) {
		l.promote("1", l.release("1"), "dev")
		l.live(60)
		l.city.bad["2"] = 0.1
		l.promote("2", l.release("2"), "dev")
		l.live(120)
	}, "dev stable 2 succeeded, production stable 1 rolled_back quarantined 2"},
	"a person aborts": {func(l *life) {
		l.promote("1", l.release("1"), "dev")
		l.live(60)
		l.city.bad["2"] = 0.004 // enough to keep the judge undecided
		l.promote("2", l.release("2"), "dev")
		l.canary()
		l.command(delivery.Command{Kind: delivery.CommandPause}, "production")
		l.live(3)
		l.command(delivery.Command{Kind: delivery.CommandAbort}, "production")
		l.live(120)
	}, "dev stable 2 succeeded, production stable 1 aborted"},
	"a rollback": {func(l *life) {
		l.promote("1", l.release("1"), "dev")
		l.live(60)
		l.promote("2", l.release("2"), "dev")
		l.live(120)
		l.command(delivery.Command{Kind: delivery.CommandRollback, Deployment: "back"}, "production")
		l.live(60)
	}, "dev stable 2 succeeded, production stable 1 succeeded quarantined 2"},
}

// end says how it ended.
func (l *life) end() string {
	text := ""
	for _, environment := range []string{"dev", "production"} {
		rec, err := l.store.Placement(l.t.Context(), l.key(environment))
		if err != nil {
			l.t.Fatal(err)
		}
		p := rec.Placement
		list, _, err := l.store.Deployments(l.t.Context(), store.DeploymentFilter{Project: "default", Environment: environment}, store.Page{})
		if err != nil {
			l.t.Fatal(err)
		}
		if p.Active != nil || len(p.Queue) > 0 {
			text += fmt.Sprintf("%s still under way: %+v %+v, ", environment, p.Active, p.Queue)
			continue
		}
		stable := "none"
		if p.Stable != nil {
			stable = p.Stable.Version
		}
		last := list[0]
		for _, d := range list {
			if d.FinishedAt.After(last.FinishedAt) {
				last = d
			}
		}
		text += fmt.Sprintf("%s stable %s %s", environment, stable, last.Phase)
		for _, q := range p.Quarantine {
			text += " quarantined " + q.Version
		}
		if text += ", "; len(p.Running) != 1 {
			text += fmt.Sprintf("running %v, ", p.Running)
		}
	}
	return text[:len(text)-2]
}

// TestCrashSweep tells every story again and again, with a crash at boundary
// 1, 2, 3 ... n: before and after each commit, each claim, and each call to
// the target. It must end the same, with no effect done twice.
func TestCrashSweep(t *testing.T) {
	stores := map[string]func(t *testing.T) func(store.Options) store.Store{
		"memory": func(*testing.T) func(store.Options) store.Store { return store.NewMemory },
		"sqlite": func(t *testing.T) func(store.Options) store.Store {
			return func(o store.Options) store.Store {
				s, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "t.db"), o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				return s
			}
		},
	}
	for name, story := range stories {
		for kind, open := range stores {
			t.Run(name+"/"+kind, func(t *testing.T) {
				tell := func(crash int) *life {
					l := newLife(t, crash, open(t))
					l.configure()
					story.tell(l)
					if got := l.end(); got != story.want {
						t.Errorf("with a crash at boundary %d: %s\nwant %s", crash, got, story.want)
					}
					if l.city.doubled != 0 {
						t.Errorf("with a crash at boundary %d: %d effects were done twice", crash, l.city.doubled)
					}
					return l
				}
				boundaries := tell(0).point
				every := 1
				if kind == "sqlite" {
					every = max(1, boundaries/8) // each costs a database; memory has all of them
				}
				if testing.Short() {
					every = max(every, boundaries/20)
				}
				told := 0
				for crash := 1; crash <= boundaries && !t.Failed(); crash += every {
					tell(crash)
					told++
				}
				t.Logf("%d boundaries, crashed at %d of them", boundaries, told)
			})
		}
	}
}
