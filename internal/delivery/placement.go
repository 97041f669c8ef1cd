package delivery

import (
	"slices"
	"strings"
	"time"
)

// PlacementKey names one application in one environment.
type PlacementKey struct {
	Project     string `json:"project"`
	Application string `json:"application"`
	Environment string `json:"environment"`
}

// String returns "project/application@environment".
func (k PlacementKey) String() string {
	return k.Project + "/" + k.Application + "@" + k.Environment
}

// ParsePlacementKey reads what [PlacementKey.String] writes.
func ParsePlacementKey(s string) (PlacementKey, error) {
	project, rest, ok := strings.Cut(s, "/")
	application, environment, ok2 := strings.Cut(rest, "@")
	if !ok || !ok2 {
		return PlacementKey{}, Errorf(CodeInvalid, "%q is not a placement: write project/application@environment.", s)
	}
	return PlacementKey{project, application, environment}, nil
}

// PlacementFormat is the version of the stored form of [Placement]. A server
// claims only placements whose format it knows.
const PlacementFormat = 1

// Placement is one application in one environment: the unit that is
// reconciled, and the state that engine.Step works on. Two placements share
// nothing but the database.
type Placement struct {
	Format     int                `json:"format"`
	Key        PlacementKey       `json:"key"`
	Stable     *Good              `json:"stable,omitempty"`  // what runs at 100 %, nil before the first success
	Earlier    []Good             `json:"earlier,omitempty"` // former good plans, newest first: the rollback horizon
	Pin        *Pin               `json:"pin,omitempty"`     // only this release
	Hold       *Hold              `json:"hold,omitempty"`    // no promotion starts
	Quarantine []Quarantine       `json:"quarantine,omitempty"`
	Queue      []*Deployment      `json:"queue,omitempty"`   // not started; the first is next
	Active     *Deployment        `json:"active,omitempty"`  // at most one
	Running    map[string]Running `json:"running,omitempty"` // by step name "service@target": what has the traffic there
	Sequence   int64              `json:"sequence"`          // steps taken, for readers to compare
}

// Running says which plan's rollout has the traffic of a service on a target.
// It differs from Stable while a deployment is under way, and after one that
// took back only a wave.
type Running struct {
	Plan      Digest `json:"plan"`
	Workload  Digest `json:"workload"`
	Instances int    `json:"instances"`
	Listen    string `json:"listen,omitempty"` // as the plan says it
}

// Good is a plan that succeeded in a placement.
type Good struct {
	Plan       Digest    `json:"plan"`
	Release    Digest    `json:"release"`
	Version    string    `json:"version"`
	Deployment ID        `json:"deployment"`
	Since      time.Time `json:"since"` // when it reached 100 %
}

// Pin keeps a placement on a release until a person lets go.
type Pin struct {
	Release Digest    `json:"release"`
	Version string    `json:"version"`
	Reason  string    `json:"reason"`
	Actor   Actor     `json:"actor"`
	At      time.Time `json:"at"`
}

// Hold stops promotions to a placement. One with Until ends by itself.
type Hold struct {
	Reason string    `json:"reason"`
	Actor  Actor     `json:"actor"`
	At     time.Time `json:"at"`
	Until  time.Time `json:"until,omitzero"`
}

// Quarantine refuses a plan in a placement, and its release in the
// environments after it. With Plan empty the whole release is refused.
type Quarantine struct {
	Plan       Digest    `json:"plan,omitempty"`
	Release    Digest    `json:"release"`
	Version    string    `json:"version"`
	Deployment ID        `json:"deployment,omitempty"`
	Reason     string    `json:"reason"`
	Actor      Actor     `json:"actor"`
	At         time.Time `json:"at"`
}

// Quarantined returns the entry that refuses plan, or the whole release.
func (p Placement) Quarantined(plan, release Digest) (Quarantine, bool) {
	i := slices.IndexFunc(p.Quarantine, func(q Quarantine) bool {
		return q.Release == release && (q.Plan == "" || q.Plan == plan)
	})
	if i < 0 {
		return Quarantine{}, false
	}
	return p.Quarantine[i], true
}

// Find returns the deployment with that id if it is queued or active.
func (p Placement) Find(id ID) *Deployment {
	if p.Active != nil && p.Active.ID == id {
		return p.Active
	}
	for _, d := range p.Queue {
		if d.ID == id {
			return d
		}
	}
	return nil
}

// HorizonDefault is how many former good plans a placement remembers.
const HorizonDefault = 5
