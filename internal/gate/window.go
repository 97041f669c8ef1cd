package gate

import (
	"github.com/tidegate-cd/tidegate/internal/calendar"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// window lets deployments start only when every calendar is open.
func window(f Facts) []delivery.Verdict {
	if rollback(f) {
		return pass(delivery.GateWindow, skipped)
	}
	var all []delivery.Verdict
	for _, c := range f.Calendars {
		a := calendar.Open(c.Calendar, f.Now)
		if a.Open {
			continue
		}
		clear := "time"
		if a.Next.IsZero() {
			clear = "who owns the calendar " + c.Name
		}
		all = append(all, delivery.Verdict{Gate: delivery.GateWindow, Outcome: delivery.OutcomeWait, Rule: c.Name, Reason: a.Reason, Earliest: a.Next, Clear: clear})
	}
	if len(all) == 0 {
		return pass(delivery.GateWindow, "Every calendar is open.")
	}
	return all
}
