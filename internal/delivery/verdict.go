package delivery

import "time"

// Verdict is what one gate says: pass, wait or deny, why, who can clear it and
// when it could clear at the earliest. Verdicts are data: the shell computes
// them, the engine obeys them, and why, when and forecast show them.
type Verdict struct {
	Gate     GateKind          `json:"gate"`
	Outcome  Outcome           `json:"outcome"`
	Reason   string            `json:"reason"`             // a sentence
	Clear    string            `json:"clear,omitempty"`    // who can clear it, and how
	Hint     string            `json:"hint,omitempty"`     // how to mend what was refused
	Earliest time.Time         `json:"earliest,omitzero"`  // a lower bound; zero when no time clears it
	Rule     string            `json:"rule,omitempty"`     // policy set and rule, calendar, approval rule
	Path     string            `json:"path,omitempty"`     // the offending field, e.g. services.web.env.DEBUG
	Labels   map[string]string `json:"labels,omitempty"`   // control labels such as SOC2
	Severity Severity          `json:"severity,omitempty"` // of a policy's denial
	Decision ID                `json:"decision,omitempty"` // the recorded policy decision
}

// GateKind names a gate. Each has one file in internal/gate.
type GateKind string

// The gates.
const (
	GateOrder      GateKind = "order"      // succeeded in the environments before
	GateSoak       GateKind = "soak"       // ran there long enough
	GatePolicy     GateKind = "policy"     // what Rego says
	GateApproval   GateKind = "approval"   // enough people agreed to this plan
	GateWindow     GateKind = "window"     // windows and freezes
	GateActive     GateKind = "active"     // one active deployment a placement
	GateQuarantine GateKind = "quarantine" // this plan failed here, or the release is blocked
	GateHold       GateKind = "hold"       // pin and hold
)

// Outcome is what a gate says. Unknown is for forecasts only: a fact that
// cannot be read now; it never counts as pass.
type Outcome string

// The outcomes.
const (
	OutcomePass    Outcome = "pass"
	OutcomeWait    Outcome = "wait"
	OutcomeDeny    Outcome = "deny"
	OutcomeUnknown Outcome = "unknown"
)

// Severity says whether a policy's denial can be waived.
type Severity string

// The severities.
const (
	SeverityAdvisory    Severity = "advisory"    // recorded and shown, never refuses
	SeverityOverridable Severity = "overridable" // a waiver lets it through
	SeverityMandatory   Severity = "mandatory"   // nothing lets it through
)

// Combine returns deny if any verdict denies, else wait or unknown if any is
// so, else pass. No verdicts at all is unknown: nothing passes by absence.
func Combine(verdicts []Verdict) Outcome {
	if len(verdicts) == 0 {
		return OutcomeUnknown
	}
	rank := map[Outcome]int{OutcomePass: 0, OutcomeWait: 1, OutcomeUnknown: 2, OutcomeDeny: 3}
	worst := OutcomePass
	for _, v := range verdicts {
		if rank[v.Outcome] > rank[worst] {
			worst = v.Outcome
		}
	}
	return worst
}

// Blocking returns the verdicts that do not pass, denials first.
func Blocking(verdicts []Verdict) []Verdict {
	var denials, others []Verdict
	for _, v := range verdicts {
		switch v.Outcome {
		case OutcomePass:
		case OutcomeDeny:
			denials = append(denials, v)
		default:
			others = append(others, v)
		}
	}
	return append(denials, others...)
}
