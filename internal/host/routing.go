package host

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/host/proxy"
)

const (
	routerTry  = 5 * time.Second        // longest single call to the router
	routerWait = 100 * time.Millisecond // after a failed one
	routeDown  = 5 * time.Second        // without a listening address before it counts as failed
)

// routing gives the router the configuration that follows from the records,
// and knows what the router confirmed.
type routing struct {
	supervisor *Supervisor
	client     Router
	wakeup     chan struct{}

	wanted int64 // rises with each change; guarded by Supervisor.mu

	mu       sync.Mutex
	applied  int64         // the highest wanted that the router has confirmed
	moved    chan struct{} // closed when applied rises
	revision int64         // of the configuration that was confirmed last
	content  string        // its routes, to compare
	weights  map[proxy.RouteID][]delivery.Weight
	status   proxy.Status
	down     map[proxy.RouteID]time.Time // since when a route does not listen
}

func newRouting(s *Supervisor, client Router) *routing {
	return &routing{
		supervisor: s, client: client, wakeup: make(chan struct{}, 1), wanted: 1,
		moved: make(chan struct{}), weights: map[proxy.RouteID][]delivery.Weight{}, down: map[proxy.RouteID]time.Time{},
	}
}

// touchLocked says that the configuration may differ. Supervisor.mu is held.
func (r *routing) touchLocked() {
	r.wanted++
	r.wake()
}

func (r *routing) wake() {
	select {
	case r.wakeup <- struct{}{}:
	default:
	}
}

// run configures the router whenever the configuration changes or the router
// does not have it, and reads its counts each tick.
func (r *routing) run(ctx context.Context) {
	s := r.supervisor
	ticker := time.NewTicker(s.options.Tick)
	defer ticker.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	failing := false
	for {
		err := r.push(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if !failing {
				s.options.Log.Warn("the proxy does not take the configuration; trying again", "error", err)
			}
			retry.Reset(routerWait)
		} else if failing {
			s.options.Log.Info("the proxy has the configuration")
		}
		failing = err != nil
		select {
		case <-r.wakeup:
		case <-retry.C:
		case <-ticker.C:
			r.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// push gives the router the present configuration unless it has it.
func (r *routing) push(ctx context.Context) error {
	s := r.supervisor
	s.mu.Lock()
	wanted := r.wanted
	config := s.configLocked()
	s.mu.Unlock()
	b, err := json.Marshal(config.Routes)
	if err != nil {
		return err
	}
	content := string(b)
	r.mu.Lock()
	same := content == r.content
	// Above what any earlier supervisor used, so that its confirmation is not taken for ours.
	config.Revision = max(r.revision+1, s.options.Now().UnixMicro())
	r.mu.Unlock()
	if !same {
		ctx, cancel := context.WithTimeout(ctx, routerTry)
		defer cancel()
		if err := r.client.Configure(ctx, config); err != nil {
			return err
		}
		r.look(ctx) // addresses that were allotted, and routes that can't listen
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !same {
		r.content, r.revision = content, config.Revision
		clear(r.weights)
		for _, route := range config.Routes {
			for _, g := range route.Groups {
				r.weights[route.ID] = append(r.weights[route.ID], delivery.Weight{Workload: g.Workload, Percent: g.Percent})
			}
		}
		s.mu.Lock()
		close(s.changed) // a report shows other weights; the configuration is the same
		s.changed = make(chan struct{})
		s.mu.Unlock()
	}
	r.applied = wanted
	close(r.moved)
	r.moved = make(chan struct{})
	return nil
}

// look reads the router's counts, and sees whether it lost its configuration.
func (r *routing) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, routerTry)
	defer cancel()
	status, err := r.client.Status(ctx)
	if err != nil {
		return // what was read last stays; push says that the router is away
	}
	now := r.supervisor.options.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
	if status.Revision != r.revision {
		r.content = "" // another process, with what it had saved
		r.wake()
	}
	down := map[proxy.RouteID]time.Time{}
	for _, route := range status.Routes {
		if route.Listen == "" {
			down[route.ID] = now
			if since, ok := r.down[route.ID]; ok {
				down[route.ID] = since
			}
		}
	}
	r.down = down
}

// lost makes the next push happen whatever the router had.
func (r *routing) lost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.content = ""
	r.wake()
}

// drain waits until the router has no request of a backend under way that left
// the configuration just now; at most limit for the router to take that, and
// limit for the requests. It ends early with the process.
func (r *routing) drain(ctx context.Context, exited <-chan struct{}, backend string, limit time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	s := r.supervisor
	s.mu.Lock()
	wanted := r.wanted
	s.mu.Unlock()
	timer := time.NewTimer(limit + routerTry)
	defer timer.Stop()
	for {
		r.mu.Lock()
		done, moved := r.applied >= wanted, r.moved
		r.mu.Unlock()
		if done {
			break
		}
		select {
		case <-moved:
		case <-timer.C:
			s.options.Log.Warn("the proxy did not confirm that an instance left the traffic; it stops all the same", "backend", backend)
			return
		case <-ctx.Done():
			return
		}
	}
	if err := r.client.Drain(ctx, backend, limit); err != nil && ctx.Err() == nil {
		s.options.Log.Warn("requests were under way when an instance had to stop", "backend", backend, "error", err)
	}
}

// configLocked is the router's configuration that follows from the records:
// one route for each service, the ready instances as backends. s.mu is held.
func (s *Supervisor) configLocked() proxy.Config {
	var c proxy.Config
	for _, r := range s.records {
		for _, svc := range r.Services {
			route := proxy.Route{ID: proxy.RouteID{Placement: r.Key, Service: svc.Name}, Listen: svc.listen()}
			for _, w := range svc.Workloads {
				g := proxy.Group{Workload: w.Digest, Release: w.Release, Version: w.Version, Percent: svc.percent(w.Digest)}
				for _, i := range r.instances(svc.Name, w.Digest) {
					if i.Ready && !i.Stopping {
						g.Backends = append(g.Backends, proxy.Backend{ID: backendID(i), Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(i.Port))})
					}
				}
				route.Groups = append(route.Groups, g)
			}
			c.Routes = append(c.Routes, route)
		}
	}
	slices.SortFunc(c.Routes, func(a, b proxy.Route) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return c
}

// backendID names one process of an instance.
func backendID(i *instanceRecord) string { return i.ID + "." + strconv.Itoa(i.Restarts) }

// keepProxy keeps the proxy's process: adopts the one that runs, starts one
// when none does. When ctx ends, it goes on.
func (s *Supervisor) keepProxy(ctx context.Context) {
	p := s.adoptProxy(ctx)
	if p != nil && s.outdated(p) {
		s.options.Log.Info("proxy exchanged for one of this version", "pid", p.record.PID)
		p = nil // the next one takes over its listeners and requests
	}
	for tries := 0; ctx.Err() == nil; tries++ {
		if p == nil {
			var err error
			if p, err = s.startProxy(); err != nil {
				s.options.Log.Error("the proxy can't be started; trying again", "error", err)
			} else {
				s.options.Log.Info("proxy started", "pid", p.record.PID)
				s.router.lost()
			}
		}
		if p != nil {
			began := time.Now()
			select {
			case <-p.exited:
			case <-ctx.Done():
				return
			}
			s.options.Log.Error("the proxy ended; starting it again", "pid", p.record.PID, "state", p.ending())
			if time.Since(began) > s.options.BackOff.Reset {
				tries = 0
			}
			// An exchanged proxy has handed over to another process: keep that one.
			p = s.adoptServing(ctx, p.record.PID)
		}
		if p == nil && tries > 0 {
			select {
			case <-time.After(min(10*time.Millisecond<<min(tries, 10), 5*time.Second)):
			case <-ctx.Done():
			}
		}
	}
}

// adoptProxy finds the proxy that an earlier supervisor started.
func (s *Supervisor) adoptProxy(ctx context.Context) *process {
	if p := s.adoptServing(ctx, 0); p != nil {
		s.options.Log.Info("proxy adopted", "pid", p.record.PID)
		return p
	}
	return nil
}

// adoptServing adopts whatever process answers on the proxy's socket, unless
// it is the one that ended.
func (s *Supervisor) adoptServing(ctx context.Context, ended int) *process {
	ctx2, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	status, err := s.router.client.Status(ctx2)
	if err != nil || status.PID == ended || status.PID <= 0 {
		return nil
	}
	record, ok := identify(status.PID, s.options.Now())
	if !ok {
		return nil
	}
	return adopt(ctx, record)
}

// outdated reports whether a proxy runs another program than one that was
// started now would.
func (s *Supervisor) outdated(p *process) bool {
	runs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", p.record.PID))
	if err != nil {
		return false // not ours to see; it serves
	}
	would, err := os.Stat(s.options.ProxyCommand[0])
	return err == nil && !os.SameFile(runs, would)
}

func (s *Supervisor) startProxy() (*process, error) {
	output := filepath.Join(s.layout.outputs(), "proxy.log")
	return start(spec{
		program: s.options.ProxyCommand[0], args: s.options.ProxyCommand[1:], dir: s.layout.dir,
		env:    append([]string{"PATH=/usr/local/bin:/usr/bin:/bin"}, s.options.ProxyEnv...),
		output: output,
	}, s.options.Now)
}
