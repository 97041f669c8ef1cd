package host

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Exits in a row after which a workload counts as failed: it will not become
// ready by itself. It is tried on all the same, for what is mended outside.
const (
	exitsUnready = 3 // ended before it was ready
	exitsReady   = 5 // was ready, but never for long
)

// Parts of an instance's message.
const (
	notReadyYet = "Not ready yet: "
	lastLineIs  = " Its last line: "
)

// keeper keeps one instance: starts it, watches it, ends it.
type keeper struct {
	key      delivery.PlacementKey
	instance *instanceRecord // guarded by Supervisor.mu
	id       string
	service  string
	digest   delivery.Digest
	workload delivery.Workload
	output   string        // path
	stop     chan struct{} // closed when it shall end
	forgiven chan struct{} // gets a value when a start asks for it anew
}

// stopLocked tells k to end its instance. Supervisor.mu is held.
func (k *keeper) stopLocked() {
	select {
	case <-k.stop:
	default:
		close(k.stop)
	}
}

// keepLocked starts the keeper of an instance. s.mu is held.
func (s *Supervisor) keepLocked(ctx context.Context, r *record, i *instanceRecord) {
	svc := r.service(i.Service)
	if svc == nil || svc.workload(i.Workload) == nil {
		s.options.Log.Error("an instance belongs to no workload; its record was changed by hand", "instance", i.ID)
		return
	}
	w := svc.workload(i.Workload)
	output, err := s.outputs.path(r.Key, i.Service, i.Workload, i.ID)
	if err != nil {
		s.options.Log.Error("an instance's log can't be written; trying again", "instance", i.ID, "error", err)
		return
	}
	k := &keeper{
		key: r.Key, instance: i, id: i.ID, service: i.Service, digest: i.Workload, workload: w.Workload,
		output: output, stop: make(chan struct{}), forgiven: make(chan struct{}, 1),
	}
	if i.Stopping {
		k.stopLocked()
	}
	s.keepers[i.ID] = k
	s.work.Go(func() { s.keep(ctx, k) })
}

// forgive makes a workload's instances start anew: somebody asked for it again.
// s.mu is held.
func (s *Supervisor) forgive(r *record, e *delivery.StartEffect) {
	for _, i := range r.instances(e.Service, e.Digest) {
		i.Failed, i.Exits = false, 0
		if k := s.keepers[i.ID]; k != nil {
			select {
			case k.forgiven <- struct{}{}:
			default:
			}
		}
	}
}

// update changes an instance's record, and writes it.
func (s *Supervisor) update(k *keeper, change func(i *instanceRecord)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(k.instance)
	s.changedLocked()
	return s.saveLocked(s.records[k.key])
}

// keep is the life of an instance. When ctx ends, the program goes on.
func (s *Supervisor) keep(ctx context.Context, k *keeper) {
	p := s.adoptInstance(ctx, k)
	for ctx.Err() == nil {
		if p == nil {
			select {
			case <-k.stop:
				s.forget(k)
				return
			default:
			}
			var err error
			if p, err = s.launch(ctx, k); err != nil {
				s.notStarted(ctx, k, err)
				s.pause(ctx, k)
				continue
			}
		}
		switch s.watch(ctx, k, p) {
		case watchDetached:
			return
		case watchStop:
			if !s.end(ctx, k, p) {
				return
			}
			s.forget(k)
			return
		case watchSlow:
			if !terminate(ctx, p, orDefault(k.workload.Stop.Grace, stopGrace)) {
				return
			}
			s.exited(k, p, true)
		case watchExited:
			s.exited(k, p, false)
		}
		sweepMarked(k.id)
		p = nil
		s.pause(ctx, k)
	}
}

// adoptInstance finds the process of an instance that an earlier supervisor
// started; nil if there is none.
func (s *Supervisor) adoptInstance(ctx context.Context, k *keeper) *process {
	s.mu.Lock()
	was := k.instance.Process
	port := k.instance.Port
	s.mu.Unlock()
	var found processRecord
	switch {
	case was != nil && was.alive():
		found = *was
	case port != 0:
		// It may have been started and not written down.
		if p, ok := find(k.id, s.options.Now()); ok {
			found = p
		}
	}
	if found.PID != 0 {
		if p := adopt(ctx, found); p != nil {
			s.keepSecrets(k.id, secretsOf(found.PID, k.workload.Secrets))
			_ = s.update(k, func(i *instanceRecord) { i.Process = &found })
			s.options.Log.Info("instance adopted", "instance", k.id, "pid", found.PID)
			return p
		}
	}
	if was != nil {
		s.options.Log.Warn("an instance ended while no supervisor ran", "instance", k.id)
		_ = s.update(k, func(i *instanceRecord) { i.Process, i.Ready, i.Restarts = nil, false, i.Restarts+1 })
		sweepMarked(k.id)
	}
	return nil
}

// launch starts an instance's program.
func (s *Supervisor) launch(ctx context.Context, k *keeper) (*process, error) {
	at, err := s.prepare(ctx, k.key, k.digest, k.workload)
	if err != nil {
		return nil, err
	}
	values, err := resolveSecrets(k.workload.Secrets)
	if err != nil {
		return nil, err
	}
	home, err := s.layout.home(at.dir, k.id)
	if err != nil {
		return nil, err
	}
	port, err := s.allotPort()
	if err != nil {
		return nil, err
	}
	// Written down before the program starts: a supervisor that dies in
	// between leaves a process that the next one finds by its mark.
	if err := s.update(k, func(i *instanceRecord) { i.Port, i.Process = port, nil }); err != nil {
		return nil, err
	}
	s.keepSecrets(k.id, valuesOf(values))
	p, err := start(spec{
		program: at.program, args: withPort(k.workload.Args, port), dir: at.root, output: k.output, owner: s.layout.owner,
		env: environmentOf(k.workload.Env, values, home, k.id, port),
	}, s.options.Now)
	if err != nil {
		return nil, delivery.Wrap(delivery.CodeInvalid, err, "the program of %s can't be started (%v).", k.service, errors.Unwrap(err))
	}
	_ = s.update(k, func(i *instanceRecord) { i.Process, i.Message = &p.record, "" }) // tried again by the tick
	s.options.Log.Info("instance started", "placement", k.key.String(), "instance", k.id, "pid", p.record.PID, "port", port)
	return p, nil
}

// keepSecrets remembers what to keep out of an instance's logs.
func (s *Supervisor) keepSecrets(instance string, values []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[instance] = append(s.secrets[instance], values...)
}

func (s *Supervisor) redactorOf(instance string) redactor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return newRedactor(s.secrets[instance]...)
}

func valuesOf(m map[string]string) []string {
	var values []string
	for _, v := range m {
		values = append(values, v)
	}
	return values
}

func withPort(args []string, port int) []string {
	filled := make([]string, len(args))
	for i, a := range args {
		filled[i] = strings.ReplaceAll(a, "${PORT}", strconv.Itoa(port))
	}
	return filled
}

// environmentOf is all that a program sees: the minimum to run, then what the
// plan says, then secrets. Nothing of the host's own environment.
func environmentOf(plain, secrets map[string]string, home, instance string, port int) []string {
	all := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME": home, "TMPDIR": home + "/tmp", "PORT": strconv.Itoa(port),
	}
	for name, value := range plain {
		all[name] = strings.ReplaceAll(value, "${PORT}", strconv.Itoa(port))
	}
	for name, value := range secrets {
		all[name] = value
	}
	all[markInstance] = instance
	env := make([]string, 0, len(all))
	for name, value := range all {
		env = append(env, name+"="+value)
	}
	return env
}

// allotPort finds a loopback port that nobody listens on and no instance has.
func (s *Supervisor) allotPort() (int, error) {
	s.mu.Lock()
	used := map[int]bool{}
	for _, r := range s.records {
		for _, i := range r.Instances {
			used[i.Port] = true
		}
	}
	s.mu.Unlock()
	first, n := s.options.Ports.First, s.options.Ports.Last-s.options.Ports.First+1
	if n <= 0 {
		return 0, delivery.Errorf(delivery.CodeInvalid, "the host's port range %d to %d is empty.", first, s.options.Ports.Last)
	}
	// From a random place on, so that two hosts of one machine seldom try the same.
	for i, from := 0, rand.IntN(n); i < n; i++ {
		port := first + (from+i)%n
		if used[port] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, delivery.Errorf(delivery.CodeUnavailable, "no port from %d to %d is free.", first, s.options.Ports.Last)
}

// notStarted notes why an instance could not be started. What the release or
// the host's configuration is to blame for counts as failed; what the network,
// the server or the disk is to blame for does not.
func (s *Supervisor) notStarted(ctx context.Context, k *keeper, err error) {
	if ctx.Err() != nil {
		return
	}
	message := s.redactorOf(k.id).clean(err.Error())
	code := delivery.ErrorCode(err)
	failed := code == delivery.CodeInvalid || code == delivery.CodeNotFound
	s.options.Log.Warn("instance not started", "placement", k.key.String(), "instance", k.id, "error", message)
	_ = s.update(k, func(i *instanceRecord) {
		i.Exits++
		i.Failed = i.Failed || failed
		i.Message = sentence("It could not be started: " + message)
	})
}

// exited notes that an instance ended, or was ended because it took too long.
func (s *Supervisor) exited(k *keeper, p *process, slow bool) {
	line := lastLine(k.output, s.redactorOf(k.id))
	_ = s.update(k, func(i *instanceRecord) {
		i.Exits++
		i.Restarts++
		switch {
		case slow:
			i.Failed = true
			why, _, _ := strings.Cut(strings.TrimPrefix(i.Message, notReadyYet), lastLineIs)
			i.Message = sentence(fmt.Sprintf("It was not ready within %s: %s", orDefault(k.workload.Readiness.Timeout, probeTimeout), why))
		case i.Ready:
			i.Failed = i.Failed || i.Exits >= exitsReady
			i.Message = sentence("It ended: " + p.ending())
		default:
			i.Failed = i.Failed || i.Exits >= exitsUnready
			i.Message = sentence("It ended before it was ready: " + p.ending())
		}
		if line != "" {
			i.Message += lastLineIs + line
		}
		i.Ready, i.Process = false, nil
		s.options.Log.Warn("instance ended", "placement", k.key.String(), "instance", k.id, "message", i.Message, "exits", i.Exits)
	})
}

func sentence(s string) string { return strings.TrimRight(s, ".") + "." }

// pause waits before the next start, unless the instance shall end or
// somebody asks for it anew.
func (s *Supervisor) pause(ctx context.Context, k *keeper) {
	s.mu.Lock()
	exits := k.instance.Exits
	s.mu.Unlock()
	b := s.options.BackOff
	timer := time.NewTimer(min(b.First<<min(max(exits-1, 0), 20), b.Max))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-k.forgiven:
	case <-k.stop:
	case <-ctx.Done():
	}
}

// forget removes an instance that has ended.
func (s *Supervisor) forget(k *keeper) {
	sweepMarked(k.id)
	s.removeHome(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.records[k.key]
	for n, i := range r.Instances {
		if i == k.instance {
			// A new slice: a record that is being made from r may share the old one.
			r.Instances = append(append([]*instanceRecord(nil), r.Instances[:n]...), r.Instances[n+1:]...)
			break
		}
	}
	delete(s.keepers, k.id)
	delete(s.secrets, k.id)
	s.changedLocked()
	_ = s.saveLocked(r)
	used := map[string]bool{}
	for _, i := range r.Instances {
		used[i.ID] = true
	}
	if err := s.outputs.prune(k.key, used); err != nil {
		s.options.Log.Warn("old logs could not be removed", "placement", k.key.String(), "error", err)
	}
	s.wake()
}
