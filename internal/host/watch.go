package host

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// Defaults of the end of an instance, for a plan that names none.
const (
	stopDrain = 5 * time.Second
	stopGrace = 10 * time.Second
)

// watched is how the watch over a process ended.
type watched int

const (
	watchDetached watched = iota // the supervisor ends; the process goes on
	watchStop                    // the instance shall end
	watchExited                  // the process ended
	watchSlow                    // it did not get ready in time, or was not ready for as long
)

// watch probes a process until something is to be done about it.
func (s *Supervisor) watch(ctx context.Context, k *keeper, p *process) watched {
	probing, cancel := context.WithCancel(ctx)
	defer cancel()
	spec := k.workload.Readiness
	interval, limit := orDefault(spec.Interval, probeInterval), orDefault(spec.Timeout, probeTimeout)
	s.mu.Lock()
	port, ready := k.instance.Port, k.instance.Ready
	s.mu.Unlock()
	good := p.record.At // the last time it was ready, or its start
	since := s.options.Now()
	if ready {
		good = since
	}
	failures, next := 0, probeFirst
	timer := time.NewTimer(0)
	defer timer.Stop()
	answers := make(chan error, 1) // a probe that is under way ends with probing
	for {
		select {
		case <-ctx.Done():
			return watchDetached
		case <-p.exited:
			return watchExited
		case <-k.stop:
			return watchStop
		case <-k.forgiven:
			continue
		case <-timer.C:
			go func() { answers <- probe(probing, spec, port) }()
			continue
		case err := <-answers:
			now := s.options.Now()
			switch {
			case err == nil:
				failures, good = 0, now
				if !ready {
					ready, since = true, now
					s.becameReady(k)
				} else if now.Sub(since) >= s.options.BackOff.Reset {
					s.settled(k)
				}
			case now.Sub(good) >= limit:
				s.notReady(k, err)
				return watchSlow
			case ready:
				if failures++; failures >= probeFailures && s.unready(k, err) {
					ready = false
				}
			default:
				s.notReady(k, err)
			}
			// Most programs are ready soon: the first tries come quickly.
			next = min(2*next, interval)
			wait := next
			if ready {
				wait = max(interval, probeReady)
			}
			timer.Reset(wait)
		}
	}
}

// becameReady lets an instance have traffic.
func (s *Supervisor) becameReady(k *keeper) {
	s.options.Log.Info("instance ready", "placement", k.key.String(), "instance", k.id)
	_ = s.update(k, func(i *instanceRecord) {
		if !i.Stopping {
			i.Ready, i.Message = true, ""
		}
	})
}

// settled forgets earlier exits of an instance that was ready for long.
func (s *Supervisor) settled(k *keeper) {
	s.mu.Lock()
	quiet := k.instance.Exits == 0 && !k.instance.Failed
	s.mu.Unlock()
	if !quiet {
		_ = s.update(k, func(i *instanceRecord) { i.Exits, i.Failed = 0, false })
	}
}

// notReady notes why an instance is not ready yet. It is not written down: the
// next supervisor sees for itself.
func (s *Supervisor) notReady(k *keeper, err error) {
	line := lastLine(k.output, s.redactorOf(k.id))
	message := sentence(notReadyYet + err.Error())
	if line != "" {
		message += lastLineIs + line
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k.instance.Message = message
}

// unready takes an instance out of the traffic because it does not answer any
// more, unless it is the last of its workload: then it keeps what it can serve.
func (s *Supervisor) unready(k *keeper, err error) bool {
	taken := false
	_ = s.update(k, func(i *instanceRecord) {
		others := 0
		for _, o := range s.records[k.key].instances(k.service, k.digest) {
			if o != i && o.Ready {
				others++
			}
		}
		i.Message = sentence("It does not answer any more: " + err.Error())
		if taken = others > 0; taken {
			i.Ready = false
		}
	})
	s.options.Log.Warn("instance does not answer", "instance", k.id, "error", err, "taken_out", taken)
	return taken
}

// end takes an instance out of the traffic, waits for its requests under way,
// and ends it. It reports whether the process has ended.
func (s *Supervisor) end(ctx context.Context, k *keeper, p *process) bool {
	s.mu.Lock()
	i := k.instance
	backend := backendID(i)
	i.Stopping, i.Ready = true, false
	s.changedLocked()
	s.mu.Unlock()
	s.router.drain(ctx, p.exited, backend, orDefault(k.workload.Stop.Drain, stopDrain))
	if ctx.Err() != nil {
		return false
	}
	s.options.Log.Info("instance stops", "placement", k.key.String(), "instance", k.id)
	return terminate(ctx, p, orDefault(k.workload.Stop.Grace, stopGrace))
}

// removeHome deletes what an instance wrote to its home directory.
func (s *Supervisor) removeHome(k *keeper) {
	dir := filepath.Join(s.layout.workloadDir(k.key, k.service, k.digest), k.id)
	if err := os.RemoveAll(dir); err != nil {
		s.options.Log.Warn("an instance's directory could not be removed", "dir", dir, "error", err)
	}
}
