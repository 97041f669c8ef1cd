package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"log"
	"log/slog"
	"net"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// server is a running proxy. Requests read it without a lock: they go from a
// door to its route and from there to the route's table, which is replaced as a
// whole. mu guards everything that a configuration changes.
type server struct {
	dir      string
	limits   Limits
	trusted  []netip.Prefix
	log      *slog.Logger
	errorLog *log.Logger
	reverse  *httputil.ReverseProxy
	started  time.Time
	serving  sync.WaitGroup
	leaving  atomic.Bool // handed over, or ending
	heir     atomic.Bool // a predecessor is still finishing
	handed   chan struct{}
	life     context.Context // of every request; ends when requests are cut off
	cut      context.CancelFunc

	mu       sync.Mutex
	epoch    string
	dropped  int // counters that were dropped
	config   Config
	order    []*route
	routes   map[RouteID]*route
	ports    map[RouteID]string // allotted or found addresses, to listen on again
	retired  []*door
	backends map[string]*backend // configured ones by id
	removed  []*backend          // no longer configured, with requests under way
	counters map[counterKey]*counter
	dirty    bool   // not saved yet
	stored   []byte // as it was saved last
	unsaved  string

	socket    *net.UnixListener
	successor *net.UnixConn    // after a handover, until this process ends
	earlier   map[string]int64 // requests under way in a predecessor, by backend
}

// route is a configured route as it is served. table is never nil.
type route struct {
	id       RouteID
	table    atomic.Pointer[table]
	unserved atomic.Int64
	door     *door  // nil while the address cannot be had
	problem  string // why
}

func newServer(o Options) *server {
	s := &server{
		dir: o.Dir, limits: o.Limits.withDefaults(), trusted: o.TrustedProxies, log: o.Log, started: time.Now(),
		errorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug), handed: make(chan struct{}),
		routes: map[RouteID]*route{}, ports: map[RouteID]string{}, backends: map[string]*backend{},
		counters: map[counterKey]*counter{}, epoch: newEpoch(), earlier: map[string]int64{},
	}
	if s.trusted == nil {
		s.trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	s.life, s.cut = context.WithCancel(context.Background())
	s.reverse = s.newReverse()
	return s
}

func newEpoch() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand, since Go 1.24)
	return hex.EncodeToString(b)
}

// now is t as nanoseconds of this process.
func (s *server) now(t time.Time) int64 { return int64(t.Sub(s.started)) }

// apply makes c what is served. Listeners that an earlier process handed over
// are taken from inherited. mu must be held.
func (s *server) apply(ctx context.Context, c Config, inherited map[RouteID]*net.TCPListener) {
	order, routes := make([]*route, 0, len(c.Routes)), make(map[RouteID]*route, len(c.Routes))
	for _, rc := range c.Routes {
		r := s.routes[rc.ID]
		if r == nil {
			r = &route{id: rc.ID}
			r.table.Store(newTable(nil, nil))
		}
		order, routes[rc.ID] = append(order, r), r
	}
	tables := s.newTables(c, routes)
	s.shutDoors(c, routes)
	s.config, s.order, s.routes, s.dirty = c, order, routes, true
	for i, r := range order { // every route's weights change here, by one store each
		r.table.Store(tables[i])
	}
	s.openDoors(ctx, inherited)
	s.persist()
}

// newTables makes all tables of c, and marks what c no longer has.
func (s *server) newTables(c Config, routes map[RouteID]*route) []*table {
	now := time.Now()
	backends, counters := map[string]*backend{}, map[counterKey]bool{}
	tables := make([]*table, len(c.Routes))
	for i, rc := range c.Routes {
		groups := make([]*group, len(rc.Groups))
		for j, gc := range rc.Groups {
			key := counterKey{rc.ID, gc.Workload}
			counters[key] = true
			g := &group{counter: s.counter(key), percent: gc.Percent}
			g.counter.release, g.counter.version, g.counter.gone = gc.Release, gc.Version, time.Time{}
			for _, bc := range gc.Backends {
				b := s.backends[bc.ID]
				if b == nil || b.address != bc.Address {
					b = &backend{id: bc.ID, address: bc.Address, key: key, transport: newTransport(s.limits)}
				}
				backends[bc.ID] = b
				g.backends = append(g.backends, b)
			}
			groups[j] = g
		}
		tables[i] = newTable(groups, routes[rc.ID].table.Load())
	}
	for id, b := range s.backends {
		if backends[id] != b {
			b.transport.CloseIdleConnections()
			b.plain.prune(now, true)
			s.removed = append(s.removed, b)
		}
	}
	s.backends = backends
	for key, c := range s.counters {
		if !counters[key] && c.gone.IsZero() {
			c.gone = now
		}
	}
	for id, r := range s.routes {
		if routes[id] == nil {
			r.table.Store(newTable(nil, nil))
		}
	}
	return tables
}

// counter returns the counter of key, a new one if need be. One that comes
// back after it was dropped begins at zero and so has an epoch of its own.
func (s *server) counter(key counterKey) *counter {
	c := s.counters[key]
	if c == nil {
		c = &counter{key: key, epoch: s.epoch}
		if s.dropped > 0 {
			c.epoch += "." + strconv.Itoa(s.dropped)
		}
		s.counters[key] = c
	}
	return c
}

// shutDoors closes the doors of routes that are gone or moved, before others
// may open them.
func (s *server) shutDoors(c Config, routes map[RouteID]*route) {
	for id, r := range s.routes {
		i := slices.IndexFunc(c.Routes, func(rc Route) bool { return rc.ID == id })
		if i >= 0 && r.door != nil && r.door.requested == c.Routes[i].Listen {
			continue
		}
		if r.door != nil {
			r.door.shut(time.Now())
			s.retired = append(s.retired, r.door)
			r.door = nil
		}
		if routes[id] == nil {
			delete(s.ports, id)
		}
	}
}

// openDoors listens for every route that does not yet.
func (s *server) openDoors(ctx context.Context, inherited map[RouteID]*net.TCPListener) {
	for i, r := range s.order {
		if r.door != nil {
			continue
		}
		requested := s.config.Routes[i].Listen
		l := inherited[r.id]
		if l == nil {
			var err error
			if l, err = openDoor(ctx, r.id, requested, s.ports[r.id]); err != nil {
				problem := listenReason(requested, err)
				if problem != r.problem {
					s.log.Warn("A route cannot listen.", "route", r.id.String(), "reason", problem)
				}
				r.problem = problem
				continue
			}
		}
		r.problem, s.dirty = "", true
		r.door = s.newDoor(r, requested, l)
		s.ports[r.id] = r.door.address
	}
}

// persist saves the configuration if it differs from what was saved. A disk
// that is full does not keep weights from changing, since a rollback must go
// through; the status says so, and housekeeping tries again.
func (s *server) persist() {
	if !s.dirty {
		return
	}
	doc := saved{Format: savedFormat, Config: s.config}
	for _, r := range s.order {
		if address := s.ports[r.id]; address != "" {
			doc.Ports = append(doc.Ports, alloc{r.id, address})
		}
	}
	b, err := json.Marshal(doc)
	if err == nil && bytes.Equal(b, s.stored) {
		s.dirty, s.unsaved = false, ""
		return
	}
	if err == nil {
		err = save(s.dir, b)
	}
	if err != nil {
		if s.unsaved == "" {
			s.log.Error("The proxy's configuration is served but could not be saved; trying again.", "error", err)
		}
		s.unsaved = "The configuration is served but could not be saved (" + err.Error() + "): after a crash of the proxy the one before would be served until the supervisor sends it again."
		return
	}
	s.dirty, s.stored, s.unsaved = false, b, ""
}

// keepHouse does what is due: it tries again what failed, closes connections
// that nobody uses, and drops what has been gone for long.
func (s *server) keepHouse(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving.Load() {
		return
	}
	s.openDoors(ctx, nil)
	s.persist()
	now := time.Now()
	s.retired = slices.DeleteFunc(s.retired, func(d *door) bool {
		if now.Sub(d.closedAt) >= s.limits.Linger {
			d.closeIdle()
		}
		return d.conns.Load() == 0
	})
	for _, b := range s.backends {
		b.plain.prune(now, false)
	}
	s.removed = slices.DeleteFunc(s.removed, func(b *backend) bool {
		b.transport.CloseIdleConnections()
		b.plain.prune(now, true)
		return b.inFlight.Load() == 0
	})
	s.dropCounters(now)
}

// maxGone is how many workloads that left the configuration are counted at
// most, so that a release that is deployed again and again under new names
// cannot grow the metrics without end.
const maxGone = 1000

// dropCounters forgets the counts of workloads that have been gone for
// Limits.Gone, and of the longest gone beyond maxGone.
func (s *server) dropCounters(now time.Time) {
	var gone []*counter
	for _, c := range s.counters {
		if !c.gone.IsZero() && c.inFlight.Load() == 0 {
			gone = append(gone, c)
		}
	}
	slices.SortFunc(gone, func(a, b *counter) int { return a.gone.Compare(b.gone) })
	for i, c := range gone {
		if now.Sub(c.gone) < s.limits.Gone && len(gone)-i <= maxGone {
			break
		}
		delete(s.counters, c.key)
		s.dropped++
	}
}

// inFlight returns the requests under way at a backend, here and in a
// predecessor, and whether it is still configured.
func (s *server) inFlight(id string) (n int64, configured bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = s.earlier[id]
	for _, b := range s.removed {
		if b.id == id {
			n += b.inFlight.Load()
		}
	}
	_, configured = s.backends[id]
	return n, configured
}

// allUnderWay returns the requests under way here and in a predecessor, by
// backend. mu must be held.
func (s *server) allUnderWay() map[string]int64 {
	all, _ := s.underWayLocked()
	for id, n := range s.earlier {
		all[id] += n
	}
	return all
}

// underWay returns all requests under way here, by backend.
func (s *server) underWay() (byBackend map[string]int64, total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.underWayLocked()
}

func (s *server) underWayLocked() (byBackend map[string]int64, total int64) {
	byBackend = map[string]int64{}
	add := func(b *backend) {
		if n := b.inFlight.Load(); n > 0 {
			byBackend[b.id] += n
			total += n
		}
	}
	for _, b := range s.backends {
		add(b)
	}
	for _, b := range s.removed {
		add(b)
	}
	return byBackend, total
}

// tallies returns all counts, in a fixed order.
func (s *server) tallies() []tally {
	all := make([]tally, 0, len(s.counters))
	for _, c := range s.counters {
		all = append(all, c.tally())
	}
	slices.SortFunc(all, func(a, b tally) int {
		if a.Key.Route != b.Key.Route {
			if a.Key.Route.String() < b.Key.Route.String() {
				return -1
			}
			return 1
		}
		if a.Key.Workload < b.Key.Workload {
			return -1
		}
		return 1
	})
	return all
}

// serves returns an error of [delivery.CodeUnavailable] once this process is
// leaving: what is asked of it is its successor's to answer.
func (s *server) serves() error {
	if s.leaving.Load() {
		return delivery.Errorf(delivery.CodeUnavailable, "The proxy is being exchanged: ask again in a moment.")
	}
	return nil
}
