package gate

import (
	"fmt"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// active lets one deployment at a time into a placement.
func active(f Facts) []delivery.Verdict {
	a := f.Placement.Active
	if a == nil || a.ID == f.Deployment.ID && a.ID != "" {
		return pass(delivery.GateActive, "No other deployment is under way here.")
	}
	clear := fmt.Sprintf("when it has ended, or now by 'tidegate abort %s --env %s'", f.Placement.Key.Application, f.Placement.Key.Environment)
	return []delivery.Verdict{{
		Gate: delivery.GateActive, Outcome: delivery.OutcomeWait, Clear: clear,
		Reason: fmt.Sprintf("Release %s is being deployed here (%s).", a.Version, a.Phase),
	}}
}
