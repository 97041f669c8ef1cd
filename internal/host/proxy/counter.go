package proxy

import (
	"sort"
	"sync/atomic"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// latencyBounds are the upper ends of the latency histogram, in seconds. They
// are fixed so that counts of several hosts and of a process and its successor
// can be added.
var latencyBounds = [...]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

var latencyBoundsNano = func() (nanos [len(latencyBounds)]int64) {
	for i, seconds := range latencyBounds {
		nanos[i] = int64(seconds * 1e9)
	}
	return nanos
}()

// classes are the code_class labels of a counter, by index of counter.classes.
var classes = [...]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

// counterKey names what is counted apart.
type counterKey struct {
	Route    RouteID         `json:"route"`
	Workload delivery.Digest `json:"workload"`
}

// counter counts one workload's requests on one route. Its methods take no
// lock; its fields other than the atomic ones are written under server.mu.
type counter struct {
	key     counterKey
	release delivery.Digest
	version string
	epoch   string
	gone    time.Time // when it left the configuration; zero while it is in it

	inFlight  atomic.Int64
	requests  atomic.Int64
	errors    atomic.Int64
	cancelled atomic.Int64
	diverted  atomic.Int64
	retried   atomic.Int64
	broken    atomic.Int64
	sum       atomic.Int64 // nanoseconds
	classes   [len(classes)]atomic.Int64
	buckets   [len(latencyBounds) + 1]atomic.Int64 // not cumulative

	base atomic.Pointer[tally] // what a predecessor process counted
}

// tally is a counter's state as plain numbers: in a status, on /metrics, and on
// the way to a successor process.
type tally struct {
	Key       counterKey                    `json:"key"`
	Release   delivery.Digest               `json:"release"`
	Version   string                        `json:"version"`
	Epoch     string                        `json:"epoch"`
	Gone      time.Time                     `json:"gone,omitzero"`
	InFlight  int64                         `json:"inFlight"`
	Requests  int64                         `json:"requests"`
	Errors    int64                         `json:"errors"`
	Cancelled int64                         `json:"cancelled"`
	Diverted  int64                         `json:"diverted"`
	Retried   int64                         `json:"retried"`
	Broken    int64                         `json:"broken"`
	Sum       int64                         `json:"sum"` // nanoseconds
	Classes   [len(classes)]int64           `json:"classes"`
	Buckets   [len(latencyBounds) + 1]int64 `json:"buckets"` // not cumulative
}

// count notes one request and its outcome. Requests rise before errors, and
// tally reads them the other way round, so that errors never exceed requests.
func (c *counter) count(status int, took time.Duration) {
	c.requests.Add(1)
	class := 0
	if status >= 100 && status < 600 {
		class = status / 100
	}
	if class == 5 {
		c.errors.Add(1)
	}
	c.classes[class].Add(1)
	c.sum.Add(int64(took))
	c.buckets[bucket(int64(took))].Add(1)
}

// bucket returns the index of the first bound that is at least nanos.
func bucket(nanos int64) int {
	return sort.Search(len(latencyBoundsNano), func(i int) bool { return latencyBoundsNano[i] >= nanos })
}

// tally returns the counts, those of predecessor processes with them.
func (c *counter) tally() tally {
	t := tally{
		Key: c.key, Release: c.release, Version: c.version, Epoch: c.epoch, Gone: c.gone, Errors: c.errors.Load(),
		InFlight: c.inFlight.Load(), Cancelled: c.cancelled.Load(), Diverted: c.diverted.Load(),
		Retried: c.retried.Load(), Broken: c.broken.Load(), Sum: c.sum.Load(),
	}
	t.Requests = c.requests.Load()
	for i := range c.classes {
		t.Classes[i] = c.classes[i].Load()
	}
	for i := range c.buckets {
		t.Buckets[i] = c.buckets[i].Load()
	}
	if base := c.base.Load(); base != nil {
		t.add(*base)
	}
	return t
}

// add adds the numbers of another tally.
func (t *tally) add(o tally) {
	t.InFlight += o.InFlight
	t.Requests += o.Requests
	t.Errors += o.Errors
	t.Cancelled += o.Cancelled
	t.Diverted += o.Diverted
	t.Retried += o.Retried
	t.Broken += o.Broken
	t.Sum += o.Sum
	for i := range t.Classes {
		t.Classes[i] += o.Classes[i]
	}
	for i := range t.Buckets {
		t.Buckets[i] += o.Buckets[i]
	}
}

// latency returns the histogram in its published, cumulative form.
func (t tally) latency() Latency {
	l := Latency{Bounds: latencyBounds[:], Buckets: make([]int64, len(t.Buckets)), Sum: float64(t.Sum) / 1e9}
	sum := int64(0)
	for i, n := range t.Buckets {
		sum += n
		l.Buckets[i] = sum
	}
	return l
}

func (t tally) counts() delivery.Counts {
	return delivery.Counts{Epoch: t.Epoch, Requests: t.Requests, Errors: t.Errors}
}
