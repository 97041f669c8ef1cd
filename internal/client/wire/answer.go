package wire

import (
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Why is every gate's verdict on one release (or the deployment that waits) in
// one environment, at one time.
type Why struct {
	Key        delivery.PlacementKey `json:"key"`
	Release    delivery.Digest       `json:"release,omitempty"`
	Version    string                `json:"version,omitempty"`
	Deployment delivery.ID           `json:"deployment,omitempty"` // queued or active; "": the question is hypothetical
	Phase      delivery.Phase        `json:"phase,omitempty"`      // of the deployment
	Plan       delivery.Digest       `json:"plan,omitempty"`       // that would run now
	At         time.Time             `json:"at"`
	Outcome    delivery.Outcome      `json:"outcome"`
	Verdicts   []delivery.Verdict    `json:"verdicts"` // of every gate, the passing ones too
	Message    string                `json:"message"`  // a sentence
}

// When is the earliest time at which a release could start in an environment:
// a lower bound that windows, soak, and policies allow.
type When struct {
	Key      delivery.PlacementKey `json:"key"`
	Release  delivery.Digest       `json:"release"`
	Version  string                `json:"version"`
	At       time.Time             `json:"at"`                // of the answer
	Earliest time.Time             `json:"earliest,omitzero"` // zero: no time alone clears what blocks
	Verdicts []delivery.Verdict    `json:"verdicts"`          // that would still not pass then
	Message  string                `json:"message"`           // a sentence
}

// ForecastOfRelease says of each environment of the path what its gates would
// say of a release.
type ForecastOfRelease struct {
	Project      string                `json:"project"`
	Application  string                `json:"application"`
	Release      delivery.Digest       `json:"release"`
	Version      string                `json:"version"`
	At           time.Time             `json:"at"`
	Environments []EnvironmentForecast `json:"environments"` // in the order of the path
}

// EnvironmentForecast is the forecast for one environment.
type EnvironmentForecast struct {
	Environment string             `json:"environment"`
	Class       delivery.Class     `json:"class"`
	Outcome     Prospect           `json:"outcome"`
	Verdicts    []delivery.Verdict `json:"verdicts,omitempty"`
	Plan        delivery.Digest    `json:"plan,omitempty"`
	Message     string             `json:"message"` // a sentence
}

// Prospect is what a forecast says.
type Prospect string

// The prospects.
const (
	ProspectPass    Prospect = "pass"
	ProspectDeny    Prospect = "will_deny"
	ProspectNotYet  Prospect = "not_yet"
	ProspectUnknown Prospect = "unknown" // a fact that cannot be read now
	ProspectDone    Prospect = "done"    // it runs there already
)

// DryRun is what a promotion would do.
type DryRun struct {
	Plan     delivery.Plan      `json:"plan"`
	Outcome  delivery.Outcome   `json:"outcome"`
	Verdicts []delivery.Verdict `json:"verdicts"`
	Changes  []Difference       `json:"changes"` // against what runs there
	From     string             `json:"from,omitempty"`
}

// Difference is one change between two plans.
type Difference struct {
	Path   string `json:"path"` // e.g. services.web.env.COLOUR
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// DiffQuery says what to compare with what runs in an environment: what a
// release would be there, or what runs in another environment of the path.
type DiffQuery struct {
	Release string // as in Promote
	With    string // environment; not together with Release
}

// Diff is the difference of two plans.
type Diff struct {
	From    Compared     `json:"from"`
	To      Compared     `json:"to"`
	Changes []Difference `json:"changes"` // empty: they are equal in all that matters
}

// Compared names one side of a [Diff].
type Compared struct {
	Environment string          `json:"environment"`
	Release     delivery.Digest `json:"release,omitempty"`
	Version     string          `json:"version,omitempty"`
	Plan        delivery.Digest `json:"plan,omitempty"` // "": nothing runs there
}
