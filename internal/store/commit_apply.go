package store

import (
	"encoding/json"
	"errors"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate-cd/tidegate/internal/audit"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// idempotencyKept is how long the answer to a request is remembered.
const idempotencyKept = 7 * 24 * time.Hour

// applier writes one change in one transaction.
type applier struct {
	tables
	change    *prepared
	now       int64
	row       placementRow // of the turn
	due       bool         // somebody may want to be woken
	committed Committed
}

func (a *applier) apply() error {
	for _, step := range []func() error{
		a.preconditions,
		a.putPlans, a.putObjects, a.addReleases, a.addDecisions, a.putAccess, // what a turn may refer to
		a.turn, a.putDeployments, a.putInventory,
		a.addCommands, a.addResults, a.putReports, // after the turn: it has not seen them
		a.addEvents,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) preconditions() error {
	c := a.change
	if c.Lease != nil {
		row, err := leased(a.tables, *c.Lease, a.now)
		if err != nil {
			return err
		}
		a.row = row
	}
	if c.Placement != nil && c.Version != a.row.version {
		return delivery.Errorf(delivery.CodeConflict, "%s is at version %d, not %d: read it again.", c.Placement.Key, a.row.version, c.Version)
	}
	for _, e := range c.Expect {
		row, ok, err := a.object(objectKey{e.Kind, e.Project, e.Name})
		if err != nil {
			return err
		}
		if revision := row.current(ok); revision != e.Revision {
			return delivery.Errorf(delivery.CodeConflict, "%s %q is at revision %d, not %d: what was decided from it must be decided again.", e.Kind, e.Name, revision, e.Revision)
		}
	}
	return a.checkIdempotency()
}

func (a *applier) checkIdempotency() error {
	i := a.change.Idempotency
	if i == nil {
		return nil
	}
	before, ok, err := a.remembered(i.Key)
	switch {
	case err != nil:
		return err
	case ok && before.request != i.Request:
		return delivery.Errorf(delivery.CodeConflict, "This idempotency key was used for another request; use a new key.")
	case ok:
		return delivery.Errorf(delivery.CodeConflict, "This request was already done; ask again with the same idempotency key for its answer.")
	}
	response, err := json.Marshal(i.Response)
	if err != nil {
		return delivery.Wrap(delivery.CodeInvalid, err, "The answer to remember is not JSON.")
	}
	row := idempotencyRow{key: i.Key, request: i.Request, response: response, at: i.At.UnixMicro()}
	return a.remember(row, a.now-idempotencyKept.Microseconds())
}

// turn writes the placement's state and its wake-up. A placement for which
// something still waits stays due, whatever the turn asked for.
func (a *applier) turn() error {
	c, r := a.change, &a.row
	if c.Placement == nil {
		return nil
	}
	for _, id := range c.ConsumedCommands {
		if err := a.consumeCommand(id, r.key); err != nil {
			return err
		}
	}
	for _, k := range c.ConsumedResults {
		if err := a.consumeResult(k, r.key); err != nil {
			return err
		}
	}
	for i, e := range c.Effects {
		added, err := a.addEffect(e.Key, r.key, e.Target, a.change.effects[i])
		if err != nil {
			return err
		}
		if !added {
			return internalError(errors.New("the key is taken"), "effect %s", e.Key)
		}
		a.due = true
	}
	if len(c.Turn) > 0 {
		if err := a.addTurn(c.turnOf, c.Turn); err != nil {
			return err
		}
	}
	waiting, err := a.waiting(r.key)
	if err != nil {
		return err
	}
	r.format, r.version = int64(c.Placement.Format), r.version+1
	r.activePlan, r.fromPlan = "", ""
	if d := c.Placement.Active; d != nil {
		r.activePlan = d.Plan
		if d.From != nil {
			r.fromPlan = d.From.Plan
		}
	}
	r.wake = microsUp(c.Wake)
	r.due = r.wake
	if waiting || r.arrivals > r.seen {
		r.due = min(r.due, a.now)
	}
	a.due = a.due || r.due != never
	a.committed.Version = r.version
	if err := a.putPlacement(*r); err != nil {
		return err
	}
	return a.putState(r.key, c.placement)
}

func (a *applier) addCommands() error {
	for i, x := range a.change.Commands {
		added, err := a.addCommand(x.ID, x.Key, a.change.commands[i])
		if err != nil {
			return err
		}
		if !added {
			continue
		}
		if err := a.arrive(x.Key); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) addResults() error {
	for i, r := range a.change.Results {
		key, set, err := a.setResult(r.Key, a.change.results[i])
		if err != nil {
			return err
		}
		if !set {
			continue
		}
		if err := a.arrive(key); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) arrive(key delivery.PlacementKey) error {
	row, ok, err := a.placement(key)
	if err != nil {
		return err
	}
	if !ok {
		row = newPlacementRow(key)
	}
	row.arrive(a.now)
	a.due = true
	return a.putPlacement(row)
}

func (a *applier) putReports() error {
	for i, r := range a.change.Reports {
		if err := a.putReport(r.Target, a.change.reports[i]); err != nil {
			return err
		}
		arrived, err := a.arriveOnTarget(r.Target, a.now)
		if err != nil {
			return err
		}
		a.due = a.due || arrived
	}
	return nil
}

// addEvents gives the events their places in the log and extends the tree.
func (a *applier) addEvents() error {
	if len(a.change.payloads) == 0 {
		return nil
	}
	n, err := a.auditSize()
	if err != nil {
		return err
	}
	a.committed.FirstAudit = n
	for i, payload := range a.change.payloads {
		entry, err := audit.NewEntry(n, payload, a.change.salts[i])
		if err != nil {
			return internalError(err, "audit entry %d", n)
		}
		hashes, err := audit.Hashes(n, entry.Leaf, tlog.HashReaderFunc(a.treeHashes))
		if err != nil {
			return internalError(err, "audit tree at %d", n)
		}
		if err := a.addAudit(entry); err != nil {
			return err
		}
		stored := make([][32]byte, len(hashes))
		for j, h := range hashes {
			stored[j] = h
		}
		if err := a.addHashes(tlog.StoredHashCount(n), stored); err != nil {
			return err
		}
		n++
	}
	return nil
}

func (a *applier) treeHashes(indexes []int64) ([]tlog.Hash, error) {
	if len(indexes) == 0 {
		return nil, nil
	}
	stored, err := a.hashes(indexes)
	if err != nil {
		return nil, err
	}
	hashes := make([]tlog.Hash, len(stored))
	for i, h := range stored {
		hashes[i] = h
	}
	return hashes, nil
}
