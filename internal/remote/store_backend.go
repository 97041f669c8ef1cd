package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// TokenKindEnrol is the kind of [store.Token] that lets a host enrol. Its Name
// is the host's name: a token made for one host enrols no other.
const TokenKindEnrol = "enrol"

// seenEvery is how often a host's SeenAt is written.
const seenEvery = time.Minute

// StoreBackendOptions is what [NewStoreBackend] needs; all of it is required.
type StoreBackendOptions struct {
	Store     store.Store
	Artifacts interface {
		Open(d delivery.Digest) (io.ReadSeekCloser, int64, error)
	}
	NewID func() delivery.ID
}

// StoreBackend is the [Backend] over a store.
type StoreBackend struct {
	o StoreBackendOptions

	mu   sync.Mutex // one change of a host's certificate at a time
	seen map[string]time.Time
}

// NewStoreBackend returns a backend over a store.
func NewStoreBackend(o StoreBackendOptions) *StoreBackend {
	return &StoreBackend{o: o, seen: map[string]time.Time{}}
}

// ownership says which host answers for which target.
type ownership map[[2]string]string // project and target → host, "" for a target of another kind

func (b *StoreBackend) ownership(ctx context.Context) (ownership, error) {
	owners := ownership{}
	for page := (store.Page{Limit: 1000}); ; {
		objects, next, err := b.o.Store.Objects(ctx, delivery.KindTarget, "", page)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			var t delivery.Target
			if err := json.Unmarshal(o.Spec, &t); err != nil {
				return nil, fmt.Errorf("target %s/%s: %w", o.Project, o.Name, err)
			}
			host := ""
			if t = t.WithDefaults(o.Name); t.Kind == delivery.TargetHost {
				host = t.Host
			}
			owners[[2]string{o.Project, o.Name}] = host
		}
		if next == "" {
			return owners, nil
		}
		page.After = next
	}
}

// owns reports whether host answers for a project's target: the one that its
// document names, or the one of the target's own name without a document.
func (o ownership) owns(host, project, target string) bool {
	if owner, declared := o[[2]string{project, target}]; declared {
		return owner == host
	}
	return target == host
}

// targets returns the names of the targets that host answers for in some project.
func (o ownership) targets(host string) []string {
	var names []string
	for key, owner := range o {
		if owner == host {
			names = append(names, key[1])
		}
	}
	// Projects without a document of that name use the host by its own name.
	names = append(names, host)
	slices.Sort(names)
	return slices.Compact(names)
}

// Targets implements [Backend].
func (b *StoreBackend) Targets(ctx context.Context, host string) ([]string, error) {
	owners, err := b.ownership(ctx)
	if err != nil {
		return nil, err
	}
	return owners.targets(host), nil
}

// Effects implements [Backend].
func (b *StoreBackend) Effects(ctx context.Context, host string) ([]delivery.Effect, error) {
	owners, err := b.ownership(ctx)
	if err != nil {
		return nil, err
	}
	return b.effects(ctx, host, owners)
}

func (b *StoreBackend) effects(ctx context.Context, host string, owners ownership) ([]delivery.Effect, error) {
	var own []delivery.Effect
	for _, target := range owners.targets(host) {
		effects, err := b.o.Store.Effects(ctx, target)
		if err != nil {
			return nil, err
		}
		for _, e := range effects {
			if owners.owns(host, e.Placement.Project, target) {
				own = append(own, e)
			}
		}
	}
	return own, nil
}

// Deliver implements [Backend].
func (b *StoreBackend) Deliver(ctx context.Context, host string, results []delivery.Result, reports []delivery.Report) error {
	owners, err := b.ownership(ctx)
	if err != nil {
		return err
	}
	// The server's clock stamps both, so that a report can be told to be of
	// after a result whatever the host's clock says.
	now, err := b.o.Store.Now(ctx)
	if err != nil {
		return err
	}
	var c store.Change
	if len(results) > 0 {
		pending, err := b.effects(ctx, host, owners)
		if err != nil {
			return err
		}
		own := map[delivery.EffectKey]bool{}
		for _, e := range pending {
			own[e.Key] = true
		}
		for _, r := range results {
			if own[r.Key] {
				r.At = now
				c.Results = append(c.Results, r)
			}
		}
	}
	names := owners.targets(host)
	for _, r := range reports {
		if !slices.Contains(names, r.Target) {
			continue
		}
		r.Services = slices.DeleteFunc(r.Services, func(s delivery.ServiceStatus) bool {
			return !owners.owns(host, s.Placement.Project, r.Target)
		})
		r.At = now
		c.Reports = append(c.Reports, r)
	}
	if err := b.sawHost(ctx, host, &c); err != nil {
		return err
	}
	if len(c.Results)+len(c.Reports)+len(c.Hosts) == 0 {
		return nil
	}
	_, err = b.o.Store.Commit(ctx, c)
	return err
}

// sawHost adds the host's SeenAt to a change once in a while.
func (b *StoreBackend) sawHost(ctx context.Context, host string, c *store.Change) error {
	now, err := b.o.Store.Now(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := b.seen[host]; !last.IsZero() && now.Sub(last) < seenEvery {
		return nil
	}
	h, err := b.o.Store.Host(ctx, host)
	if err != nil {
		return err
	}
	h.SeenAt = now
	c.Hosts = append(c.Hosts, h)
	b.seen[host] = now
	return nil
}

// Artifact implements [Backend].
func (b *StoreBackend) Artifact(_ context.Context, d delivery.Digest) (io.ReadSeekCloser, int64, error) {
	return b.o.Artifacts.Open(d)
}

// Known implements [Backend].
func (b *StoreBackend) Known(ctx context.Context, host, certificate string) (bool, error) {
	h, err := b.o.Store.Host(ctx, host)
	if delivery.ErrorCode(err) == delivery.CodeNotFound {
		return false, nil
	}
	return err == nil && h.Certificate == certificate, err
}

// Replace implements [Backend].
func (b *StoreBackend) Replace(ctx context.Context, host, previous, next string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, err := b.o.Store.Host(ctx, host)
	if err != nil {
		return err
	}
	if h.Certificate == next {
		return nil // another request of the same connection was faster
	}
	if h.Certificate != previous {
		return delivery.Errorf(delivery.CodeConflict, "Host %q has another certificate by now.", host)
	}
	h.Certificate = next
	_, err = b.o.Store.Commit(ctx, store.Change{Hosts: []store.Host{h}})
	return err
}

// Enrol implements [Backend].
func (b *StoreBackend) Enrol(ctx context.Context, e Enrolment) error {
	refused := func(why string) error {
		return delivery.Errorf(delivery.CodeDenied, "The enrolment token %s: make a new one for host %q.", why, e.Name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now, err := b.o.Store.Now(ctx)
	if err != nil {
		return err
	}
	token, err := b.o.Store.TokenByHash(ctx, e.TokenHash)
	switch {
	case delivery.ErrorCode(err) == delivery.CodeNotFound:
		return refused("is not known here")
	case err != nil:
		return err
	case token.Kind != TokenKindEnrol:
		return refused("is a token of another kind")
	case token.Revoked:
		return refused("was revoked")
	case !token.Expires.IsZero() && !now.Before(token.Expires):
		return refused("has expired")
	case token.Name != e.Name:
		return refused(fmt.Sprintf("was made for host %q", token.Name))
	}
	h := store.Host{Name: e.Name, Certificate: e.Certificate, EnrolledAt: now, SeenAt: now}
	spent := store.Idempotency{
		Key:     "enrol/" + string(token.ID), // a precondition of the store: one commit only, whichever server does it
		Request: delivery.DigestBytes([]byte(e.Name + "\n" + e.Key)), Response: json.RawMessage(`{}`), At: now,
	}
	if !token.UsedAt.IsZero() {
		before, err := b.o.Store.Remembered(ctx, spent.Key)
		if delivery.ErrorCode(err) == delivery.CodeNotFound || err == nil && before.Request != spent.Request {
			return refused("was used before")
		}
		if err != nil {
			return err
		}
		_, err = b.o.Store.Commit(ctx, store.Change{Hosts: []store.Host{h}})
		return err
	}
	token.UsedAt = now
	_, err = b.o.Store.Commit(ctx, store.Change{
		Tokens: []store.Token{token}, Hosts: []store.Host{h}, Idempotency: &spent,
		Events: []delivery.Event{{
			ID: b.o.NewID(), Type: delivery.EventHostEnrolled, Project: delivery.DefaultProject, At: now,
			Actor:   delivery.Actor{Subject: e.Name, Issuer: "tidegate", Channel: delivery.ChannelHost, OnBehalfOf: token.CreatedBy.Subject},
			Message: fmt.Sprintf("Host %s enrolled with a token of %s.", e.Name, token.CreatedBy.Subject),
		}},
	})
	if delivery.ErrorCode(err) == delivery.CodeConflict {
		return refused("was used before")
	}
	return err
}

// Changed implements [Backend].
func (b *StoreBackend) Changed(ctx context.Context) <-chan struct{} {
	channel, _, err := b.o.Store.Due(ctx)
	if err != nil {
		return nil // the server looks again by itself
	}
	return channel
}
