package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/host/proxy"
)

// Supervisor keeps programs, router and tasks as effects want them. It
// implements target.Target in process and remote.Machine for a server.
type Supervisor struct {
	options Options
	layout  layout
	states  states
	cache   *cache
	outputs outputs
	router  *routing
	lock    *os.File // held while this supervisor owns its directory

	work   sync.WaitGroup
	wakeup chan struct{} // the wanted state may differ from what is

	mu      sync.Mutex
	records map[delivery.PlacementKey]*record
	keepers map[string]*keeper             // by instance
	tasks   map[delivery.EffectKey]bool    // that a goroutine works on
	unsaved map[delivery.PlacementKey]bool // whose file is older than its record
	secrets map[string][]string            // instance → values that its process was given
	targets []string
	changed chan struct{} // closed at the next change that a report shows
	ran     bool
}

// New opens the data directory and reads what is wanted. It starts nothing;
// Run does. Another supervisor in the same directory is a conflict.
func New(o Options) (*Supervisor, error) {
	o = o.withDefaults()
	if o.Dir == "" {
		return nil, delivery.Errorf(delivery.CodeInvalid, "The host needs a data directory.")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	o.Dir = dir
	unusable := func(err error) error {
		if _, ok := errors.AsType[*delivery.Error](err); ok {
			return err
		}
		return delivery.Wrap(delivery.CodeInternal, err, "The host's data directory %s can't be used (%v).", dir, err)
	}
	l, err := openLayout(dir, o.User)
	if err != nil {
		return nil, unusable(err)
	}
	s := &Supervisor{
		options: o, layout: l, states: states{l.states()},
		cache:   &cache{dir: l.artifacts(), source: o.Artifacts},
		outputs: outputs{dir: l.outputs(), limit: o.LogLimit},
		wakeup:  make(chan struct{}, 1),
		keepers: map[string]*keeper{}, tasks: map[delivery.EffectKey]bool{}, unsaved: map[delivery.PlacementKey]bool{},
		secrets: map[string][]string{}, targets: slices.Clone(o.Targets), changed: make(chan struct{}),
	}
	if s.lock, err = lockDir(dir); err != nil {
		return nil, unusable(err)
	}
	if s.records, err = s.states.load(); err != nil {
		s.Close()
		return nil, unusable(err)
	}
	s.dropDead()
	router := o.Router
	if router == nil {
		router = proxy.Dial(ProxySocket(dir))
	}
	s.router = newRouting(s, router)
	return s, nil
}

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = "local"
	}
	if len(o.Targets) == 0 {
		o.Targets = []string{o.Name}
	}
	if o.Ports == (Ports{}) {
		o.Ports = Ports{20000, 29999}
	}
	if o.LogLimit == 0 {
		o.LogLimit = 10 << 20
	}
	if o.Tick == 0 {
		o.Tick = 500 * time.Millisecond
	}
	if o.BackOff.First == 0 {
		o.BackOff.First = 200 * time.Millisecond
	}
	if o.BackOff.Max == 0 {
		o.BackOff.Max = 30 * time.Second
	}
	if o.BackOff.Reset == 0 {
		o.BackOff.Reset = 10 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// dropDead takes instances that ended while no supervisor ran out of the
// traffic before anything is told to the router or the server.
func (s *Supervisor) dropDead() {
	for _, r := range s.records {
		for _, i := range r.Instances {
			if i.Process == nil || !i.Process.alive() {
				i.Ready = false
			}
		}
	}
}

// lockDir takes the directory for this process; the kernel lets go when it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, delivery.Wrap(delivery.CodeConflict, err, "Another supervisor uses %s; stop it first or give another directory.", dir)
	}
	return f, nil
}

// Close lets go of the data directory, after Run has returned. Programs and
// proxy go on.
func (s *Supervisor) Close() error { return s.lock.Close() }

// Run brings programs and router to the wanted state and keeps them there
// until ctx ends. Programs and proxy then go on without it.
func (s *Supervisor) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.ran {
		s.mu.Unlock()
		return errors.New("host: Run was called twice")
	}
	s.ran = true
	s.mu.Unlock()
	s.work.Go(func() { s.router.run(ctx) })
	if len(s.options.ProxyCommand) > 0 {
		s.work.Go(func() { s.keepProxy(ctx) })
	}
	s.work.Go(func() { s.housekeeping(ctx) })
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for ctx.Err() == nil {
		s.reconcile(ctx)
		select {
		case <-s.wakeup:
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	s.work.Wait()
	return ctx.Err()
}

// wake makes Run look at the wanted state.
func (s *Supervisor) wake() {
	select {
	case s.wakeup <- struct{}{}:
	default:
	}
}

// changedLocked tells who waits that a report would differ, and the router
// that its configuration may. s.mu is held.
func (s *Supervisor) changedLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
	s.router.touchLocked()
}

// Changed returns a channel that is closed at the next change of readiness,
// weights, wanted numbers or tasks.
func (s *Supervisor) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// SetTargets tells the names that the host answers for.
func (s *Supervisor) SetTargets(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(names) > 0 && !slices.Equal(names, s.targets) {
		s.targets = slices.Clone(names)
		s.changedLocked()
	}
}

// saveLocked writes a record. When that fails, the tick tries again, and
// nothing that must be written first goes on. s.mu is held.
func (s *Supervisor) saveLocked(r *record) error {
	err := s.states.save(r)
	if err == nil {
		delete(s.unsaved, r.Key)
		return nil
	}
	if !s.unsaved[r.Key] {
		s.options.Log.Error("the host's state can't be written; trying again", "placement", r.Key.String(), "error", err)
	}
	s.unsaved[r.Key] = true
	return fmt.Errorf("write the host's state: %w", err)
}

// reconcile compares what is wanted with what there is, and starts the keepers
// that make up the difference.
func (s *Supervisor) reconcile(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.records {
		differs := false
		for _, svc := range r.Services {
			for _, w := range slices.Clone(svc.Workloads) {
				differs = s.scaleLocked(r, svc, w) || differs
			}
		}
		if differs {
			s.changedLocked()
		}
		if differs || s.unsaved[r.Key] {
			_ = s.saveLocked(r) // said there, and tried again
		}
		for _, i := range r.Instances {
			if s.keepers[i.ID] == nil {
				s.keepLocked(ctx, r, i)
			}
		}
		for _, t := range r.Tasks {
			if !t.Done && !s.tasks[t.Key] {
				s.tasks[t.Key] = true
				s.work.Go(func() { s.perform(ctx, r.Key, t.Key) })
			}
		}
	}
}

// scaleLocked adds instances of a workload or marks surplus ones as stopping,
// and forgets a workload of which nothing is left. It reports whether anything
// changed. s.mu is held.
func (s *Supervisor) scaleLocked(r *record, svc *serviceRecord, w *workloadRecord) bool {
	all := r.instances(svc.Name, w.Digest)
	var running []*instanceRecord
	for _, i := range all {
		if !i.Stopping {
			running = append(running, i)
		}
	}
	changed := false
	for n := len(running); n < w.Wanted; n++ {
		r.Instances = append(r.Instances, &instanceRecord{ID: newInstanceID(svc.Name), Service: svc.Name, Workload: w.Digest})
		changed = true
	}
	// Those that are not ready go first, then the youngest.
	slices.SortStableFunc(running, func(a, b *instanceRecord) int { return rankOf(b) - rankOf(a) })
	for _, i := range running[min(w.Wanted, len(running)):] {
		i.Stopping, i.Ready = true, false
		if k := s.keepers[i.ID]; k != nil {
			k.stopLocked()
		}
		changed = true
	}
	if w.Wanted == 0 && len(all) == 0 && svc.percent(w.Digest) == 0 {
		svc.Workloads = slices.DeleteFunc(svc.Workloads, func(x *workloadRecord) bool { return x == w })
		svc.Weights = slices.DeleteFunc(svc.Weights, func(x delivery.Weight) bool { return x.Workload == w.Digest })
		s.removeLater(s.layout.workloadDir(r.Key, svc.Name, w.Digest))
		changed = true
	}
	return changed
}

func rankOf(i *instanceRecord) int {
	if i.Ready {
		return 1
	}
	return 0
}

// removeLater deletes a workload's directory unless it is wanted again by then.
func (s *Supervisor) removeLater(dir string) {
	s.work.Go(func() {
		unlock, err := s.cache.locks.lock(context.Background(), dir)
		if err != nil {
			return
		}
		defer unlock()
		s.mu.Lock()
		wanted := s.workDirsLocked()[dir]
		s.mu.Unlock()
		if wanted {
			return
		}
		if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.options.Log.Warn("a workload's directory could not be removed", "dir", dir, "error", err)
		}
	})
}

// workDirsLocked returns the directories of all workloads and of tasks under way.
func (s *Supervisor) workDirsLocked() map[string]bool {
	dirs := map[string]bool{}
	for _, r := range s.records {
		for _, svc := range r.Services {
			for _, w := range svc.Workloads {
				dirs[s.layout.workloadDir(r.Key, svc.Name, w.Digest)] = true
			}
		}
		for _, t := range r.Tasks {
			if !t.Done {
				dirs[s.layout.workloadDir(r.Key, t.Effect.Workload.Service, t.Effect.Workload.ComputeDigest())] = true
			}
		}
	}
	return dirs
}
