package store

import (
	"context"
	"math"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// backend keeps rows. It knows nothing of what they mean: all meaning is in
// core, which both stores share.
type backend interface {
	// view runs fn on one consistent state.
	view(ctx context.Context, fn func(t tables) error) error
	// update runs fn in one transaction, alone. When fn fails, nothing that it
	// wrote stays. It is durable when update returns nil. Updates may share a
	// disk write.
	update(ctx context.Context, fn func(t tables) error) error
	close() error
}

// tables is the rows as one transaction sees them. A doc is JSON. A get returns
// a nil doc, or false, for what is not there. Times are microseconds since 1970
// UTC, or never.
type tables interface {
	placement(key delivery.PlacementKey) (placementRow, bool, error)
	putPlacement(r placementRow) error
	state(key delivery.PlacementKey) ([]byte, error)
	putState(key delivery.PlacementKey, doc []byte) error
	placements(project string, after delivery.PlacementKey, limit int) ([]stateRow, error) // by key; project "": all
	duePlacements(now int64, format int64, max int) ([]placementRow, error)                // due and not leased, longest due first
	nextDue(format int64) (int64, error)                                                   // first time at which one could be claimed
	arriveOnTarget(target string, now int64) (bool, error)                                 // see placementRow.arrive
	waiting(key delivery.PlacementKey) (bool, error)                                       // commands or results not consumed

	addCommand(id delivery.ID, key delivery.PlacementKey, doc []byte) (added bool, err error)
	commands(key delivery.PlacementKey) ([][]byte, error) // not consumed, in order of arrival
	consumeCommand(id delivery.ID, key delivery.PlacementKey) error

	addEffect(k delivery.EffectKey, key delivery.PlacementKey, target string, doc []byte) (added bool, err error)
	setResult(k delivery.EffectKey, doc []byte) (key delivery.PlacementKey, set bool, err error) // only the first
	consumeResult(k delivery.EffectKey, key delivery.PlacementKey) error
	results(key delivery.PlacementKey) ([][]byte, error)       // not consumed, in order of arrival
	pending(key delivery.PlacementKey) ([]effectRow, error)    // without result, in order of commit
	pendingOnTarget(target string) (rows []effectRow, _ error) // without result, in order of commit

	addTurn(deployments []delivery.ID, doc []byte) error
	turns(id delivery.ID) ([][]byte, error)

	addPlan(d delivery.Digest, doc []byte, targets []string) error
	plan(d delivery.Digest) ([]byte, error)
	putDeployment(r deploymentRow) error
	deployment(id delivery.ID) ([]byte, error)
	deployments(f DeploymentFilter, before int64, limit int) ([]seqDoc, error)

	object(k objectKey) (objectRow, bool, error) // also a deleted one
	putObject(r objectRow, newRevision bool) error
	objectAt(k objectKey, revision int64) ([]byte, error)
	objects(kind delivery.Kind, project string, after objectKey, limit int) ([]objectRow, error) // by project and name, not deleted; project "": all

	addRelease(r releaseRow) error
	release(d delivery.Digest) ([]byte, error)
	releaseByVersion(project, application, version string) (delivery.Digest, []byte, error)
	releases(project, application string, before int64, limit int) ([]seqDoc, error) // "": all

	putReport(target string, doc []byte) error
	report(target string) ([]byte, error)
	reports() ([][]byte, error) // by target

	addDecision(id delivery.ID, project string, input delivery.Digest, doc []byte) error
	addInput(d delivery.Digest, doc []byte) error
	input(d delivery.Digest) ([]byte, error)
	decision(id delivery.ID) ([]byte, error)
	decisions(project string, before int64, limit int) ([]seqDoc, error)

	closeInventory(key delivery.PlacementKey, target, service string, until int64) error
	addInventory(r inventoryRow) error
	inventory(f inventoryQuery, after int64, limit int) ([]inventoryRow, error)

	putToken(id delivery.ID, hash string, doc []byte) error
	token(id delivery.ID) ([]byte, error)
	tokenByHash(hash string) ([]byte, error)
	tokens() ([][]byte, error) // by id
	putHost(name string, doc []byte) error
	host(name string) ([]byte, error)
	hosts() ([][]byte, error) // by name
	remember(r idempotencyRow, forgetBefore int64) error
	remembered(key string) (idempotencyRow, bool, error)

	auditSize() (int64, error)
	addAudit(e AuditEntry) error
	auditEntries(from int64, limit int) ([]AuditEntry, error)
	addHashes(first int64, hashes [][32]byte) error
	hashes(indexes []int64) ([][32]byte, error) // an error if one is missing
}

// placementRow is what claiming needs to know of a placement. Its state stands
// beside it, so that a claim or an arrival does not rewrite it.
type placementRow struct {
	key        delivery.PlacementKey
	format     int64 // of the state; 0 until the first turn
	version    int64
	token      int64
	holder     string
	expires    int64 // of the lease; 0: not leased
	wake       int64 // when the state wants to be looked at; never: only when something arrives
	due        int64 // when it may be claimed
	arrivals   int64 // things that arrived
	seen       int64 // arrivals at the last claim: what came later was perhaps not seen by the turn
	activePlan delivery.Digest
	fromPlan   delivery.Digest // where an abort of the active deployment returns to
}

// arrive notes that something came. What comes while a turn is being made
// keeps the placement due after it.
func (r *placementRow) arrive(now int64) {
	r.arrivals++
	r.due = min(r.due, now)
}

// heedsReport reports whether a report would change the row, so that a report
// a second does not mean a write a second.
func (r *placementRow) heedsReport(now int64) bool {
	return r.activePlan != "" && (r.due > now || r.arrivals == r.seen)
}

func newPlacementRow(key delivery.PlacementKey) placementRow {
	return placementRow{key: key, wake: never, due: never}
}

// stateRow is a placement's state; doc is nil until the first turn.
type stateRow struct {
	key delivery.PlacementKey
	doc []byte
}

type effectRow struct {
	doc   []byte
	token int64 // of the placement, now
}

type deploymentRow struct {
	id       delivery.ID
	key      delivery.PlacementKey
	release  delivery.Digest
	terminal bool
	doc      []byte
}

type objectKey struct {
	kind    delivery.Kind
	project string
	name    string
}

type objectRow struct {
	objectKey
	revision int64 // the last one, also of a deleted object
	deleted  bool
	doc      []byte
}

type releaseRow struct {
	digest                        delivery.Digest
	project, application, version string
	doc                           []byte
}

type inventoryRow struct {
	seq             int64
	key             delivery.PlacementKey
	target, service string
	artifact        delivery.Digest
	since, until    int64 // until is never while it runs
	doc             []byte
}

// inventoryQuery is an [InventoryFilter] with its time decided.
type inventoryQuery struct {
	project, application, environment string
	artifact                          delivery.Digest
	at                                int64 // never: what is open
	history                           bool  // all that began until at
}

type idempotencyRow struct {
	key      string
	request  delivery.Digest
	response []byte
	at       int64
}

type seqDoc struct {
	seq int64
	doc []byte
}

// never is the time of what has none: the greatest, so that comparing needs no
// special case.
const never = math.MaxInt64

// micros rounds down; the zero time is never.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	return t.UnixMicro()
}

// microsUp rounds up, so that nothing is woken before its time.
func microsUp(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	m := t.UnixMicro()
	if t.Nanosecond()%1000 != 0 {
		m++
	}
	return m
}

// fromMicros is the inverse of micros.
func fromMicros(m int64) time.Time {
	if m == never {
		return time.Time{}
	}
	return time.UnixMicro(m).UTC()
}
