// Package runner makes placements go on: it claims those that are due, reads
// the facts, lets engine.Step decide, commits what it decided, and performs the
// effects that this process can perform itself. Effects of hosts are fetched by
// the hosts (internal/remote).
//
// It decides nothing. Every effect is an intent in the store before it is done,
// so that whoever comes next can do it again with the same key.
//
// Start reading at [Runner.Advance].
package runner

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/engine"
	"github.com/tidegate-cd/tidegate/internal/facts"
	"github.com/tidegate-cd/tidegate/internal/store"
	"github.com/tidegate-cd/tidegate/internal/target"
)

const (
	leaseTime    = 30 * time.Second // a turn takes milliseconds; a dead server's placements wait this long
	maxTurns     = 64               // of one placement before others have theirs
	maxAtOnce    = 16               // placements under way
	perTarget    = 8                // effects under way at one target
	sweep        = time.Second      // the net under the wake-ups
	firstBackOff = time.Second
	lastBackOff  = time.Minute
)

// Facts reads observations; see internal/facts.
type Facts interface {
	Observe(ctx context.Context, rec store.Record, now time.Time) (engine.Observation, facts.Basis, error)
}

// Options says what a runner works with.
type Options struct {
	Store   store.Store
	Facts   Facts
	Targets map[string]target.Target // that this process reaches itself
	Calls   Caller                   // performs HTTP tasks
	Holder  string                   // name of this process in leases, unique
	NewID   func() delivery.ID
	Log     *slog.Logger
	Inline  bool // perform effects within Advance, one after the other: for virtual time
}

// Caller performs an HTTP task within 30 s.
type Caller interface {
	Call(ctx context.Context, e delivery.Effect) delivery.Result
}

// Runner drives placements. Advance and Run are safe for concurrent use.
type Runner struct {
	o        Options
	mu       sync.Mutex
	inFlight map[delivery.EffectKey]bool
	bulkhead map[string]chan struct{} // by target
	failures map[delivery.PlacementKey]failure
	work     sync.WaitGroup
}

// failure is how often a placement's turn failed in a row.
type failure struct {
	times int
	until time.Time
}

// New returns a runner. It does nothing until Run or Advance is called.
func New(o Options) *Runner {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Runner{o: o, inFlight: map[delivery.EffectKey]bool{}, bulkhead: map[string]chan struct{}{}, failures: map[delivery.PlacementKey]failure{}}
}

// Advance takes turns with a claimed placement until it waits for something
// new. It starts no timer. An error of code conflict means that the lease was
// lost or a fact changed: whoever claims it next reads again.
func (r *Runner) Advance(ctx context.Context, lease store.Lease) error {
	for range maxTurns {
		again, err := r.turn(ctx, lease)
		if delivery.ErrorCode(err) == delivery.CodeConflict {
			if lease, err = r.o.Store.Renew(ctx, lease, leaseTime); err != nil {
				return err // the lease is lost: somebody else goes on
			}
			continue
		}
		if err != nil || !again {
			return err
		}
	}
	return nil
}

// turn performs what is pending here, observes, decides and commits once.
func (r *Runner) turn(ctx context.Context, lease store.Lease) (again bool, err error) {
	rec, err := r.o.Store.Placement(ctx, lease.Key)
	if err != nil {
		return false, err
	}
	if done, err := r.perform(ctx, rec.Pending); done || err != nil {
		return true, err // results came: read again
	}
	now, err := r.o.Store.Now(ctx)
	if err != nil {
		return false, err
	}
	rec.Placement.Key = lease.Key
	o, basis, err := r.o.Facts.Observe(ctx, rec, now)
	if err != nil {
		return false, err
	}
	next, turn := engine.Step(rec.Placement, o)
	c := r.change(lease, rec, o, basis, next, turn)
	if _, err := r.o.Store.Commit(ctx, c); err != nil {
		return false, err
	}
	for _, e := range turn.Events {
		r.o.Log.Info("event", "type", e.Type, "placement", lease.Key.String(), "deployment", e.Deployment, "message", e.Message)
	}
	return turn.Again || slices.ContainsFunc(turn.Effects, r.mine), nil
}

// change is everything that one turn writes.
func (r *Runner) change(lease store.Lease, rec store.Record, o engine.Observation, basis facts.Basis, next delivery.Placement, turn engine.Turn) store.Change {
	c := store.Change{
		Lease: &lease, Expect: basis.Expect, Placement: &next, Version: rec.Version, Wake: turn.Wake,
		Effects: turn.Effects, Plans: basis.Plans, Decisions: basis.Decisions, Inventory: turn.Inventory,
		Deployments: append([]delivery.Deployment(nil), turn.Finished...),
	}
	if turn.Again || slices.ContainsFunc(turn.Effects, r.mine) {
		c.Wake = o.Now // whoever comes after a crash right here goes on at once
	}
	for _, command := range o.Commands {
		c.ConsumedCommands = append(c.ConsumedCommands, command.ID)
	}
	for _, result := range o.Results {
		c.ConsumedResults = append(c.ConsumedResults, result.Key)
	}
	if next.Active != nil {
		c.Deployments = append(c.Deployments, *next.Active)
	}
	for _, d := range next.Queue {
		c.Deployments = append(c.Deployments, *d)
	}
	for _, e := range turn.Events {
		e.ID = r.o.NewID()
		c.Events = append(c.Events, e)
	}
	for _, d := range basis.Decisions {
		c.Events = append(c.Events, r.decided(d))
	}
	for _, command := range turn.Commands {
		command.ID, command.Deployment = r.o.NewID(), r.o.NewID()
		c.Commands = append(c.Commands, command)
	}
	if len(turn.Events) > 0 || len(turn.Effects) > 0 {
		c.Turn = recorded(o, turn)
	}
	return c
}

func (r *Runner) decided(d delivery.Decision) delivery.Event {
	data, _ := json.Marshal(map[string]any{ // texts cannot fail
		"decision": d.ID, "moment": d.Moment, "outcome": d.Outcome, "input": d.InputDigest, "revision": d.Revision,
	})
	return delivery.Event{
		ID: r.o.NewID(), Type: delivery.EventPolicyDecided, Project: d.Placement.Project, Application: d.Placement.Application,
		Environment: d.Placement.Environment, Actor: delivery.System(), At: d.At, Data: data,
		Message: "Policies at " + string(d.Moment) + ": " + string(d.Outcome) + ".",
	}
}

// recorded is a turn as it is kept for explain.
func recorded(o engine.Observation, turn engine.Turn) json.RawMessage {
	b, err := json.Marshal(map[string]any{"observation": o, "effects": turn.Effects, "events": turn.Events})
	if err != nil || len(b) > 256<<10 {
		return nil // explain then says that it was not kept
	}
	return b
}

// mine reports whether this process performs an effect.
func (r *Runner) mine(e delivery.Effect) bool {
	_, local := r.o.Targets[e.Target]
	return local || e.Target == ""
}
