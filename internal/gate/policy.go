package gate

import (
	"fmt"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// policy obeys the recorded decisions. A policy that failed refuses a
// promotion; a rollback goes on, loudly, since staying on a bad version is
// worse. A denial always holds.
func policy(f Facts) []delivery.Verdict {
	var all []delivery.Verdict
	for _, d := range f.Decisions {
		all = append(all, decided(f, d)...)
	}
	for _, o := range obligations(f) {
		if o.Reason && f.Deployment.Reason == "" && !rollback(f) {
			all = append(all, delivery.Verdict{
				Gate: delivery.GatePolicy, Outcome: delivery.OutcomeDeny, Rule: o.Set, Severity: delivery.SeverityMandatory,
				Reason: fmt.Sprintf("Policy %s wants a reason for the promotion.", o.Set), Hint: "promote it again with --reason",
			})
		}
	}
	if len(all) == 0 {
		return pass(delivery.GatePolicy, "No policy objects.")
	}
	return all
}

func decided(f Facts, d delivery.Decision) []delivery.Verdict {
	switch d.Outcome {
	case delivery.DecisionError:
		v := delivery.Verdict{
			Gate: delivery.GatePolicy, Outcome: delivery.OutcomeDeny, Decision: d.ID, Severity: delivery.SeverityMandatory,
			Reason: fmt.Sprintf("The policies could not decide at %s: %s", d.Moment, d.Error), Clear: "who owns the policy, by mending it",
		}
		if rollback(f) {
			v.Outcome = delivery.OutcomePass
		}
		return []delivery.Verdict{v}
	case delivery.DecisionNoPolicy:
		return nil
	}
	var all []delivery.Verdict
	for _, m := range d.Messages {
		v := delivery.Verdict{
			Gate: delivery.GatePolicy, Outcome: delivery.OutcomePass, Reason: m.Message, Hint: m.Hint, Path: m.Path,
			Rule: m.Set + ": " + m.Rule, Severity: m.Severity, Labels: m.Labels, Decision: d.ID,
		}
		if m.Denies && m.Severity != delivery.SeverityAdvisory {
			v.Outcome = delivery.OutcomeDeny
			v.Clear = "a release that meets the policy"
		} else {
			v.Reason = "Warning: " + m.Message
		}
		all = append(all, v)
	}
	return all
}

// obligations of all decisions hold together.
func obligations(f Facts) []delivery.Obligation {
	var all []delivery.Obligation
	for _, d := range f.Decisions {
		if d.Outcome == delivery.DecisionAllow || d.Outcome == delivery.DecisionDeny {
			all = append(all, d.Obligations...)
		}
	}
	return all
}
