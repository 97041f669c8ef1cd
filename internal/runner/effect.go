package runner

import (
	"context"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// effectTime bounds one effect.
const effectTime = 30 * time.Second

// perform does the pending effects that are this process's: inline, or each
// in the background, where the results wake the placement. Done means that
// results were committed meanwhile.
func (r *Runner) perform(ctx context.Context, pending []delivery.Effect) (done bool, err error) {
	for _, e := range pending {
		if !r.mine(e) {
			continue
		}
		if r.o.Inline {
			if err := r.effect(ctx, e); err != nil {
				return done, err
			}
			done = true
			continue
		}
		r.background(ctx, e)
	}
	return done, nil
}

// effect performs one effect and commits its result. An error of the target
// means that nobody knows whether it was done: the intent stays pending, and
// is done again with the same key.
func (r *Runner) effect(ctx context.Context, e delivery.Effect) error {
	ctx, cancel := context.WithTimeout(ctx, effectTime)
	defer cancel()
	var result delivery.Result
	if t, local := r.o.Targets[e.Target]; local {
		var err error
		if result, err = t.Do(ctx, e); err != nil {
			return err
		}
	} else {
		result = r.o.Calls.Call(ctx, e)
	}
	now, err := r.o.Store.Now(ctx)
	if err != nil {
		return err
	}
	result.Key, result.At = e.Key, now
	_, err = r.o.Store.Commit(ctx, store.Change{Results: []delivery.Result{result}})
	return err
}

// background performs an effect unless it is under way, behind its target's bulkhead.
func (r *Runner) background(ctx context.Context, e delivery.Effect) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inFlight[e.Key] {
		return
	}
	gate := r.bulkhead[e.Target]
	if gate == nil {
		gate = make(chan struct{}, perTarget)
		r.bulkhead[e.Target] = gate
	}
	select {
	case gate <- struct{}{}:
	default:
		return // the target has enough to do; a later turn comes back to it
	}
	r.inFlight[e.Key] = true
	r.work.Go(func() {
		err := r.effect(ctx, e)
		r.mu.Lock()
		delete(r.inFlight, e.Key)
		r.mu.Unlock()
		<-gate
		if err != nil && ctx.Err() == nil {
			r.o.Log.Warn("effect not done", "key", e.Key.String(), "target", e.Target, "error", err)
		}
	})
}
