package gate

import (
	"fmt"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// quarantine refuses what failed: exactly that plan here; the release with
// another plan unless a named person gives a reason; and the release anywhere
// after the environment in which it failed.
func quarantine(f Facts) []delivery.Verdict {
	k := f.Placement.Key
	deny := func(reason, clear string) []delivery.Verdict {
		return []delivery.Verdict{{Gate: delivery.GateQuarantine, Outcome: delivery.OutcomeDeny, Reason: reason, Clear: clear}}
	}
	lift := fmt.Sprintf("a person, by 'tidegate quarantine %s@%s --env %s --lift', or a newer release", k.Application, f.Deployment.Version, k.Environment)
	plan := delivery.Digest("")
	if f.Plan != nil {
		plan = f.Plan.Digest
	}
	if q, yes := f.Placement.Quarantined(plan, f.Deployment.Release); yes {
		return deny(fmt.Sprintf("Release %s is quarantined in %s: %s", f.Deployment.Version, k.Environment, q.Reason), lift)
	}
	for _, q := range f.Placement.Quarantine {
		if q.Release != f.Deployment.Release || rollback(f) {
			continue
		}
		if f.Deployment.Reason == "" || f.Deployment.RequestedBy.IsSystem() {
			return deny(fmt.Sprintf("Release %s failed in %s with another plan: %s", f.Deployment.Version, k.Environment, q.Reason),
				"a named person who promotes it again with --reason")
		}
	}
	for _, u := range f.Upstream {
		if u.Quarantine != nil && !rollback(f) {
			return deny(fmt.Sprintf("Release %s is blocked here because it is quarantined in %s: %s", f.Deployment.Version, u.Environment, u.Quarantine.Reason),
				fmt.Sprintf("a newer release, or a person by 'tidegate quarantine %s@%s --env %s --lift'", k.Application, f.Deployment.Version, u.Environment))
		}
	}
	return pass(delivery.GateQuarantine, "It is not quarantined.")
}
