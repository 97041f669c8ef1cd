package gate

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func person(name string, groups ...string) delivery.Actor {
	return delivery.Actor{Subject: name, Issuer: "tidegate", Groups: groups}
}

// facts are those of a promotion that nothing stands in the way of.
func facts() Facts {
	plan := &delivery.Plan{Digest: "sha256:plan", Version: "2"}
	return Facts{
		Now: now, Plan: plan, Release: delivery.Release{Digest: "r2", Version: "2", Source: delivery.Source{Authors: []string{"cleo"}}},
		Placement:  delivery.Placement{Key: delivery.PlacementKey{Project: "default", Application: "shop", Environment: "production"}},
		Deployment: delivery.Deployment{ID: "d", Kind: delivery.KindPromotion, Release: "r2", Version: "2", Plan: plan.Digest, RequestedBy: person("ana")},
		Upstream:   []Upstream{{Environment: "staging", Known: true, Succeeded: now.Add(-time.Hour), Current: true}},
	}
}

func approved(who delivery.Actor, plan delivery.Digest, ago time.Duration) delivery.Approval {
	return delivery.Approval{Plan: plan, Actor: who, At: now.Add(-ago)}
}

func denial(severity delivery.Severity) []delivery.Decision {
	return []delivery.Decision{{Outcome: delivery.DecisionDeny, Messages: []delivery.PolicyMessage{{Message: "no", Denies: true, Severity: severity}}}}
}

func TestGates(t *testing.T) {
	rule := delivery.ApprovalRule{Count: 1, Group: "security"}
	tests := []struct {
		name   string
		change func(*Facts)
		gate   delivery.GateKind
		want   delivery.Outcome
		reason string
	}{
		{"order", func(f *Facts) { f.Upstream[0].Succeeded = time.Time{} }, delivery.GateOrder, delivery.OutcomeWait, "has not succeeded in staging"},
		{"order unknown", func(f *Facts) { f.Upstream[0].Known = false }, delivery.GateOrder, delivery.OutcomeUnknown, "can't be read"},
		{"soak", func(f *Facts) { f.Step.Soak = delivery.Duration(2 * time.Hour) }, delivery.GateSoak, delivery.OutcomeWait, "for 2h0m0s (the path)"},
		{"soak by policy", func(f *Facts) {
			f.Decisions = []delivery.Decision{{Outcome: delivery.DecisionAllow, Obligations: []delivery.Obligation{{Set: "p", Soak: delivery.Duration(3 * time.Hour)}}}}
		}, delivery.GateSoak, delivery.OutcomeWait, "policy p"},
		{"policy denies", func(f *Facts) { f.Decisions = denial(delivery.SeverityMandatory) }, delivery.GatePolicy, delivery.OutcomeDeny, "no"},
		{"advisory warns", func(f *Facts) { f.Decisions = denial(delivery.SeverityAdvisory) }, delivery.GatePolicy, delivery.OutcomePass, "Warning"},
		{"policy failed", func(f *Facts) { f.Decisions = []delivery.Decision{{Outcome: delivery.DecisionError, Error: "x"}} }, delivery.GatePolicy, delivery.OutcomeDeny, "could not decide"},
		{"no policy", func(f *Facts) { f.Decisions = []delivery.Decision{{Outcome: delivery.DecisionNoPolicy}} }, delivery.GatePolicy, delivery.OutcomePass, ""},
		{"reason wanted", func(f *Facts) {
			f.Decisions = []delivery.Decision{{Outcome: delivery.DecisionAllow, Obligations: []delivery.Obligation{{Set: "p", Reason: true}}}}
		}, delivery.GatePolicy, delivery.OutcomeDeny, "wants a reason"},
		{"approval missing", func(f *Facts) { f.Step.Approvals = []delivery.ApprovalRule{rule} }, delivery.GateApproval, delivery.OutcomeWait, "0 of 1"},
		{"approved", func(f *Facts) {
			f.Step.Approvals = []delivery.ApprovalRule{rule}
			f.Deployment.Approvals = []delivery.Approval{approved(person("ben", "security"), "sha256:plan", time.Hour)}
		}, delivery.GateApproval, delivery.OutcomePass, "1 of 1"},
		{"wrong group", func(f *Facts) {
			f.Step.Approvals = []delivery.ApprovalRule{rule}
			f.Deployment.Approvals = []delivery.Approval{approved(person("ben"), "sha256:plan", time.Hour)}
		}, delivery.GateApproval, delivery.OutcomeWait, "not in group security"},
		{"own", func(f *Facts) {
			f.Step.Approvals = []delivery.ApprovalRule{rule}
			f.Deployment.Approvals = []delivery.Approval{approved(person("ana", "security"), "sha256:plan", time.Hour)}
		}, delivery.GateApproval, delivery.OutcomeWait, "ana asked for it"},
		{"author", func(f *Facts) {
			f.Step.Approvals = []delivery.ApprovalRule{rule}
			f.Deployment.Approvals = []delivery.Approval{approved(person("cleo", "security"), "sha256:plan", time.Hour)}
		}, delivery.GateApproval, delivery.OutcomeWait, "cleo wrote it"},
		{"on behalf of the requester", func(f *Facts) {
			f.Step.Approvals = []delivery.ApprovalRule{rule}
			robot := person("robot", "security")
			robot.OnBehalfOf = "ana"
			f.Deployment.Approvals = []delivery.Approval{approved(robot, "sha256:plan", time.Hour)}
		}, delivery.GateApproval, delivery.OutcomeWait, "robot asked for it"},
		{"another plan", func(f *Facts) {
			f.Step.Approvals = []delivery.ApprovalRule{rule}
			f.Deployment.Approvals = []delivery.Approval{approved(person("ben", "security"), "sha256:old", time.Hour)}
		}, delivery.GateApproval, delivery.OutcomeWait, "ben's approval is void"},
		{"expired", func(f *Facts) {
			f.Step.Approvals = []delivery.ApprovalRule{rule}
			f.Deployment.Approvals = []delivery.Approval{approved(person("ben", "security"), "sha256:plan", 8*24*time.Hour)}
		}, delivery.GateApproval, delivery.OutcomeWait, "has expired"},
		{"one person is one approval", func(f *Facts) {
			f.Step.Approvals = []delivery.ApprovalRule{{Count: 2}}
			f.Deployment.Approvals = []delivery.Approval{approved(person("ben"), "sha256:plan", time.Hour), approved(person("ben"), "sha256:plan", time.Minute)}
		}, delivery.GateApproval, delivery.OutcomeWait, "1 of 2"},
		{"rejected", func(f *Facts) {
			f.Step.Approvals = []delivery.ApprovalRule{rule}
			a := approved(person("ben"), "sha256:plan", time.Hour)
			a.Rejected = true
			f.Deployment.Approvals = []delivery.Approval{a}
		}, delivery.GateApproval, delivery.OutcomeDeny, "ben rejected it"},
		{"freeze", func(f *Facts) {
			f.Calendars = []NamedCalendar{{"c", delivery.Calendar{Freezes: []delivery.Freeze{{Name: "x", From: now.Add(-time.Hour), To: now.Add(time.Hour)}}}}}
		}, delivery.GateWindow, delivery.OutcomeWait, `freeze "x"`},
		{"active", func(f *Facts) {
			f.Placement.Active = &delivery.Deployment{ID: "other", Version: "1", Phase: delivery.PhaseRunning}
		}, delivery.GateActive, delivery.OutcomeWait, "Release 1 is being deployed"},
		{"this plan failed", func(f *Facts) {
			f.Placement.Quarantine = []delivery.Quarantine{{Plan: "sha256:plan", Release: "r2", Reason: "harm"}}
		}, delivery.GateQuarantine, delivery.OutcomeDeny, "quarantined in production: harm"},
		{"another plan of it failed", func(f *Facts) {
			f.Placement.Quarantine = []delivery.Quarantine{{Plan: "sha256:old", Release: "r2", Reason: "harm"}}
		}, delivery.GateQuarantine, delivery.OutcomeDeny, "with another plan"},
		{"another plan failed, with a reason", func(f *Facts) {
			f.Placement.Quarantine = []delivery.Quarantine{{Plan: "sha256:old", Release: "r2"}}
			f.Deployment.Reason = "the database was slow"
		}, delivery.GateQuarantine, delivery.OutcomePass, ""},
		{"another plan failed, by itself", func(f *Facts) {
			f.Placement.Quarantine = []delivery.Quarantine{{Plan: "sha256:old", Release: "r2"}}
			f.Deployment.Reason, f.Deployment.RequestedBy = "it succeeded in staging", delivery.System()
		}, delivery.GateQuarantine, delivery.OutcomeDeny, "a"},
		{"blocked downstream", func(f *Facts) { f.Upstream[0].Quarantine = &delivery.Quarantine{Reason: "harm"} }, delivery.GateQuarantine, delivery.OutcomeDeny, "blocked here because it is quarantined in staging"},
		{"pinned", func(f *Facts) {
			f.Placement.Pin = &delivery.Pin{Release: "r1", Version: "1", Actor: person("ben")}
		}, delivery.GateHold, delivery.OutcomeDeny, "pinned production to release 1"},
		{"held", func(f *Facts) { f.Placement.Hold = &delivery.Hold{Reason: "party", Actor: person("ben")} }, delivery.GateHold, delivery.OutcomeWait, "holds promotions"},
	}
	if got := delivery.Combine(Evaluate(facts())); got != delivery.OutcomePass {
		t.Fatalf("the facts that every case changes do not pass: %+v", delivery.Blocking(Evaluate(facts())))
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := facts()
			tt.change(&f)
			var worst delivery.Verdict
			for _, v := range Evaluate(f) {
				if v.Gate == tt.gate && (worst.Gate == "" || v.Outcome != delivery.OutcomePass) {
					worst = v
				} else if v.Gate != tt.gate && v.Outcome != delivery.OutcomePass {
					t.Errorf("gate %s answers too: %+v", v.Gate, v)
				}
			}
			if worst.Outcome != tt.want || !strings.Contains(worst.Reason, tt.reason) {
				t.Errorf("got %s %q, want %s with %q", worst.Outcome, worst.Reason, tt.want, tt.reason)
			}
			if worst.Outcome == delivery.OutcomeWait && worst.Clear == "" {
				t.Error("nobody is told who can clear it")
			}
		})
	}
}

func TestRollbackSkipsAllButDenials(t *testing.T) {
	f := facts()
	f.Deployment.Kind = delivery.KindRollback
	f.Upstream[0].Succeeded = time.Time{}
	f.Step = delivery.PathStep{Soak: delivery.Duration(time.Hour), Approvals: []delivery.ApprovalRule{{Count: 3}}}
	f.Calendars = []NamedCalendar{{"c", delivery.Calendar{Freezes: []delivery.Freeze{{Name: "x", From: now.Add(-time.Hour), To: now.Add(time.Hour)}}}}}
	f.Placement.Hold = &delivery.Hold{}
	f.Decisions = []delivery.Decision{{Outcome: delivery.DecisionError, Error: "x"}}
	if v := delivery.Blocking(Evaluate(f)); len(v) > 0 {
		t.Errorf("a rollback is stopped by %+v", v)
	}
	f.Decisions = denial(delivery.SeverityMandatory)
	if got := delivery.Combine(Evaluate(f)); got != delivery.OutcomeDeny {
		t.Errorf("a denial does not hold: %s", got)
	}
}

func TestWhen(t *testing.T) {
	f := facts()
	f.Step.Soak = delivery.Duration(2 * time.Hour) // until 13:00
	f.Calendars = []NamedCalendar{{"c", delivery.Calendar{Freezes: []delivery.Freeze{{Name: "x", From: now.Add(30 * time.Minute), To: now.Add(3 * time.Hour)}}}}}
	again := func(at time.Time) []delivery.Verdict { f.Now = at; return Evaluate(f) }
	got, _ := When(f, again)
	if want := now.Add(3 * time.Hour); !got.Equal(want) {
		t.Errorf("when = %s, want %s: the soak ends in the freeze", got, want)
	}
	f = facts()
	f.Decisions = denial(delivery.SeverityMandatory)
	if got, _ := When(f, again); !got.IsZero() {
		t.Errorf("when = %s for a denied release, want none", got)
	}
}

func TestEveryGateAnswersAndNoApprovalIsInvented(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := facts()
		f.Hypothetical = rapid.Bool().Draw(rt, "hypothetical")
		if rapid.Bool().Draw(rt, "no plan") {
			f.Plan = nil
		}
		need := rapid.IntRange(1, 3).Draw(rt, "count")
		f.Step.Approvals = []delivery.ApprovalRule{{Count: need, Group: "g"}}
		counting := map[string]bool{}
		for range rapid.IntRange(0, 6).Draw(rt, "approvals") {
			who := person(rapid.SampledFrom([]string{"ana", "ben", "cleo", "dan", "eve"}).Draw(rt, "who"))
			if rapid.Bool().Draw(rt, "in group") {
				who.Groups = []string{"g"}
			}
			plan := rapid.SampledFrom([]delivery.Digest{"sha256:plan", "sha256:old"}).Draw(rt, "plan")
			f.Deployment.Approvals = append(f.Deployment.Approvals, approved(who, plan, time.Hour))
			if f.Plan != nil && plan == f.Plan.Digest && who.In("g") && who.Subject != "ana" && who.Subject != "cleo" {
				counting[who.Subject] = true
			}
		}
		seen := map[delivery.GateKind]bool{}
		for _, v := range Evaluate(f) {
			seen[v.Gate] = true
			if v.Gate == delivery.GateApproval && (v.Outcome == delivery.OutcomePass) != (len(counting) >= need) {
				rt.Fatalf("approval gate says %s with %d of %d counting: %+v", v.Outcome, len(counting), need, f.Deployment.Approvals)
			}
		}
		if len(seen) != 8 {
			rt.Fatalf("only %v answered", seen)
		}
	})
}
