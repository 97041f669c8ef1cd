package store

import (
	"encoding/json"
	"io"

	"github.com/tidegate-cd/tidegate/internal/audit"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// prepared is a change whose documents are already encoded, so that the one
// writer does not have to.
type prepared struct {
	Change

	placement   []byte
	turnOf      []delivery.ID
	commands    [][]byte
	results     [][]byte
	effects     [][]byte
	reports     [][]byte
	plans       [][]byte
	planTargets [][]string
	deployments [][]byte
	releases    [][]byte
	decisions   [][]byte // without input
	inventory   [][]byte
	tokens      [][]byte
	hosts       [][]byte
	payloads    [][]byte
	salts       [][]byte
}

// prepare checks what can be checked without the stored state and encodes.
func prepare(c Change, random io.Reader) (*prepared, error) {
	if err := checkTurn(c); err != nil {
		return nil, err
	}
	if err := checkRecords(c); err != nil {
		return nil, err
	}
	p := &prepared{Change: c}
	e := encoder{}
	if c.Placement != nil {
		p.placement = e.encode(c.Placement)
		p.turnOf = turnOf(c)
	}
	p.commands = encodeAll(&e, c.Commands)
	p.results = encodeAll(&e, c.Results)
	p.reports = encodeAll(&e, c.Reports)
	p.deployments = encodeAll(&e, c.Deployments)
	p.releases = encodeAll(&e, c.Releases)
	p.inventory = encodeAll(&e, c.Inventory)
	p.tokens = encodeAll(&e, c.Tokens)
	p.hosts = encodeAll(&e, c.Hosts)
	for _, f := range c.Effects {
		f.Token = 0 // read from the placement when it is handed out
		p.effects = append(p.effects, e.encode(f))
	}
	for _, plan := range c.Plans {
		p.plans = append(p.plans, e.encode(plan))
		p.planTargets = append(p.planTargets, targetsOf(plan))
	}
	for _, d := range c.Decisions {
		d.Input = nil
		p.decisions = append(p.decisions, e.encode(d))
	}
	if e.err != nil {
		return nil, delivery.Wrap(delivery.CodeInvalid, e.err, "The change has a value that is not JSON.")
	}
	for _, event := range c.Events {
		payload, err := audit.Payload(event)
		if err != nil {
			return nil, err
		}
		salt := make([]byte, audit.SaltSize)
		if _, err := io.ReadFull(random, salt); err != nil {
			return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The system gives no random numbers for the audit log; try again.")
		}
		p.payloads = append(p.payloads, payload)
		p.salts = append(p.salts, salt)
	}
	return p, nil
}

func checkTurn(c Change) error {
	if c.Placement == nil {
		if len(c.ConsumedCommands)+len(c.ConsumedResults)+len(c.Effects) > 0 || len(c.Turn) > 0 {
			return delivery.Errorf(delivery.CodeInvalid, "The change consumes or asks for effects without a placement's turn.")
		}
		return nil
	}
	switch key := c.Placement.Key; {
	case c.Lease == nil:
		return delivery.Errorf(delivery.CodeInvalid, "The change writes %s without a lease.", key)
	case c.Lease.Key != key:
		return delivery.Errorf(delivery.CodeInvalid, "The change writes %s with the lease of %s.", key, c.Lease.Key)
	default:
		for _, e := range c.Effects {
			if e.Placement != key {
				return delivery.Errorf(delivery.CodeInvalid, "Effect %s is of %s, but the turn is of %s.", e.Key, e.Placement, key)
			}
			if e.Key.Deployment == "" {
				return delivery.Errorf(delivery.CodeInvalid, "An effect of %s has no key.", key)
			}
		}
	}
	return nil
}

func checkRecords(c Change) error {
	for _, x := range c.Commands {
		if x.ID == "" || x.Key == (delivery.PlacementKey{}) {
			return delivery.Errorf(delivery.CodeInvalid, "A command of kind %q has no id or no placement.", x.Kind)
		}
	}
	for _, r := range c.Reports {
		if r.Target == "" {
			return delivery.Errorf(delivery.CodeInvalid, "A report names no target.")
		}
	}
	for _, p := range c.Plans {
		if p.Digest == "" {
			return delivery.Errorf(delivery.CodeInvalid, "A plan of %s has no digest.", p.Key)
		}
	}
	for _, d := range c.Deployments {
		if d.ID == "" {
			return delivery.Errorf(delivery.CodeInvalid, "A deployment of %s has no id.", d.Key)
		}
	}
	for _, w := range c.Objects {
		if w.Object.Kind == "" || w.Object.Name == "" {
			return delivery.Errorf(delivery.CodeInvalid, "An object has no kind or no name.")
		}
		if !w.Delete && !json.Valid(w.Object.Spec) {
			return delivery.Errorf(delivery.CodeInvalid, "The spec of %s %q is not JSON.", w.Object.Kind, w.Object.Name)
		}
	}
	for _, r := range c.Releases {
		if r.Digest == "" {
			return delivery.Errorf(delivery.CodeInvalid, "Release %s has no digest.", r.Reference())
		}
	}
	for _, d := range c.Decisions {
		if d.ID == "" || len(d.Input) > 0 && (d.InputDigest == "" || !json.Valid(d.Input)) {
			return delivery.Errorf(delivery.CodeInvalid, "A decision about %s has no id, or an input that is not JSON or has no digest.", d.Placement)
		}
	}
	for _, t := range c.Tokens {
		if t.ID == "" || t.Hash == "" {
			return delivery.Errorf(delivery.CodeInvalid, "Token %q has no id or no hash.", t.Name)
		}
	}
	for _, h := range c.Hosts {
		if h.Name == "" {
			return delivery.Errorf(delivery.CodeInvalid, "A host has no name.")
		}
	}
	if c.Idempotency != nil && c.Idempotency.Key == "" {
		return delivery.Errorf(delivery.CodeInvalid, "The idempotency key is empty.")
	}
	return nil
}

// turnOf returns the deployments that a recorded turn is about: the active
// one, those that changed in it, and the first that waits.
func turnOf(c Change) []delivery.ID {
	var ids []delivery.ID
	add := func(id delivery.ID) {
		for _, have := range ids {
			if have == id {
				return
			}
		}
		ids = append(ids, id)
	}
	if c.Placement.Active != nil {
		add(c.Placement.Active.ID)
	}
	for _, d := range c.Deployments {
		if d.Key == c.Placement.Key {
			add(d.ID)
		}
	}
	if len(c.Placement.Queue) > 0 {
		add(c.Placement.Queue[0].ID)
	}
	return ids
}

// targetsOf returns every target that a plan reaches.
func targetsOf(p delivery.Plan) []string {
	var targets []string
	seen := map[string]bool{"": true}
	for _, w := range p.Waves {
		for _, s := range w.Steps {
			names := []string{s.Target}
			if s.Rollout != nil {
				names = append(names, s.Rollout.Target)
			}
			for _, name := range names {
				if !seen[name] {
					seen[name] = true
					targets = append(targets, name)
				}
			}
		}
	}
	return targets
}

// encoder keeps the first error.
type encoder struct{ err error }

func (e *encoder) encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil && e.err == nil {
		e.err = err
	}
	return b
}

func encodeAll[T any](e *encoder, values []T) [][]byte {
	var docs [][]byte
	for _, v := range values {
		docs = append(docs, e.encode(v))
	}
	return docs
}
