package store

import (
	"context"
	"fmt"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// core is a [Store] over a backend: all that the memory store and the SQLite
// store have in common, which is everything but keeping rows.
type core struct {
	backend backend
	options Options
	signals *signals
}

func newCore(b backend, o Options) *core {
	return &core{backend: b, options: o.withDefaults(), signals: newSignals()}
}

// now is the store's time in microseconds.
func (s *core) now() int64 { return s.options.Now().UnixMicro() }

// Now returns the time that leases are measured on.
func (s *core) Now(context.Context) (time.Time, error) { return fromMicros(s.now()), nil }

// Changed returns a channel that is closed at the next committed audit entry.
func (s *core) Changed() <-chan struct{} { return s.signals.changed() }

// Close ends the store. What was committed stays.
func (s *core) Close() error { return s.backend.close() }

// Due implements [Store].
func (s *core) Due(ctx context.Context) (<-chan struct{}, time.Time, error) {
	channel := s.signals.due(ctx)
	var next int64
	err := s.backend.view(ctx, func(t tables) (err error) {
		next, err = t.nextDue(delivery.PlacementFormat)
		return err
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	return channel, fromMicros(next), nil
}

// Commit implements [Store].
func (s *core) Commit(ctx context.Context, c Change) (Committed, error) {
	p, err := prepare(c, s.options.Random)
	if err != nil {
		return Committed{}, err
	}
	if err := s.options.Fault("commit.before"); err != nil {
		return Committed{}, err
	}
	var a *applier
	err = s.backend.update(ctx, func(t tables) error {
		a = &applier{tables: t, change: p, now: s.now(), committed: Committed{FirstAudit: -1}}
		return a.apply()
	})
	if err != nil {
		return Committed{}, err
	}
	s.signals.notify(a.due, len(p.Events) > 0)
	if err := s.options.Fault("commit.after"); err != nil {
		return Committed{}, err
	}
	return a.committed, nil
}

// Claim implements [Store].
func (s *core) Claim(ctx context.Context, holder string, ttl time.Duration, max int) ([]Lease, error) {
	if holder == "" || ttl < time.Microsecond || max < 1 {
		return nil, delivery.Errorf(delivery.CodeInvalid, "A claim needs a holder, a time to live and a count, not %q, %s and %d.", holder, ttl, max)
	}
	idle := false // an idle claim costs no write
	err := s.backend.view(ctx, func(t tables) error {
		rows, err := t.duePlacements(s.now(), delivery.PlacementFormat, 1)
		idle = len(rows) == 0
		return err
	})
	if err != nil || idle {
		return nil, err
	}
	if err := s.options.Fault("claim.before"); err != nil {
		return nil, err
	}
	var leases []Lease
	err = s.backend.update(ctx, func(t tables) error {
		leases = nil
		now := s.now()
		rows, err := t.duePlacements(now, delivery.PlacementFormat, max)
		if err != nil {
			return err
		}
		for _, r := range rows {
			r.token++
			r.holder = holder
			r.expires = now + ttl.Microseconds()
			r.seen = r.arrivals
			if err := t.putPlacement(r); err != nil {
				return err
			}
			leases = append(leases, Lease{Key: r.key, Holder: holder, Token: r.token, Expires: fromMicros(r.expires)})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.options.Fault("claim.after"); err != nil {
		return nil, err
	}
	return leases, nil
}

// Renew implements [Store].
func (s *core) Renew(ctx context.Context, l Lease, ttl time.Duration) (Lease, error) {
	if ttl < time.Microsecond {
		return Lease{}, delivery.Errorf(delivery.CodeInvalid, "A lease can't be renewed for %s.", ttl)
	}
	err := s.backend.update(ctx, func(t tables) error {
		now := s.now()
		r, err := leased(t, l, now)
		if err != nil {
			return err
		}
		r.expires = now + ttl.Microseconds()
		l.Expires = fromMicros(r.expires)
		return t.putPlacement(r)
	})
	if err != nil {
		return Lease{}, err
	}
	return l, nil
}

// Yield implements [Store].
func (s *core) Yield(ctx context.Context, l Lease) error {
	due := false
	err := s.backend.update(ctx, func(t tables) error {
		r, err := leased(t, l, s.now())
		if delivery.ErrorCode(err) == delivery.CodeConflict {
			return nil
		}
		if err != nil {
			return err
		}
		due = r.due != never
		r.holder, r.expires = "", 0
		return t.putPlacement(r)
	})
	if err != nil {
		return err
	}
	s.signals.notify(due, false)
	return nil
}

// leased returns the placement of a lease that holds at now.
func leased(t tables, l Lease, now int64) (placementRow, error) {
	r, ok, err := t.placement(l.Key)
	if err != nil {
		return r, err
	}
	switch {
	case !ok || r.token != l.Token || r.holder != l.Holder:
		return r, delivery.Errorf(delivery.CodeConflict, "The lease of %s with token %d was lost to another; claim it again.", l.Key, l.Token)
	case r.expires <= now:
		return r, delivery.Errorf(delivery.CodeConflict, "The lease of %s with token %d has run out; claim it again.", l.Key, l.Token)
	}
	return r, nil
}

// internalError is our own fault: stored rows that can't be read, for example.
func internalError(cause error, format string, args ...any) error {
	return delivery.Wrap(delivery.CodeInternal, fmt.Errorf("store: %s: %w", fmt.Sprintf(format, args...), cause),
		"The store failed: its cause is in the server's log.")
}
