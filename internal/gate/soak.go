package gate

import (
	"fmt"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// soak wants the release to have run long enough in every environment before:
// the longer of what the path says and what policies demand.
func soak(f Facts) []delivery.Verdict {
	if rollback(f) {
		return pass(delivery.GateSoak, skipped)
	}
	need, from := f.Step.Soak, "the path"
	for _, o := range obligations(f) {
		if o.Soak > need {
			need, from = o.Soak, "policy "+o.Set
		}
	}
	if need == 0 {
		return pass(delivery.GateSoak, "No soak is asked for.")
	}
	var all []delivery.Verdict
	for _, u := range f.Upstream {
		if u.Succeeded.IsZero() {
			continue // the order gate waits for that
		}
		due := u.Succeeded.Add(need.Std())
		if f.Now.Before(due) {
			all = append(all, delivery.Verdict{
				Gate: delivery.GateSoak, Outcome: delivery.OutcomeWait, Rule: u.Environment, Earliest: due,
				Reason: fmt.Sprintf("Release %s must run in %s for %s (%s); it has for %s.", f.Deployment.Version, u.Environment, need, from, f.Now.Sub(u.Succeeded).Round(time.Second)),
				Clear:  "time",
			})
		}
	}
	if len(all) == 0 {
		return pass(delivery.GateSoak, fmt.Sprintf("It ran for %s in every environment before.", need))
	}
	return all
}
