package gate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// approval wants every rule of the path and of the policies met by distinct
// people for exactly this plan. Who asked for it and who wrote it don't count.
func approval(f Facts) []delivery.Verdict {
	if rollback(f) {
		return pass(delivery.GateApproval, skipped)
	}
	rules := slices.Clone(f.Step.Approvals)
	for i := range rules {
		rules[i].From = "the path"
	}
	for _, o := range obligations(f) {
		if o.Approval != nil {
			r := *o.Approval
			r.From = "policy " + o.Set
			rules = append(rules, r)
		}
	}
	if len(rules) == 0 {
		return pass(delivery.GateApproval, "No approval is asked for.")
	}
	if v, rejected := rejection(f); rejected {
		return []delivery.Verdict{v}
	}
	var all []delivery.Verdict
	for _, r := range rules {
		all = append(all, ruleMet(f, r.WithDefaults()))
	}
	return all
}

// rejection finds somebody's no to this plan.
func rejection(f Facts) (delivery.Verdict, bool) {
	for _, a := range f.Deployment.Approvals {
		if a.Rejected && a.Step == "" && a.Plan == f.Deployment.Plan {
			return delivery.Verdict{
				Gate: delivery.GateApproval, Outcome: delivery.OutcomeDeny,
				Reason: fmt.Sprintf("%s rejected it: %s.", a.Actor.Subject, orNone(a.Comment)),
				Clear:  "a new promotion",
			}, true
		}
	}
	return delivery.Verdict{}, false
}

func ruleMet(f Facts, r delivery.ApprovalRule) delivery.Verdict {
	people, notes := counted(f, r)
	who := "anybody who may approve"
	if r.Group != "" {
		who = "group " + r.Group
	}
	v := delivery.Verdict{Gate: delivery.GateApproval, Rule: r.From + ": " + who}
	names := "nobody yet"
	if len(people) > 0 {
		var subjects []string
		for _, p := range people {
			subjects = append(subjects, p.Subject)
		}
		names = strings.Join(subjects, ", ")
	}
	v.Reason = fmt.Sprintf("%d of %d approvals from %s (%s): %s.", len(people), r.Count, who, r.From, names)
	if len(notes) > 0 {
		v.Reason += " " + strings.Join(notes, " ")
	}
	if len(people) >= r.Count {
		v.Outcome = delivery.OutcomePass
		return v
	}
	v.Outcome = delivery.OutcomeWait
	v.Clear = fmt.Sprintf("%s but %s, by 'tidegate approve %s --env %s'", who, f.Deployment.RequestedBy.Subject, f.Placement.Key.Application, f.Placement.Key.Environment)
	return v
}

// counted returns the distinct people whose approval counts for a rule, and a
// note for each that does not.
func counted(f Facts, r delivery.ApprovalRule) (people []delivery.Actor, notes []string) {
	for _, a := range f.Deployment.Approvals {
		name := a.Actor.Subject
		switch {
		case a.Rejected || a.Step != "":
		case f.Plan == nil || a.Plan != f.Plan.Digest:
			notes = append(notes, fmt.Sprintf("%s's approval is void: it was for plan %s.", name, a.Plan.Short()))
		case !f.Now.Before(a.At.Add(r.Valid.Std())):
			notes = append(notes, fmt.Sprintf("%s's approval has expired.", name))
		case a.Actor.IsSystem() || a.Actor.Same(f.Deployment.RequestedBy):
			notes = append(notes, fmt.Sprintf("%s asked for it and can't approve it.", name))
		case author(f.Release, a.Actor):
			notes = append(notes, fmt.Sprintf("%s wrote it and can't approve it.", name))
		case r.Group != "" && !a.Actor.In(r.Group):
			notes = append(notes, fmt.Sprintf("%s is not in group %s.", name, r.Group))
		case slices.ContainsFunc(people, a.Actor.Same):
		default:
			people = append(people, a.Actor)
		}
	}
	return people, notes
}

func author(r delivery.Release, a delivery.Actor) bool {
	return slices.Contains(r.Source.Authors, a.Subject) || a.OnBehalfOf != "" && slices.Contains(r.Source.Authors, a.OnBehalfOf)
}

// Counts reports whether an approval by actor could count for any rule of
// these facts, and if not, why.
func Counts(f Facts, actor delivery.Actor) (bool, string) {
	switch {
	case actor.IsSystem() || actor.Same(f.Deployment.RequestedBy):
		return false, "You asked for this promotion: somebody else must approve it."
	case author(f.Release, actor):
		return false, "You are an author of this release: somebody else must approve it."
	}
	return true, ""
}
