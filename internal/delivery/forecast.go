package delivery

// Forecast says what the gates of an environment would say of a release now.
type Forecast struct {
	Environment string    `json:"environment"`
	Class       Class     `json:"class"`
	Outcome     Prospect  `json:"outcome"`
	Verdicts    []Verdict `json:"verdicts,omitempty"`
	Plan        Digest    `json:"plan,omitempty"` // that would run; "" if it can't be built
}

// Prospect is what a forecast says.
type Prospect string

// The prospects. Unknown is a fact that can't be read now; it is never pass.
const (
	ProspectPass    Prospect = "pass"
	ProspectDeny    Prospect = "will_deny"
	ProspectNotYet  Prospect = "not_yet"
	ProspectUnknown Prospect = "unknown"
)
