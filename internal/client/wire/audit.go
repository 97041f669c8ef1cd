package wire

import (
	"encoding/json"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Event is an event with its audit index, which is also its position in the
// event stream.
type Event struct {
	Index int64 `json:"index"`
	delivery.Event
}

// EventQuery selects events of the stream; empty fields select all.
type EventQuery struct {
	Project     string
	Application string
	Environment string
	Deployment  delivery.ID
	Types       []delivery.EventType
	After       *int64 // only events with a higher index; nil: from now on
}

// AuditEntry is one entry of the audit log.
type AuditEntry struct {
	Index int64           `json:"index"`
	Event json.RawMessage `json:"event,omitempty"` // canonical JSON of a [delivery.Event]; absent when erased
	Salt  []byte          `json:"salt,omitempty"`
	Leaf  []byte          `json:"leaf"` // what the tree hashes
}

// AuditQuery selects audit entries by index, or the newest ones.
type AuditQuery struct {
	From  int64
	Limit int // default 100, at most 1000
	Last  int // the last so many, instead of From
}

// AuditProof shows that an entry is in the tree that a checkpoint signs.
type AuditProof struct {
	Entry      AuditEntry `json:"entry"`
	Size       int64      `json:"size"`       // of the tree
	Hashes     [][]byte   `json:"hashes"`     // RFC 6962 audit path, from the leaf up
	Checkpoint string     `json:"checkpoint"` // signed note (C2SP tlog-checkpoint) of that tree
}

// Checkpoint is the signed head of the audit log.
type Checkpoint struct {
	Size      int64  `json:"size"`
	Note      string `json:"note"`      // C2SP tlog-checkpoint
	PublicKey string `json:"publicKey"` // verifier key of golang.org/x/mod/sumdb/note
}
