// Package store keeps everything that Tidegate must not forget. Its only
// write is [Store.Commit]: one [Change] is one transaction, with its audit
// entries and its preconditions, so that nothing can be half done.
//
// It decides nothing and has no clock of its own but the one that leases and
// "now" are read from. There is a memory store and a SQLite store; both pass
// internal/store/storetest. Start reading at [Change].
package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tidegate-cd/tidegate/internal/audit"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Store is durable state. All methods are safe for concurrent use. Errors are
// [delivery.Error]: conflict (a precondition or the lease does not hold: read
// again), not_found, unavailable (busy, disk full: try again), internal.
type Store interface {
	Reader

	// Commit writes the whole change or nothing. It is durable when it returns.
	Commit(ctx context.Context, c Change) (Committed, error)

	// Claim leases up to max placements that are due: their wake time has come
	// or something for them arrived, and nobody holds an unexpired lease. Each
	// claim gives a higher fencing token.
	Claim(ctx context.Context, holder string, ttl time.Duration, max int) ([]Lease, error)
	// Renew extends a lease; conflict if it was lost.
	Renew(ctx context.Context, l Lease, ttl time.Duration) (Lease, error)
	// Yield gives a lease back before it expires; a lost lease is no error.
	Yield(ctx context.Context, l Lease) error

	// Due returns a channel that gets a value when a placement may have become
	// due or a target may have effects to do (coalesced; a sweep must back it
	// up), and the time of the next wake-up there is (zero: none). All calls
	// with one context share one channel, which has a value at first; it lives
	// until the context is done. So: call it, look, wait, look again.
	Due(ctx context.Context) (<-chan struct{}, time.Time, error)
	// Changed returns a channel that is closed at the next committed audit entry.
	Changed() <-chan struct{}

	Close() error
}

// Lease is the right to write one placement's state.
type Lease struct {
	Key     delivery.PlacementKey
	Holder  string
	Token   int64 // fencing token: rises with each claim
	Expires time.Time
}

// Change is one transaction.
type Change struct {
	// Preconditions: conflict if one does not hold.
	Lease  *Lease        // required with Placement
	Expect []Expectation // facts that verdicts were based on

	// A placement's turn.
	Placement        *delivery.Placement // the new state
	Version          int64               // of the state it was made from; 0: there was none
	Wake             time.Time           // zero: only when something arrives
	ConsumedCommands []delivery.ID
	ConsumedResults  []delivery.EffectKey
	Effects          []delivery.Effect // intents
	Turn             json.RawMessage   // recorded observation, verdicts and effects of this turn, for explain; may be nil

	// What arrives for placements; it makes them due, and creates those that are new.
	Commands []delivery.Command // one with the id of an earlier one is ignored
	Results  []delivery.Result  // of effects that are pending; a second result of one key, and one of an unknown key, is ignored
	Reports  []delivery.Report  // makes the placements with an active deployment on that target due

	// Records.
	Plans       []delivery.Plan
	Deployments []delivery.Deployment // as they are now, by id
	Objects     []ObjectWrite
	Releases    []delivery.Release        // one that exists with the same digest is left as it is; another digest with the same version is a conflict
	Decisions   []delivery.Decision       // inputs are stored once by digest
	Inventory   []delivery.InventoryEntry // each closes the open entry of its key, target and service; one with Workload "" only closes
	Tokens      []Token                   // as they are now, by id; an enrolment token that was spent can't be spent again: conflict
	Hosts       []Host                    // as they are now, by name
	Idempotency *Idempotency              // conflict if the key exists: read Remembered and answer with it

	Events []delivery.Event // become audit entries, in this order
}

// ObjectWrite creates, changes or deletes a configuration object. A write with
// an equal spec changes nothing and keeps the revision. Revisions go on after a
// deletion, so that an old revision always names the same spec. The answer to a
// deletion has revision 0 and no spec.
type ObjectWrite struct {
	Object     delivery.Object
	IfRevision *int64 // conflict unless it is at this revision; 0: unless it does not exist
	Delete     bool
}

// Expectation is a fact that must still hold at commit: an object's revision
// (0: it does not exist).
type Expectation struct {
	Kind     delivery.Kind
	Project  string
	Name     string
	Revision int64
}

// Token is an API token or an enrolment token. Only its hash is stored.
type Token struct {
	ID        delivery.ID    `json:"id"`
	Hash      string         `json:"hash"` // hexadecimal SHA-256 of the secret
	Name      string         `json:"name"`
	Kind      string         `json:"kind"` // "api" or "enrol"
	Groups    []string       `json:"groups,omitempty"`
	CreatedAt time.Time      `json:"createdAt"`
	CreatedBy delivery.Actor `json:"createdBy"`
	Expires   time.Time      `json:"expires,omitzero"`
	UsedAt    time.Time      `json:"usedAt,omitzero"` // of an enrolment token: it is spent
	Revoked   bool           `json:"revoked,omitempty"`
}

// Host is an enrolled host.
type Host struct {
	Name        string    `json:"name"`
	Certificate string    `json:"certificate"` // hexadecimal SHA-256 of its DER
	EnrolledAt  time.Time `json:"enrolledAt"`
	SeenAt      time.Time `json:"seenAt,omitzero"`
}

// Idempotency remembers the answer to a request under the client's key.
type Idempotency struct {
	Key      string // with the actor's subject in front
	Request  delivery.Digest
	Response json.RawMessage
	At       time.Time
}

// Committed is what a commit gave.
type Committed struct {
	Version    int64             // of the placement's state
	FirstAudit int64             // index of the first audit entry; -1 if there were no events
	Objects    []delivery.Object // as they are now, in the order of Change.Objects
}

// Record is a placement's stored state with what waits for it.
type Record struct {
	Placement delivery.Placement
	Version   int64
	Token     int64
	Wake      time.Time
	Commands  []delivery.Command // not consumed, oldest first
	Results   []delivery.Result  // not consumed
	Pending   []delivery.Effect  // intents without a result, with the current token
}

// AuditEntry is one entry of the log; its payload is the canonical JSON of an event.
type AuditEntry = audit.Entry

// Page limits a list: up to Limit rows after the cursor of an earlier page.
type Page struct {
	After string
	Limit int // default 100, at most 1000
}

// DeploymentFilter selects deployments; empty fields select all.
type DeploymentFilter struct {
	Project, Application, Environment string
	Release                           delivery.Digest
	Active                            bool // not terminal
}

// InventoryFilter selects inventory; At zero is now.
type InventoryFilter struct {
	Project, Application, Environment string
	Artifact                          delivery.Digest
	At                                time.Time
	History                           bool // also what ended
}

// Reader is every query. A list returns the cursor of the next page, "" at the end.
type Reader interface {
	Now(ctx context.Context) (time.Time, error) // the time that leases are measured on

	Placement(ctx context.Context, key delivery.PlacementKey) (Record, error) // not_found when nothing ever came for it
	Placements(ctx context.Context, project string, p Page) ([]delivery.Placement, string, error)
	Plan(ctx context.Context, d delivery.Digest) (*delivery.Plan, error)
	Deployment(ctx context.Context, id delivery.ID) (delivery.Deployment, error)
	Deployments(ctx context.Context, f DeploymentFilter, p Page) ([]delivery.Deployment, string, error) // newest first
	Turns(ctx context.Context, id delivery.ID) ([]json.RawMessage, error)                               // recorded turns of a deployment, oldest first

	Object(ctx context.Context, kind delivery.Kind, project, name string) (delivery.Object, error)
	ObjectAt(ctx context.Context, kind delivery.Kind, project, name string, revision int64) (delivery.Object, error)
	Objects(ctx context.Context, kind delivery.Kind, project string, p Page) ([]delivery.Object, string, error)

	Release(ctx context.Context, d delivery.Digest) (delivery.Release, error)
	ReleaseByVersion(ctx context.Context, project, application, version string) (delivery.Release, error)
	Releases(ctx context.Context, project, application string, p Page) ([]delivery.Release, string, error) // newest first

	Effects(ctx context.Context, target string) ([]delivery.Effect, error) // pending ones, with current tokens, in order of commit
	Report(ctx context.Context, target string) (delivery.Report, error)
	Reports(ctx context.Context) ([]delivery.Report, error)

	Decision(ctx context.Context, id delivery.ID) (delivery.Decision, error)
	Decisions(ctx context.Context, project string, p Page) ([]delivery.Decision, string, error) // newest first, without inputs
	Inventory(ctx context.Context, f InventoryFilter, p Page) ([]delivery.InventoryEntry, string, error)

	TokenByHash(ctx context.Context, hash string) (Token, error)
	Tokens(ctx context.Context) ([]Token, error)
	Host(ctx context.Context, name string) (Host, error)
	Hosts(ctx context.Context) ([]Host, error)
	Remembered(ctx context.Context, key string) (Idempotency, error)

	AuditSize(ctx context.Context) (int64, error)
	AuditEntries(ctx context.Context, from int64, limit int) ([]AuditEntry, error) // at most 10,000
	// AuditHashes reads stored hashes of the tree by golang.org/x/mod/sumdb/tlog's numbering.
	AuditHashes(ctx context.Context, indexes []int64) ([][32]byte, error)
}
