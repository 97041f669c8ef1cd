package gate

import (
	"fmt"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// order wants the release to have been good in every environment before.
func order(f Facts) []delivery.Verdict {
	if rollback(f) {
		return pass(delivery.GateOrder, skipped)
	}
	var all []delivery.Verdict
	for _, u := range f.Upstream {
		switch {
		case !u.Known:
			all = append(all, delivery.Verdict{Gate: delivery.GateOrder, Outcome: delivery.OutcomeUnknown, Reason: fmt.Sprintf("What runs in %s can't be read now.", u.Environment)})
		case u.Succeeded.IsZero():
			all = append(all, delivery.Verdict{
				Gate: delivery.GateOrder, Outcome: delivery.OutcomeWait, Rule: u.Environment,
				Reason: fmt.Sprintf("Release %s has not succeeded in %s.", f.Deployment.Version, u.Environment),
				Clear:  fmt.Sprintf("its success there: 'tidegate promote %s@%s --env %s'", f.Placement.Key.Application, f.Deployment.Version, u.Environment),
			})
		}
	}
	if len(all) == 0 {
		return pass(delivery.GateOrder, "It has succeeded in every environment before.")
	}
	return all
}
