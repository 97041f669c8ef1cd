package delivery

import "time"

// Report is what a target says of itself: all that runs there for Tidegate.
// It replaces the target's earlier report.
type Report struct {
	Target   string          `json:"target"`
	At       time.Time       `json:"at"`
	Services []ServiceStatus `json:"services,omitempty"`
	Tasks    []TaskStatus    `json:"tasks,omitempty"`
}

// ServiceStatus is one service of one placement on a target.
type ServiceStatus struct {
	Placement PlacementKey     `json:"placement"`
	Service   string           `json:"service"`
	Listen    string           `json:"listen,omitempty"` // where its requests come in
	Weights   []Weight         `json:"weights,omitempty"`
	Workloads []WorkloadStatus `json:"workloads,omitempty"`
}

// WorkloadStatus is one workload of a service on a target.
type WorkloadStatus struct {
	Workload Digest `json:"workload"`
	Release  Digest `json:"release"`
	Version  string `json:"version"`
	Wanted   int    `json:"wanted"`             // instances that shall run
	Ready    int    `json:"ready"`              // instances that may get traffic
	Restarts int    `json:"restarts,omitempty"` // of all its instances
	Failed   bool   `json:"failed,omitempty"`   // it will not become ready by itself
	Message  string `json:"message,omitempty"`  // why not ready, with the last line of its log
	Counts   Counts `json:"counts"`
}

// Counts are cumulative since Epoch; a new Epoch means the counter began again at zero.
type Counts struct {
	Epoch    string `json:"epoch,omitempty"`
	Requests int64  `json:"requests"`
	Errors   int64  `json:"errors"` // answered with 500 to 599, or not at all
}

// TaskStatus is a command task on a target.
type TaskStatus struct {
	Key     EffectKey `json:"key"`
	Done    bool      `json:"done"`
	OK      bool      `json:"ok,omitempty"`
	Message string    `json:"message,omitempty"` // exit status and the last lines of output
}

// Service returns the status of a placement's service, nil if it has none.
func (r Report) Service(key PlacementKey, service string) *ServiceStatus {
	for i := range r.Services {
		if s := &r.Services[i]; s.Placement == key && s.Service == service {
			return s
		}
	}
	return nil
}

// Workload returns the status of a workload, nil if it is not there.
func (s *ServiceStatus) Workload(digest Digest) *WorkloadStatus {
	if s == nil {
		return nil
	}
	for i := range s.Workloads {
		if s.Workloads[i].Workload == digest {
			return &s.Workloads[i]
		}
	}
	return nil
}

// Percent returns the share of a workload; ok is false if the router does not know it.
func (s *ServiceStatus) Percent(workload Digest) (percent int, ok bool) {
	if s == nil {
		return 0, false
	}
	for _, w := range s.Weights {
		if w.Workload == workload {
			return w.Percent, true
		}
	}
	return 0, false
}

// Sample is one look at both arms of a rollout; the counts are cumulative.
type Sample struct {
	At        time.Time `json:"at"`
	Candidate Counts    `json:"candidate"`
	Stable    Counts    `json:"stable"`
}
