package delivery

import (
	"encoding/json"
	"time"
)

// PolicySet is a set of Rego modules: the spec of a PolicySet document.
type PolicySet struct {
	Description  string            `json:"description,omitempty"`
	Modules      map[string]string `json:"modules,omitempty"`      // file name → Rego v1 source; config fills it from files
	Files        []string          `json:"files,omitempty"`        // paths beside the document; replaced by Modules when applied
	Moments      []Moment          `json:"moments,omitempty"`      // default: all that exist
	Environments []string          `json:"environments,omitempty"` // default: all
	Classes      []Class           `json:"classes,omitempty"`      // default: all
	Mode         PolicyMode        `json:"mode,omitempty"`         // default enforcing
}

// PolicyMode says what a set's decisions do.
type PolicyMode string

// The modes.
const (
	PolicyShadow    PolicyMode = "shadow"    // recorded only
	PolicyAdvisory  PolicyMode = "advisory"  // shown as warnings
	PolicyEnforcing PolicyMode = "enforcing" // binding
)

// Moment is a point at which policies are asked.
type Moment string

// The moments of the spine.
const (
	MomentPromotionRequested Moment = "promotion_requested"
	MomentPlanRendered       Moment = "plan_rendered"
)

// DecisionOutcome keeps four things apart that are often confused.
type DecisionOutcome string

// The outcomes of a decision.
const (
	DecisionAllow    DecisionOutcome = "allow"
	DecisionDeny     DecisionOutcome = "deny"
	DecisionError    DecisionOutcome = "error"     // a policy failed: the moment's failure mode applies
	DecisionNoPolicy DecisionOutcome = "no_policy" // no set applies: the moment's default applies
)

// Decision is a recorded answer of the policies at a moment, with its input,
// so that it can be explained and replayed.
type Decision struct {
	ID          ID              `json:"id"`
	Moment      Moment          `json:"moment"`
	Placement   PlacementKey    `json:"placement"`
	Outcome     DecisionOutcome `json:"outcome"`
	Messages    []PolicyMessage `json:"messages,omitempty"`
	Obligations []Obligation    `json:"obligations,omitempty"`
	Revision    Digest          `json:"revision"` // of the policies that answered
	InputDigest Digest          `json:"inputDigest"`
	Input       json.RawMessage `json:"input,omitempty"`
	Error       string          `json:"error,omitempty"`
	At          time.Time       `json:"at"` // the time that policies saw as now
}

// PolicyMessage is what one rule says.
type PolicyMessage struct {
	Set      string            `json:"set"`
	Rule     string            `json:"rule"` // deny or warn, with the package
	Message  string            `json:"message"`
	Hint     string            `json:"hint,omitempty"`
	Link     string            `json:"link,omitempty"`
	Path     string            `json:"path,omitempty"`
	Severity Severity          `json:"severity"`
	Denies   bool              `json:"denies"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// Obligation is what a policy demands instead of refusing. Those of all
// policies hold together.
type Obligation struct {
	Set      string        `json:"set"`
	Approval *ApprovalRule `json:"approval,omitempty"`
	Soak     Duration      `json:"soak,omitempty"`   // at least this long in the environments before
	Reason   bool          `json:"reason,omitempty"` // the promotion must give one
}
