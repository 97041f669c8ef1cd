package engine

import (
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Observation is everything that Step may know, read by internal/facts at one
// time. What is not in it does not exist for the engine.
type Observation struct {
	Now      time.Time                          `json:"now"`
	Commands []delivery.Command                 `json:"commands,omitempty"` // not consumed yet, oldest first
	Results  []delivery.Result                  `json:"results,omitempty"`  // not consumed yet
	Reports  map[string]delivery.Report         `json:"reports,omitempty"`  // by target; a target that was not heard of is absent
	Samples  map[string]delivery.Sample         `json:"samples,omitempty"`  // by step name, for rollouts with an analysis
	Plans    map[delivery.Digest]*delivery.Plan `json:"-"`                  // of everything that the state names, and of Queued
	Queued   *Queued                            `json:"queued,omitempty"`   // facts of the first queued deployment
	Next     []delivery.PathStep                `json:"next,omitempty"`     // the path's steps after this environment
}

// Queued is what is true now of the first deployment in the queue.
type Queued struct {
	Deployment delivery.ID        `json:"deployment"`
	Plan       *delivery.Plan     `json:"-"`
	PlanDigest delivery.Digest    `json:"plan,omitempty"`
	Verdicts   []delivery.Verdict `json:"verdicts"`        // of every gate
	Error      string             `json:"error,omitempty"` // the plan can't be built: the deployment is denied with this reason
}

// Turn is what one Step wants from the shell, besides storing the new state.
type Turn struct {
	Effects   []delivery.Effect
	Events    []delivery.Event   // Actor, Message and Data are set; the shell adds ID
	Commands  []delivery.Command // for other placements: automatic promotions; the shell adds ID
	Inventory []delivery.InventoryEntry
	Finished  []delivery.Deployment // that ended in this turn
	Wake      time.Time             // when to look again if nothing happens before; zero: no need
	Again     bool                  // the state changed so that another Step at once makes sense
}
