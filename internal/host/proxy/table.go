package proxy

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// slots is how many requests one turn of a schedule has: one for each percent.
const slots = 100

// table is what a route serves by: immutable, and replaced as a whole by one
// atomic store, so that a request sees either all old weights or all new ones.
type table struct {
	groups   []*group
	schedule *[slots]uint8  // index of the group for each request of a turn; nil when all percents are 0
	cursor   *atomic.Uint64 // requests taken; goes on over a change that leaves the weights as they are
}

// group is one workload of a table.
type group struct {
	counter  *counter
	percent  int
	backends []*backend
	turn     atomic.Uint32
}

// backend is one instance. It is kept over configuration changes as long as its
// id and address stay.
type backend struct {
	id, address string
	key         counterKey
	transport   *http.Transport
	plain       upstreams
	inFlight    atomic.Int64
	down        atomic.Int64 // server time in nanoseconds until which others of its group are preferred
	failure     atomic.Pointer[string]
}

// schedule spreads the groups over one turn by smooth weighted round robin:
// every turn, and so every run of 100 requests, has each group exactly percent
// times, and no group's requests come in a row when they need not. The
// algorithm is nginx's (commit 52327e0, "Upstream: smooth weighted
// round-robin balancing").
func schedule(percents []int) *[slots]uint8 {
	total := 0
	for _, p := range percents {
		total += p
	}
	if total != slots {
		return nil
	}
	var turn [slots]uint8
	current := make([]int, len(percents))
	for s := range turn {
		best := -1
		for i, p := range percents {
			current[i] += p
			if p > 0 && (best < 0 || current[i] > current[best]) {
				best = i
			}
		}
		current[best] -= slots
		turn[s] = uint8(best)
	}
	return &turn
}

// newTable makes the table for groups. When the weights are those of the table
// before, its cursor goes on, so that a change of backends in the middle of a
// turn leaves the turn exact.
func newTable(groups []*group, before *table) *table {
	t := &table{groups: groups, cursor: new(atomic.Uint64)}
	percents := make([]int, len(groups))
	for i, g := range groups {
		percents[i] = g.percent
	}
	t.schedule = schedule(percents)
	if before != nil && sameWeights(t.groups, before.groups) {
		t.cursor = before.cursor
	}
	return t
}

func sameWeights(a, b []*group) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].counter.key.Workload != b[i].counter.key.Workload || a[i].percent != b[i].percent {
			return false
		}
	}
	return true
}

// choose returns the group that request n is meant for and the one that takes
// it: the same, unless the first has no backend and another one with a percent
// has. The backend is nil when nobody can take it; meant is nil when the route
// has no weights at all. now is server time in nanoseconds.
func (t *table) choose(n uint64, now int64) (meant, taker *group, b *backend) {
	if t.schedule == nil {
		return nil, nil, nil
	}
	for i := range uint64(slots) {
		g := t.groups[t.schedule[(n+i)%slots]]
		if i == 0 {
			meant = g
		}
		if b := g.pick(nil, now); b != nil {
			return meant, g, b
		}
	}
	return meant, nil, nil
}

// pick returns the next backend in turn other than not, before all one that
// could be reached lately. It is nil when there is none.
func (g *group) pick(not *backend, now int64) *backend {
	n := uint32(len(g.backends))
	if n == 0 {
		return nil
	}
	first := g.turn.Add(1)
	var second *backend
	for i := range n {
		b := g.backends[(first+i)%n]
		if b == not {
			continue
		}
		if b.down.Load() <= now {
			return b
		}
		if second == nil {
			second = b
		}
	}
	return second
}

// find returns the group of a workload, nil if the table has none.
func (t *table) find(workload delivery.Digest) *group {
	for _, g := range t.groups {
		if g.counter.key.Workload == workload {
			return g
		}
	}
	return nil
}

// unreachable notes that a connection could not be made: for a while, requests
// go to others of the group where there are any.
func (b *backend) unreachable(now int64, err error) {
	b.down.Store(now + int64(time.Second))
	text := err.Error()
	b.failure.Store(&text)
}
