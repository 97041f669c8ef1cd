package remote

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// doTime is how long one effect may take.
const doTime = 30 * time.Second

// Run enrols if need be, then claims effects, does them on the machine and
// returns what came of them, until ctx ends. It returns an error of its own
// only when trying again can't help: a token that is refused, a server that is
// not the one that made it, a removed host.
func (c *Client) Run(ctx context.Context, m Machine) error {
	if err := c.enrolled(ctx); err != nil {
		return err
	}
	r := &run{client: c, machine: m, inFlight: map[delivery.EffectKey]bool{}, queues: map[delivery.PlacementKey][]delivery.Effect{}, arrived: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var loops sync.WaitGroup
	loops.Go(func() { r.poll(ctx, cancel) })
	loops.Go(func() { r.send(ctx) })
	loops.Wait()
	r.work.Wait()
	return context.Cause(ctx)
}

// enrolled waits until the machine has a certificate.
func (c *Client) enrolled(ctx context.Context) error {
	for try := 0; ; try++ {
		ok, err := c.Enrolled()
		if ok || err != nil {
			return err
		}
		err = c.Enrol(ctx)
		if err != nil && delivery.ErrorCode(err) != delivery.CodeUnavailable {
			return err
		}
		if err != nil {
			c.options.Log.Warn("enrolment failed; trying again", "error", err)
			if err := c.wait(ctx, try); err != nil {
				return err
			}
		}
	}
}

// wait pauses after a failed try: exponential with full jitter, so that many
// machines don't come back to a restarted server at one time.
func (c *Client) wait(ctx context.Context, try int) error {
	low, high := c.options.Wait[0], c.options.Wait[1]
	d := min(low<<min(try, 16), high)
	d = low/2 + rand.N(d)
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run is one Run of a client.
type run struct {
	client  *Client
	machine Machine
	work    sync.WaitGroup
	arrived chan struct{} // a result waits

	mu       sync.Mutex
	inFlight map[delivery.EffectKey]bool // received, and no result acknowledged
	queues   map[delivery.PlacementKey][]delivery.Effect
	results  []delivery.Result // not acknowledged
}

// poll claims effects and log requests.
func (r *run) poll(ctx context.Context, end context.CancelCauseFunc) {
	c := r.client
	for try := 0; ctx.Err() == nil; {
		if err := c.renew(ctx); err != nil {
			c.options.Log.Warn("the certificate can't be renewed yet", "error", err)
		}
		var reply effectsReply
		err := c.post(ctx, pathEffects, effectsRequest{InFlight: r.busy()}, &reply)
		if ctx.Err() != nil {
			return
		}
		if delivery.ErrorCode(err) == delivery.CodeDenied {
			end(err)
			return
		}
		if err != nil {
			if try == 0 {
				c.options.Log.Warn("the server does not answer; programs and traffic go on", "error", err)
			}
			_ = c.wait(ctx, try) // the loop's condition sees the end
			try++
			continue
		}
		if try > 0 {
			c.options.Log.Info("the server answers again", "tries", try)
		}
		try = 0
		r.machine.SetTargets(reply.Targets)
		for _, e := range reply.Effects {
			r.accept(ctx, e)
		}
		for _, q := range reply.Logs {
			r.work.Go(func() { r.answerLogs(ctx, q) })
		}
	}
}

func (r *run) busy() []delivery.EffectKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := make([]delivery.EffectKey, 0, len(r.inFlight))
	for k := range r.inFlight {
		keys = append(keys, k)
	}
	return keys
}

// accept queues an effect: those of one placement run in their order, those of
// different placements beside each other.
func (r *run) accept(ctx context.Context, e delivery.Effect) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inFlight[e.Key] {
		return
	}
	r.inFlight[e.Key] = true
	queue, running := r.queues[e.Placement]
	r.queues[e.Placement] = append(queue, e)
	if !running {
		r.work.Go(func() { r.drain(ctx, e.Placement) })
	}
}

// drain does the effects of a placement until none is left.
func (r *run) drain(ctx context.Context, key delivery.PlacementKey) {
	for {
		r.mu.Lock()
		queue := r.queues[key]
		if len(queue) == 0 {
			delete(r.queues, key)
			r.mu.Unlock()
			return
		}
		r.queues[key] = queue[1:]
		r.mu.Unlock()
		r.do(ctx, queue[0])
	}
}

// do performs one effect. An error means that nobody knows whether it was
// done: it is forgotten here, and the server offers it again.
func (r *run) do(ctx context.Context, e delivery.Effect) {
	bounded, cancel := context.WithTimeout(ctx, doTime)
	defer cancel()
	result, err := r.machine.Do(bounded, e)
	if err != nil {
		r.client.options.Log.Error("effect failed without a result; it will be tried again", "effect", e.Key.String(), "kind", e.Kind(), "error", err)
		_ = r.client.wait(ctx, 3) // not at once: the server would offer it in the same moment
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		delete(r.inFlight, e.Key)
		return
	}
	r.results = append(r.results, result)
	select {
	case r.arrived <- struct{}{}:
	default:
	}
}

// send delivers results and reports: results until they are acknowledged, a
// report with every result, when it differs from the last one, and at least
// every Repeat.
func (r *run) send(ctx context.Context) {
	c := r.client
	sent, last := "", time.Time{}
	ticker := time.NewTicker(c.options.Tick)
	defer ticker.Stop()
	for try := 0; ; {
		changed := r.machine.Changed() // before reading, so that nothing is missed
		results := r.waiting()         // before the reports, which show what came of them
		reports, err := r.machine.Reports(ctx)
		if err != nil {
			c.options.Log.Error("the machine can't report", "error", err)
			reports = nil
		}
		now, content := c.options.Now(), contentOf(reports)
		if content == sent && len(results) == 0 && now.Sub(last) < c.options.Repeat {
			reports = nil
		}
		if len(results)+len(reports) > 0 {
			err := c.post(ctx, pathDeliver, deliverRequest{Results: results, Reports: reports}, nil)
			if err != nil {
				if c.wait(ctx, try) != nil {
					return
				}
				try++
				continue
			}
			try = 0
			r.acknowledged(results)
			if reports != nil {
				sent, last = content, now
			}
		}
		select {
		case <-changed:
		case <-r.arrived:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// contentOf returns what makes reports differ: all but their times.
func contentOf(reports []delivery.Report) string {
	bare := make([]delivery.Report, len(reports))
	for i, r := range reports {
		r.At = time.Time{}
		bare[i] = r
	}
	b, err := json.Marshal(bare)
	if err != nil {
		panic(err) // plain structs
	}
	return string(b)
}

// waiting returns the results to deliver, few enough for one request.
func (r *run) waiting() []delivery.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]delivery.Result(nil), r.results[:min(len(r.results), maxEffects)]...)
}

// acknowledged forgets delivered results; the first len(results) are they.
func (r *run) acknowledged(results []delivery.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, result := range results {
		delete(r.inFlight, result.Key)
	}
	r.results = r.results[len(results):]
}

// answerLogs reads what somebody asked for and sends it.
func (r *run) answerLogs(ctx context.Context, q logRequest) {
	ctx, cancel := context.WithTimeout(ctx, doTime)
	defer cancel()
	if q.Query.Lines <= 0 {
		q.Query.Lines = 100
	}
	q.Query.Lines = min(q.Query.Lines, maxLogLines)
	answer := logAnswer{ID: q.ID}
	lines, err := r.machine.Logs(ctx, q.Query)
	if err != nil {
		answer.Error = err.Error()
	}
	size := 0
	for i := len(lines) - 1; i >= 0; i-- { // the newest first, as many as fit
		lines[i].Text = lines[i].Text[:min(len(lines[i].Text), maxLineLength)]
		if size += len(lines[i].Text) + 300; size > maxRequest/2 {
			lines = lines[i+1:]
			break
		}
	}
	answer.Lines = lines
	if err := r.client.post(ctx, pathLogs, answer, nil); err != nil {
		r.client.options.Log.Warn("the answer to a log request could not be sent", "error", err)
	}
}
