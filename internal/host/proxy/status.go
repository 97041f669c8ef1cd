package proxy

import (
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Status is what a proxy says of itself.
type Status struct {
	Epoch    string        `json:"epoch"`             // of the counts; another one means that they began at zero. It survives a handover
	PID      int           `json:"pid"`               // of the serving process
	Started  time.Time     `json:"started"`           // of the serving process
	Revision int64         `json:"revision"`          // of the configuration that is served
	Routes   []RouteStatus `json:"routes,omitempty"`  // in the configuration's order
	Unsaved  string        `json:"unsaved,omitempty"` // why the configuration could not be saved for a restart; "" when it was
}

// RouteStatus is one route as it is served now.
type RouteStatus struct {
	ID       RouteID       `json:"id"`
	Listen   string        `json:"listen,omitempty"` // the address that accepts requests; "" while it cannot be had
	Error    string        `json:"error,omitempty"`  // why it does not listen; it keeps trying
	Groups   []GroupStatus `json:"groups,omitempty"` // of the configuration, then those that left it not long ago
	Unserved int64         `json:"unserved"`         // requests that no group could take, answered with 503
}

// GroupStatus is one workload of a route.
type GroupStatus struct {
	Workload  delivery.Digest `json:"workload"`
	Release   delivery.Digest `json:"release"`
	Version   string          `json:"version"`
	Percent   int             `json:"percent"`
	Gone      bool            `json:"gone,omitempty"` // no longer in the configuration
	Counts    delivery.Counts `json:"counts"`
	Cancelled int64           `json:"cancelled"` // clients that left before an answer; in neither of Counts
	Diverted  int64           `json:"diverted"`  // requests meant for it that another group took, because it had no backend
	Retried   int64           `json:"retried"`   // requests tried again on a second backend, because the first could not be reached
	Latency   Latency         `json:"latency"`
	Backends  []BackendStatus `json:"backends,omitempty"` // configured ones, and removed ones with requests under way
}

// Latency is a histogram of the time from a request's head to the end of its
// answer, or to the first byte of an answer of unknown length (streams,
// WebSocket). Buckets[i] counts those of at most Bounds[i]; the last counts all.
type Latency struct {
	Bounds  []float64 `json:"bounds"`  // seconds, rising
	Buckets []int64   `json:"buckets"` // cumulative; one more than Bounds
	Sum     float64   `json:"sum"`     // seconds
}

// BackendStatus is one instance.
type BackendStatus struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	InFlight int64  `json:"inFlight"` // requests under way
	Removed  bool   `json:"removed,omitempty"`
	Error    string `json:"error,omitempty"` // why it could not be reached the last time it was tried
}

// Route returns the status of a route, nil if it is not configured.
func (s Status) Route(id RouteID) *RouteStatus {
	for i := range s.Routes {
		if s.Routes[i].ID == id {
			return &s.Routes[i]
		}
	}
	return nil
}

// Group returns the status of a workload, nil if the route does not know it.
func (r *RouteStatus) Group(workload delivery.Digest) *GroupStatus {
	if r == nil {
		return nil
	}
	for i := range r.Groups {
		if r.Groups[i].Workload == workload {
			return &r.Groups[i]
		}
	}
	return nil
}

// Weights returns the shares as they are applied, in the form of a report.
func (r *RouteStatus) Weights() []delivery.Weight {
	if r == nil {
		return nil
	}
	var weights []delivery.Weight
	for _, g := range r.Groups {
		if !g.Gone {
			weights = append(weights, delivery.Weight{Workload: g.Workload, Percent: g.Percent})
		}
	}
	return weights
}
