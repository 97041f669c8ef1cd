// Package gate decides whether a deployment may start, and says why not: every
// reason to wait or to refuse is one gate with one file, and every gate always
// answers. It is pure: approvals, policy decisions and the state of other
// environments reach it as facts.
//
// It must not decide how a rollout goes on; that is internal/engine.
//
// Start reading at [Evaluate].
package gate

import (
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Facts is all that the gates may know of one deployment, queued or hypothetical.
type Facts struct {
	Now          time.Time
	Placement    delivery.Placement
	Deployment   delivery.Deployment
	Plan         *delivery.Plan
	Release      delivery.Release
	Step         delivery.PathStep
	Upstream     []Upstream // one for each of Step.After
	Calendars    []NamedCalendar
	Decisions    []delivery.Decision // of the policies, about this plan
	Hypothetical bool                // nothing is queued: a question
}

// Upstream is what is known of the release in an environment before this one.
type Upstream struct {
	Environment string
	Known       bool                 // false: it could not be read
	Succeeded   time.Time            // when this release became good there; zero: it did not
	Current     bool                 // it is what runs there
	Quarantine  *delivery.Quarantine // of this release there
}

// NamedCalendar is a calendar with the name of its document.
type NamedCalendar struct {
	Name     string
	Calendar delivery.Calendar
}

// gates in the order in which they are shown.
var gates = []func(Facts) []delivery.Verdict{active, hold, quarantine, order, soak, policy, approval, window}

// Evaluate asks every gate. The result has at least one verdict of each kind.
func Evaluate(f Facts) []delivery.Verdict {
	var all []delivery.Verdict
	for _, g := range gates {
		all = append(all, g(f)...)
	}
	return all
}

// When returns a lower bound of the time at which nothing but people and other
// environments would still stand in the way, and the verdicts at that time.
// Policies may depend on time in ways that only they know, so again asks for
// the verdicts at each candidate time. The time is zero when no time that is
// known clears everything that time can clear.
func When(f Facts, again func(at time.Time) []delivery.Verdict) (time.Time, []delivery.Verdict) {
	at := f.Now
	verdicts := Evaluate(f)
	for range 50 { // windows, soak and holds can push each other; far fewer rounds are usual
		next := time.Time{}
		timed := false
		for _, v := range delivery.Blocking(verdicts) {
			if v.Earliest.After(at) {
				timed = true
				if v.Earliest.After(next) {
					next = v.Earliest
				}
			}
		}
		if !timed {
			break
		}
		at = next
		verdicts = again(at)
	}
	for _, v := range verdicts {
		if v.Outcome == delivery.OutcomeDeny || v.Outcome == delivery.OutcomeWait && (v.Gate == delivery.GateWindow || v.Gate == delivery.GateSoak) {
			return time.Time{}, verdicts
		}
	}
	return at, verdicts
}

func pass(g delivery.GateKind, reason string) []delivery.Verdict {
	return []delivery.Verdict{{Gate: g, Outcome: delivery.OutcomePass, Reason: reason}}
}

// rollback reports whether the deployment skips order, soak, window and
// approval: it goes back to a plan that was good here.
func rollback(f Facts) bool { return f.Deployment.Kind == delivery.KindRollback }

const skipped = "Skipped: it goes back to a plan that was good here."
