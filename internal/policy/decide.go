package policy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Decide asks every set that applies. It never fails: what goes wrong is a
// decision of outcome error. The caller adds the id. Now is what policies see
// as the time, in the input and in time.now_ns.
func (e *Engine) Decide(ctx context.Context, moment delivery.Moment, in Input, now time.Time) delivery.Decision {
	in.Schema, in.Moment, in.Now = InputSchemaName, moment, now.UTC().Format(time.RFC3339)
	d := delivery.Decision{Moment: moment, Placement: in.Key(), Revision: e.revision, At: now, Outcome: delivery.DecisionNoPolicy}
	raw, err := json.Marshal(in)
	if err != nil {
		d.Outcome, d.Error = delivery.DecisionError, "the input is not JSON"
		return d
	}
	d.Input, d.InputDigest = raw, delivery.DigestBytes(raw)
	value, err := ast.ValueFromReader(bytesReader(raw))
	if err != nil {
		d.Outcome, d.Error = delivery.DecisionError, "the input can't be read"
		return d
	}
	var failures []error
	for _, s := range e.sets {
		if !s.applies(moment, in) {
			continue
		}
		if d.Outcome == delivery.DecisionNoPolicy {
			d.Outcome = delivery.DecisionAllow
		}
		if err := s.ask(ctx, value, now, &d); err != nil && s.Set.Mode != delivery.PolicyShadow && s.Set.Mode != delivery.PolicyAdvisory {
			failures = append(failures, fmt.Errorf("policy set %s: %w", s.Name, err))
		}
	}
	if slices.ContainsFunc(d.Messages, func(m delivery.PolicyMessage) bool { return m.Denies && m.Severity != delivery.SeverityAdvisory }) {
		d.Outcome = delivery.DecisionDeny
	}
	if len(failures) > 0 {
		d.Error = errors.Join(failures...).Error()
		if d.Outcome != delivery.DecisionDeny { // a denial holds whatever else failed
			d.Outcome = delivery.DecisionError
		}
	}
	return d
}

// applies reports whether the set is asked at this moment in this environment.
func (p prepared) applies(moment delivery.Moment, in Input) bool {
	s := p.Set
	return (len(s.Moments) == 0 || slices.Contains(s.Moments, moment)) &&
		(len(s.Environments) == 0 || slices.Contains(s.Environments, in.Environment.Name)) &&
		(len(s.Classes) == 0 || slices.Contains(s.Classes, in.Environment.Class))
}

// ask evaluates the set's packages and adds what they say.
func (p prepared) ask(ctx context.Context, input ast.Value, now time.Time, d *delivery.Decision) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for _, path := range slices.Sorted(maps.Keys(p.queries)) {
		q := p.queries[path]
		results, err := q.Eval(ctx, rego.EvalParsedInput(input), rego.EvalTime(now))
		if ctx.Err() != nil {
			return fmt.Errorf("package %s did not answer within %s", path, deadline)
		}
		if err != nil {
			return fmt.Errorf("package %s: %w", path, err)
		}
		if len(results) == 0 {
			continue
		}
		rules, ok := results[0].Bindings["x"].(map[string]any)
		if !ok {
			continue
		}
		if err := p.read(path, rules, d); err != nil {
			return err
		}
	}
	return nil
}

// read takes deny, warn and require from a package's document.
func (p prepared) read(path string, rules map[string]any, d *delivery.Decision) error {
	for _, rule := range []string{"deny", "warn", "require"} {
		items, present := rules[rule]
		if !present {
			continue
		}
		list, ok := items.([]any)
		if !ok {
			return fmt.Errorf("%s.%s is no set: write '%s contains ... if { ... }'", path, rule, rule)
		}
		if len(d.Messages)+len(list) > maxMessages {
			return fmt.Errorf("%s.%s says more than %d things", path, rule, maxMessages)
		}
		for _, item := range list {
			if err := p.take(path, rule, item, d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p prepared) take(path, rule string, item any, d *delivery.Decision) error {
	if rule == "require" {
		o, err := obligation(item)
		if err != nil {
			return fmt.Errorf("%s.require: %w", path, err)
		}
		o.Set = p.Name
		if p.Set.Mode != delivery.PolicyShadow && p.Set.Mode != delivery.PolicyAdvisory {
			d.Obligations = append(d.Obligations, o)
		}
		return nil
	}
	m, err := message(item)
	if err != nil {
		return fmt.Errorf("%s.%s: %w", path, rule, err)
	}
	m.Set, m.Rule, m.Denies = p.Name, path+"."+rule, rule == "deny"
	m.Severity = cmp.Or(m.Severity, delivery.SeverityOverridable)
	if rule == "warn" || p.Set.Mode == delivery.PolicyAdvisory || p.Set.Mode == delivery.PolicyShadow {
		m.Severity = delivery.SeverityAdvisory
	}
	d.Messages = append(d.Messages, m)
	return nil
}

// message reads "text" or {"message": ..., "hint": ..., ...}.
func message(item any) (delivery.PolicyMessage, error) {
	if text, ok := item.(string); ok {
		return delivery.PolicyMessage{Message: text}, nil
	}
	var m struct {
		Message  string            `json:"message"`
		Hint     string            `json:"hint"`
		Link     string            `json:"link"`
		Path     string            `json:"path"`
		Severity delivery.Severity `json:"severity"`
		Labels   map[string]string `json:"labels"`
	}
	if err := strict(item, &m); err != nil {
		return delivery.PolicyMessage{}, err
	}
	switch m.Severity {
	case "", delivery.SeverityAdvisory, delivery.SeverityOverridable, delivery.SeverityMandatory:
	default:
		return delivery.PolicyMessage{}, fmt.Errorf("severity %q is not advisory, overridable or mandatory", m.Severity)
	}
	if m.Message == "" {
		return delivery.PolicyMessage{}, errors.New("a message is a text, or an object with a message")
	}
	return delivery.PolicyMessage{Message: m.Message, Hint: m.Hint, Link: m.Link, Path: m.Path, Severity: m.Severity, Labels: m.Labels}, nil
}

// obligation reads {"approvals": {...}}, {"soak": "1h"} or {"reason": true}.
func obligation(item any) (delivery.Obligation, error) {
	var o struct {
		Approvals *delivery.ApprovalRule `json:"approvals"`
		Soak      delivery.Duration      `json:"soak"`
		Reason    bool                   `json:"reason"`
	}
	if err := strict(item, &o); err != nil {
		return delivery.Obligation{}, err
	}
	if o.Approvals == nil && o.Soak == 0 && !o.Reason {
		return delivery.Obligation{}, errors.New("an obligation is {\"approvals\": {...}}, {\"soak\": \"1h\"} or {\"reason\": true}")
	}
	if o.Approvals != nil {
		rule := o.Approvals.WithDefaults()
		o.Approvals = &rule
	}
	return delivery.Obligation{Approval: o.Approvals, Soak: o.Soak, Reason: o.Reason}, nil
}
