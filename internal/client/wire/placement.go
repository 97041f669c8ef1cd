package wire

import (
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Promote asks that a release goes to an environment.
type Promote struct {
	Release   string `json:"release"` // version, digest, or at least eight hexadecimal digits of it
	Reason    string `json:"reason,omitempty"`
	Immediate bool   `json:"immediate,omitempty"` // replace a deployment under way instead of waiting for it
}

// Rollback asks to go back: from a deployment under way to the stable version,
// else to the last good plan, or to the one that To names.
type Rollback struct {
	To     string `json:"to,omitempty"` // version of an earlier good release, or digest of its plan; default: the last good one
	Reason string `json:"reason,omitempty"`
}

// Requested says what became of a request for a deployment.
type Requested struct {
	Command    delivery.ID        `json:"command"`
	Deployment delivery.ID        `json:"deployment"` // new; of a rollback that aborts: the one that is aborted
	Version    string             `json:"version"`    // that shall run in the end
	Plan       delivery.Digest    `json:"plan,omitempty"`
	Outcome    delivery.Outcome   `json:"outcome"` // of all verdicts together, at this moment
	Verdicts   []delivery.Verdict `json:"verdicts,omitempty"`
	Message    string             `json:"message"` // a sentence: what happens next
}

// Act is what a person does to a deployment under way: abort, pause, resume,
// complete, retry, confirm; and unpin and unhold, which need only the reason.
type Act struct {
	Deployment delivery.ID `json:"deployment,omitempty"` // default: the active one, else the first that waits
	Step       string      `json:"step,omitempty"`       // resume, confirm: which; default: all that wait, the first manual task
	Reason     string      `json:"reason,omitempty"`
}

// Approve is a person's approval or rejection of exactly one plan.
type Approve struct {
	Deployment delivery.ID     `json:"deployment,omitempty"` // default: the first that waits, else the active one
	Plan       delivery.Digest `json:"plan,omitempty"`       // the plan that was seen; a conflict if another would run now; default: the present one
	Step       string          `json:"step,omitempty"`       // a rollout's approval step; default: the start
	Comment    string          `json:"comment,omitempty"`
}

// Pin keeps a placement on a release.
type Pin struct {
	Release string `json:"release,omitempty"` // as in Promote; default: the stable one
	Reason  string `json:"reason"`
}

// Hold stops promotions to a placement.
type Hold struct {
	Reason string            `json:"reason"`
	Until  time.Time         `json:"until,omitzero"`
	For    delivery.Duration `json:"for,omitempty"` // instead of Until; neither: until a person lets go
}

// Quarantine refuses a release, or lifts that.
type Quarantine struct {
	Release string `json:"release"` // as in Promote
	Reason  string `json:"reason,omitempty"`
}

// Accepted says that commands were recorded. What came of them is an event.
type Accepted struct {
	Commands   []delivery.ID   `json:"commands"`
	Deployment delivery.ID     `json:"deployment,omitempty"` // the one meant, where there is one
	Plan       delivery.Digest `json:"plan,omitempty"`       // approve, reject: the plan that it is bound to
	Message    string          `json:"message"`              // a sentence
	Warning    string          `json:"warning,omitempty"`    // a sentence: e.g. that an approval cannot count, and why
}
