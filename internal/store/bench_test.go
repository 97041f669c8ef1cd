package store_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// deploy takes one placement through five turns as the runner does: a command
// arrives, and each turn claims, reads, commits state, effect, event and
// recorded turn, and its result comes back.
func deploy(b *testing.B, s store.Store, n int64) {
	key := delivery.PlacementKey{Project: "default", Application: fmt.Sprint("app-", n), Environment: "dev"}
	must := func(err error) {
		if err != nil {
			b.Error(err)
		}
	}
	event := func(kind string, i int) delivery.Event {
		return delivery.Event{ID: delivery.ID(fmt.Sprintf("%s-%d-%d", kind, n, i)), Type: delivery.EventStepDone, Project: "default",
			Application: key.Application, Environment: "dev", Actor: delivery.System(), At: time.Now(), Message: strings.Repeat("x", 120)}
	}
	id := delivery.ID(fmt.Sprint("d-", n))
	_, err := s.Commit(ctx, store.Change{
		Commands: []delivery.Command{{ID: id, Key: key, Kind: delivery.CommandPromote, At: time.Now()}},
		Events:   []delivery.Event{event("asked", 0)},
	})
	must(err)
	for i := range 5 {
		leases, err := s.Claim(ctx, "bench", time.Minute, 1)
		must(err)
		if len(leases) == 0 {
			b.Error("nothing is due")
			return
		}
		l := leases[0]
		r, err := s.Placement(ctx, l.Key)
		must(err)
		p := r.Placement
		p.Sequence++
		d := &delivery.Deployment{ID: id, Key: l.Key, Phase: delivery.PhaseRunning, Steps: make([]delivery.StepState, 3), Message: strings.Repeat("m", 500)}
		p.Active = d
		effect := delivery.Effect{Key: delivery.EffectKey{Deployment: id, Sequence: int64(i)}, Placement: l.Key, Target: "local",
			Start: &delivery.StartEffect{Service: "web", Version: strings.Repeat("v", 500)}}
		c := store.Change{Lease: &l, Placement: &p, Version: r.Version,
			Deployments: []delivery.Deployment{*d}, Events: []delivery.Event{event(string(l.Key.Application), i)}, Turn: json.RawMessage(`{"now":"` + strings.Repeat("t", 1000) + `"}`)}
		last := i == 4 // leaves nothing to do
		if !last {
			c.Effects = []delivery.Effect{effect}
		}
		for _, x := range r.Commands {
			c.ConsumedCommands = append(c.ConsumedCommands, x.ID)
		}
		for _, x := range r.Results {
			c.ConsumedResults = append(c.ConsumedResults, x.Key)
		}
		_, err = s.Commit(ctx, c)
		must(err)
		must(s.Yield(ctx, l))
		if last {
			return
		}
		_, err = s.Commit(ctx, store.Change{Results: []delivery.Result{{Key: effect.Key, OK: true, At: time.Now()}}})
		must(err)
	}
}

// BenchmarkDeployment measures whole turns: claim, read, commit, yield, result.
func BenchmarkDeployment(b *testing.B) {
	for _, kind := range []string{"memory", "sqlite"} {
		for _, parallel := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s-%d", kind, parallel), func(b *testing.B) {
				s := openMemory(b, store.Options{})
				if kind == "sqlite" {
					s = openFile(b, filepath.Join(b.TempDir(), "x.db"), store.Options{})
				}
				var n atomic.Int64
				b.SetParallelism(parallel)
				b.ResetTimer()
				if parallel == 1 {
					for range b.N {
						deploy(b, s, n.Add(1))
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							deploy(b, s, n.Add(1))
						}
					})
				}
				b.ReportMetric(float64(b.N)*5/b.Elapsed().Seconds(), "turns/s")
				b.StopTimer()
				if err := s.Close(); err != nil {
					b.Error(err)
				}
			})
		}
	}
}

// BenchmarkAuditAppend measures commits of one event each.
func BenchmarkAuditAppend(b *testing.B) {
	for _, parallel := range []int{1, 32} {
		b.Run(fmt.Sprintf("sqlite-%d", parallel), func(b *testing.B) {
			s := openFile(b, filepath.Join(b.TempDir(), "x.db"), store.Options{})
			c := store.Change{Events: []delivery.Event{{ID: "e", Type: delivery.EventStepDone, Actor: delivery.System(), At: time.Now(), Message: strings.Repeat("x", 500)}}}
			b.SetParallelism(parallel)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := s.Commit(ctx, c); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
			b.StopTimer()
			if err := s.Close(); err != nil {
				b.Error(err)
			}
		})
	}
}

// BenchmarkReport measures a host's report while deployments on other targets are active.
func BenchmarkReport(b *testing.B) {
	s := openFile(b, filepath.Join(b.TempDir(), "x.db"), store.Options{})
	for i := range 50 {
		deploy(b, s, int64(i))
	}
	r := delivery.Report{Target: "host-1", Services: make([]delivery.ServiceStatus, 10)}
	for b.Loop() {
		r.At = time.Now()
		if _, err := s.Commit(ctx, store.Change{Reports: []delivery.Report{r}}); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	if err := s.Close(); err != nil {
		b.Error(err)
	}
}

// BenchmarkPlacement measures reading a placement.
func BenchmarkPlacement(b *testing.B) {
	s := openFile(b, filepath.Join(b.TempDir(), "x.db"), store.Options{})
	deploy(b, s, 1)
	key := delivery.PlacementKey{Project: "default", Application: "app-1", Environment: "dev"}
	for b.Loop() {
		if _, err := s.Placement(ctx, key); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	if err := s.Close(); err != nil {
		b.Error(err)
	}
}
