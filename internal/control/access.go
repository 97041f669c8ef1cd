package control

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/tidegate-cd/tidegate/internal/audit"
	"github.com/tidegate-cd/tidegate/internal/auth"
	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/remote"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// enrolmentDefault is how long an enrolment token is good.
const enrolmentDefault = time.Hour

// CreateToken makes an API token; its secret is in this one answer only.
func (c *Control) CreateToken(ctx context.Context, actor delivery.Actor, n wire.NewToken) (wire.CreatedToken, error) {
	if err := c.may(ctx, actor, OpIdentify); err != nil {
		return wire.CreatedToken{}, err
	}
	if n.Name == "" || len(n.Name) > 100 {
		return wire.CreatedToken{}, delivery.Errorf(delivery.CodeInvalid, "A token needs the name of who acts with it, of at most 100 characters.")
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return wire.CreatedToken{}, err
	}
	secret := auth.Secret()
	groups := slices.Clone(n.Groups)
	slices.Sort(groups)
	t := store.Token{ID: c.o.NewID(), Hash: auth.Hash(secret), Name: n.Name, Kind: auth.KindAPI, Groups: slices.Compact(groups), CreatedAt: now, CreatedBy: actor}
	if n.Expires > 0 {
		t.Expires = now.Add(n.Expires.Std())
	}
	return c.storeToken(ctx, actor, t, secret, now)
}

// CreateEnrolment makes a one-time token with which a machine becomes a host.
func (c *Control) CreateEnrolment(ctx context.Context, actor delivery.Actor, n wire.NewEnrolment) (wire.CreatedToken, error) {
	if err := c.may(ctx, actor, OpIdentify); err != nil {
		return wire.CreatedToken{}, err
	}
	if err := delivery.CheckName("host", n.Host); err != nil {
		return wire.CreatedToken{}, err
	}
	if c.o.Hosts == nil {
		return wire.CreatedToken{}, delivery.Errorf(delivery.CodeUnavailable, "This server takes no hosts.")
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return wire.CreatedToken{}, err
	}
	life := enrolmentDefault
	if n.Expires > 0 {
		life = n.Expires.Std()
	}
	token := remote.NewEnrolmentToken(c.o.Hosts.Fingerprint())
	t := store.Token{ID: c.o.NewID(), Hash: token.Hash(), Name: n.Host, Kind: remote.TokenKindEnrol, CreatedAt: now, CreatedBy: actor, Expires: now.Add(life)}
	return c.storeToken(ctx, actor, t, token.String(), now)
}

func (c *Control) storeToken(ctx context.Context, actor delivery.Actor, t store.Token, secret string, now time.Time) (wire.CreatedToken, error) {
	e := c.event(delivery.EventTokenCreated, delivery.PlacementKey{Project: delivery.DefaultProject}, actor, now, "%s made the %s token %s for %s.", actor.Subject, t.Kind, t.ID, t.Name)
	_, err := c.o.Store.Commit(ctx, store.Change{Tokens: []store.Token{t}, Events: []delivery.Event{e}})
	return wire.CreatedToken{Token: token(t), Secret: secret}, err
}

func token(t store.Token) wire.Token {
	return wire.Token{ID: t.ID, Name: t.Name, Kind: t.Kind, Groups: t.Groups, CreatedAt: t.CreatedAt, CreatedBy: t.CreatedBy, Expires: t.Expires, UsedAt: t.UsedAt, Revoked: t.Revoked}
}

// Tokens lists all tokens, without their secrets.
func (c *Control) Tokens(ctx context.Context, actor delivery.Actor) (wire.List[wire.Token], error) {
	list := wire.List[wire.Token]{Items: []wire.Token{}}
	if err := c.may(ctx, actor, OpIdentify); err != nil {
		return list, err
	}
	all, err := c.o.Store.Tokens(ctx)
	for _, t := range all {
		list.Items = append(list.Items, token(t))
	}
	return list, err
}

// RevokeToken makes a token worthless.
func (c *Control) RevokeToken(ctx context.Context, actor delivery.Actor, id delivery.ID) error {
	if err := c.may(ctx, actor, OpIdentify); err != nil {
		return err
	}
	all, err := c.o.Store.Tokens(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(t store.Token) bool { return t.ID == id })
	if i < 0 {
		return delivery.Errorf(delivery.CodeNotFound, "There is no token %s.", id)
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return err
	}
	all[i].Revoked = true
	e := c.event(delivery.EventTokenRevoked, delivery.PlacementKey{Project: delivery.DefaultProject}, actor, now, "%s revoked the token %s of %s.", actor.Subject, id, all[i].Name)
	_, err = c.o.Store.Commit(ctx, store.Change{Tokens: all[i : i+1], Events: []delivery.Event{e}})
	return err
}

// EnrolledHosts lists the machines that are hosts.
func (c *Control) EnrolledHosts(ctx context.Context, actor delivery.Actor) (wire.List[wire.Host], error) {
	list := wire.List[wire.Host]{Items: []wire.Host{}}
	if err := c.may(ctx, actor, OpRead); err != nil {
		return list, err
	}
	all, err := c.o.Store.Hosts(ctx)
	for _, h := range all {
		list.Items = append(list.Items, wire.Host{Name: h.Name, EnrolledAt: h.EnrolledAt, SeenAt: h.SeenAt})
	}
	return list, err
}

// Ready checks what the server needs.
func (c *Control) Ready(ctx context.Context) wire.Health {
	h := wire.Health{Status: "ok"}
	check := wire.Check{Name: "store", OK: true}
	if _, err := c.o.Store.AuditSize(ctx); err != nil {
		check.OK, check.Message, h.Status = false, err.Error(), "unavailable"
	}
	h.Checks = append(h.Checks, check)
	return h
}

// AuditEntries lists entries of the audit log.
func (c *Control) AuditEntries(ctx context.Context, actor delivery.Actor, q wire.AuditQuery) (wire.List[wire.AuditEntry], error) {
	list := wire.List[wire.AuditEntry]{Items: []wire.AuditEntry{}}
	if err := c.may(ctx, actor, OpRead); err != nil {
		return list, err
	}
	limit := min(max(q.Limit, 0), 1000)
	if limit == 0 {
		limit = 100
	}
	if q.Last > 0 {
		size, err := c.o.Store.AuditSize(ctx)
		if err != nil {
			return list, err
		}
		limit = min(q.Last, 1000)
		q.From = max(0, size-int64(limit))
	}
	entries, err := c.o.Store.AuditEntries(ctx, q.From, limit)
	for _, e := range entries {
		list.Items = append(list.Items, wire.AuditEntry{Index: e.Index, Event: e.Payload, Salt: e.Salt, Leaf: e.Leaf})
	}
	return list, err
}

// AuditProof proves that an entry is in the log.
func (c *Control) AuditProof(ctx context.Context, actor delivery.Actor, index int64) (audit.Proof, error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return audit.Proof{}, err
	}
	return c.o.Audit.InclusionProof(ctx, index)
}

// AuditCheckpoint returns the signed head of the log.
func (c *Control) AuditCheckpoint(ctx context.Context, actor delivery.Actor) (wire.Checkpoint, error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return wire.Checkpoint{}, err
	}
	note, err := c.o.Audit.Checkpoint(ctx)
	if err != nil {
		return wire.Checkpoint{}, err
	}
	size, err := c.o.Store.AuditSize(ctx)
	return wire.Checkpoint{Size: size, Note: note, PublicKey: c.o.Audit.Verifier()}, err
}

// AuditExport writes the whole log in the form that 'tidegate audit verify' reads.
func (c *Control) AuditExport(ctx context.Context, actor delivery.Actor, w io.Writer) error {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return err
	}
	return c.o.Audit.Export(ctx, w)
}

// Changed returns a channel that is closed at the next audit entry.
func (c *Control) Changed() <-chan struct{} { return c.o.Store.Changed() }
