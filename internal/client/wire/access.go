package wire

import (
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// NewToken asks for an API token.
type NewToken struct {
	Name    string            `json:"name"` // the subject that acts with it
	Groups  []string          `json:"groups,omitempty"`
	Expires delivery.Duration `json:"expires,omitempty"` // from now; 0: never
}

// NewEnrolment asks for a one-time token with which a machine becomes a host.
type NewEnrolment struct {
	Host    string            `json:"host"`
	Expires delivery.Duration `json:"expires,omitempty"` // from now; default 1h
}

// CreatedToken is a new token; Secret is shown this one time.
type CreatedToken struct {
	Token
	Secret string `json:"secret"`
}

// Token is an API or enrolment token without its secret.
type Token struct {
	ID        delivery.ID    `json:"id"`
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
	Name       string    `json:"name"`
	EnrolledAt time.Time `json:"enrolledAt"`
	SeenAt     time.Time `json:"seenAt,omitzero"`   // last report
	Removed    bool      `json:"removed,omitempty"` // its certificate counts no more
	Targets    []string  `json:"targets,omitempty"` // that it answers for
}

// LogQuery asks for the last lines that a service's instances wrote.
type LogQuery struct {
	Service string // default: every service
	Target  string // default: every target
	Release string // as in Promote; default: every release that runs
	Lines   int    // per instance; default 100, at most 5000
}

// LogLine is one line of an instance's output.
type LogLine struct {
	Service  string          `json:"service"`
	Target   string          `json:"target"`
	Workload delivery.Digest `json:"workload"`
	Version  string          `json:"version"`
	Instance string          `json:"instance"`
	Text     string          `json:"text"`
}

// Version says which program answers.
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	Commit  string `json:"commit,omitempty"`
	API     string `json:"api"` // "v1"
}

// Health says whether the server works. Of Health only Status is sure to be
// set; Ready also lists what was checked.
type Health struct {
	Status string  `json:"status"` // "ok" or "unavailable"
	Checks []Check `json:"checks,omitempty"`
}

// Check is one thing that readiness needs.
type Check struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Message string `json:"message,omitempty"`
}

// Failure is the body of every answer that is not 2xx.
type Failure struct {
	Error Error `json:"error"`
}

// Error is a [delivery.Error] as it travels.
type Error struct {
	Code        delivery.Code      `json:"code"`
	Message     string             `json:"message"` // a full sentence with the next step
	Position    *delivery.Position `json:"position,omitempty"`
	Verdicts    []delivery.Verdict `json:"verdicts,omitempty"`
	Correlation string             `json:"correlation,omitempty"` // find it in the server's log
}
