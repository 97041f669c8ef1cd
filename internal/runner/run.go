package runner

import (
	"context"
	"errors"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// Run drives every due placement until ctx is done, then waits for the turns
// and effects under way and gives all leases back.
func (r *Runner) Run(ctx context.Context) error {
	slots := make(chan struct{}, maxAtOnce)
	for ctx.Err() == nil {
		due, next, err := r.o.Store.Due(ctx)
		if err == nil {
			var leases []store.Lease
			leases, err = r.o.Store.Claim(ctx, r.o.Holder, leaseTime, maxAtOnce)
			for _, l := range leases {
				slots <- struct{}{}
				r.work.Go(func() {
					r.drive(ctx, l)
					<-slots
				})
			}
			if len(leases) == maxAtOnce {
				continue
			}
		}
		if err != nil && ctx.Err() == nil {
			r.o.Log.Warn("the store does not answer", "error", err)
		}
		r.wait(ctx, due, next)
	}
	r.work.Wait()
	return nil
}

// wait returns when something may be due.
func (r *Runner) wait(ctx context.Context, due <-chan struct{}, next time.Time) {
	pause := sweep
	if !next.IsZero() {
		if now, err := r.o.Store.Now(ctx); err == nil {
			pause = max(5*time.Millisecond, min(pause, next.Sub(now)))
		}
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-due:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// drive advances one placement and gives it back. A placement that fails is
// left alone for a while, so that it does not take the others' time.
func (r *Runner) drive(ctx context.Context, l store.Lease) {
	if rest := r.backingOff(l.Key); rest > 0 {
		// Keeping the lease is what leaves it alone.
		if _, err := r.o.Store.Renew(ctx, l, rest); err == nil {
			return
		}
	}
	defer func() {
		// The lease is given back even when we are stopping, so that nobody waits for it.
		if err := r.o.Store.Yield(context.WithoutCancel(ctx), l); err != nil {
			r.o.Log.Warn("lease not given back", "placement", l.Key.String(), "error", err)
		}
	}()
	err := r.Advance(ctx, l)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil || ctx.Err() != nil || delivery.ErrorCode(err) == delivery.CodeConflict {
		delete(r.failures, l.Key)
		return
	}
	f := r.failures[l.Key]
	f.times++
	f.until = time.Now().Add(min(firstBackOff<<min(f.times-1, 10), lastBackOff))
	r.failures[l.Key] = f
	attributes := []any{"placement", l.Key.String(), "error", err, "times", f.times}
	if cause := errors.Unwrap(err); cause != nil {
		attributes = append(attributes, "cause", cause)
	}
	r.o.Log.Error("turn failed", attributes...)
}

// backingOff returns for how long a placement is left alone still.
func (r *Runner) backingOff(key delivery.PlacementKey) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.failures[key]
	if !ok {
		return 0
	}
	return time.Until(f.until)
}

// Drain claims and advances until nothing is due: what virtual time does
// between two moments. It returns how many placements it advanced.
func (r *Runner) Drain(ctx context.Context) (int, error) {
	for n := 0; ; {
		leases, err := r.o.Store.Claim(ctx, r.o.Holder, leaseTime, 1)
		if err != nil || len(leases) == 0 {
			return n, err
		}
		n++
		err = r.Advance(ctx, leases[0])
		if yielded := r.o.Store.Yield(ctx, leases[0]); err == nil {
			err = yielded
		}
		if err != nil && delivery.ErrorCode(err) != delivery.CodeConflict {
			return n, err
		}
	}
}
