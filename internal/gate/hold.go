package gate

import (
	"fmt"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// hold obeys a person's pin and hold. A rollback is a person's act as well,
// so only a pin to another release stops it.
func hold(f Facts) []delivery.Verdict {
	k := f.Placement.Key
	var all []delivery.Verdict
	if p := f.Placement.Pin; p != nil && p.Release != f.Deployment.Release {
		all = append(all, delivery.Verdict{
			Gate: delivery.GateHold, Outcome: delivery.OutcomeDeny, Rule: "pin",
			Reason: fmt.Sprintf("%s pinned %s to release %s: %s.", p.Actor.Subject, k.Environment, p.Version, orNone(p.Reason)),
			Clear:  fmt.Sprintf("a person, by 'tidegate unpin %s --env %s'", k.Application, k.Environment),
		})
	}
	if h := f.Placement.Hold; h != nil && !rollback(f) && (h.Until.IsZero() || f.Now.Before(h.Until)) {
		all = append(all, delivery.Verdict{
			Gate: delivery.GateHold, Outcome: delivery.OutcomeWait, Rule: "hold", Earliest: h.Until,
			Reason: fmt.Sprintf("%s holds promotions to %s: %s.", h.Actor.Subject, k.Environment, orNone(h.Reason)),
			Clear:  fmt.Sprintf("a person, by 'tidegate unhold %s --env %s'", k.Application, k.Environment),
		})
	}
	if len(all) == 0 {
		return pass(delivery.GateHold, "Nobody pinned or holds it.")
	}
	return all
}

func orNone(reason string) string {
	if reason == "" {
		return "no reason was given"
	}
	return reason
}
