package host

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Limits of a command task.
const (
	taskTimeout = 5 * time.Minute // when the plan names none
	taskGrace   = 5 * time.Second // between SIGTERM and SIGKILL at its end
	taskTail    = 10              // lines of output in its message
	taskMessage = 1000            // bytes of a message
)

// perform does a command task to its end. A task whose process may have begun
// is never begun again: when its end can't be known, it failed, and says so.
func (s *Supervisor) perform(ctx context.Context, key delivery.PlacementKey, id delivery.EffectKey) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.tasks, id)
		s.wake()
	}()
	t, ok := s.taskOf(key, id)
	if !ok {
		return
	}
	w := t.Effect.Workload
	output, err := s.outputs.path(key, w.Service, w.ComputeDigest(), t.Instance)
	if err != nil {
		s.options.Log.Error("a task's log can't be written; trying again", "task", t.Effect.Task, "error", err)
		return
	}
	if !t.Begun.IsZero() {
		s.resumeTask(ctx, key, t, output)
		return
	}
	p, err := s.beginTask(ctx, key, t, output)
	if p == nil {
		if ctx.Err() == nil && err != nil {
			s.taskNotBegun(ctx, key, t, err)
		}
		return
	}
	why, ended := s.awaitTask(ctx, t, p)
	if !ended {
		return // the next supervisor goes on
	}
	if why == "" && p.state != nil && !p.state.Success() {
		why = "It failed: " + p.ending()
	}
	s.taskDone(key, t, output, why)
}

func (s *Supervisor) taskOf(key delivery.PlacementKey, id delivery.EffectKey) (taskRecord, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.records[key]; r != nil {
		for _, t := range r.Tasks {
			if t.Key == id && !t.Done {
				return *t, true
			}
		}
	}
	return taskRecord{}, false
}

// updateTask changes a task's record, and writes it.
func (s *Supervisor) updateTask(key delivery.PlacementKey, id delivery.EffectKey, change func(t *taskRecord)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.records[key]
	for _, t := range r.Tasks {
		if t.Key == id {
			change(t)
		}
	}
	s.changedLocked()
	return s.saveLocked(r)
}

// beginTask starts a task's program, after writing down that it does.
func (s *Supervisor) beginTask(ctx context.Context, key delivery.PlacementKey, t taskRecord, output string) (*process, error) {
	w := t.Effect.Workload
	at, err := s.prepare(ctx, key, w.ComputeDigest(), w)
	if err != nil {
		return nil, err
	}
	values, err := resolveSecrets(w.Secrets)
	if err != nil {
		return nil, err
	}
	home, err := s.layout.home(at.dir, t.Instance)
	if err != nil {
		return nil, err
	}
	port, err := s.allotPort()
	if err != nil {
		return nil, err
	}
	s.keepSecrets(t.Instance, valuesOf(values))
	now := s.options.Now()
	if err := s.updateTask(key, t.Key, func(t *taskRecord) { t.Begun = now }); err != nil {
		// Whether that was written or not, the process was not started.
		_ = s.updateTask(key, t.Key, func(t *taskRecord) { t.Begun = time.Time{} })
		return nil, err
	}
	p, err := start(spec{
		program: at.program, args: withPort(w.Args, port), dir: at.root, output: output, owner: s.layout.owner,
		env: environmentOf(w.Env, values, home, t.Instance, port),
	}, s.options.Now)
	if err != nil {
		return nil, delivery.Wrap(delivery.CodeInvalid, err, "the program can't be started (%v).", err)
	}
	_ = s.updateTask(key, t.Key, func(t *taskRecord) { t.Process = &p.record })
	s.options.Log.Info("task started", "placement", key.String(), "task", t.Effect.Task, "pid", p.record.PID)
	return p, nil
}

// taskNotBegun ends a task that can't begin; what may mend itself is tried
// until the task's time is over, counted from the first try.
func (s *Supervisor) taskNotBegun(ctx context.Context, key delivery.PlacementKey, t taskRecord, err error) {
	code := delivery.ErrorCode(err)
	if code == delivery.CodeInvalid || code == delivery.CodeNotFound {
		s.taskDone(key, t, "", "It could not be started: "+s.redactorOf(t.Instance).clean(err.Error()))
		return
	}
	s.options.Log.Warn("a task can't begin yet; trying again", "task", t.Effect.Task, "error", s.redactorOf(t.Instance).clean(err.Error()))
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// resumeTask waits for a task that an earlier supervisor began. Its exit
// status went to that one, so its outcome stays unknown.
func (s *Supervisor) resumeTask(ctx context.Context, key delivery.PlacementKey, t taskRecord, output string) {
	var p *process
	if t.Process != nil {
		p = adopt(ctx, *t.Process)
	} else if found, ok := find(t.Instance, t.Begun); ok {
		p = adopt(ctx, found)
	}
	if p != nil {
		s.keepSecrets(t.Instance, secretsOf(p.record.PID, t.Effect.Workload.Secrets))
		if _, ended := s.awaitTask(ctx, t, p); !ended {
			return
		}
	}
	s.taskDone(key, t, output, "The supervisor was restarted while it ran, so whether it succeeded is not known. It was not run again: see what it did, then retry.")
}

// awaitTask waits for a task's process. Why is set when it ran out of time;
// ended is false when ctx ended first.
func (s *Supervisor) awaitTask(ctx context.Context, t taskRecord, p *process) (why string, ended bool) {
	limit := orDefault(t.Effect.Timeout, taskTimeout)
	timer := time.NewTimer(max(0, limit-s.options.Now().Sub(p.record.At)))
	defer timer.Stop()
	select {
	case <-p.exited:
		return "", true
	case <-timer.C:
		return fmt.Sprintf("It did not end within %s and was stopped.", limit), terminate(ctx, p, taskGrace)
	case <-ctx.Done():
		return "", false
	}
}

// taskDone records a task's end with the last lines of its output. Why is
// empty when it succeeded.
func (s *Supervisor) taskDone(key delivery.PlacementKey, t taskRecord, output, why string) {
	sweepMarked(t.Instance)
	message := why
	if output != "" {
		if lines, err := tail(output, taskTail, s.redactorOf(t.Instance)); err == nil && len(lines) > 0 {
			message = strings.TrimSpace(message + "\n" + strings.Join(lines, "\n"))
		}
	}
	message = strings.ToValidUTF8(message[:min(len(message), taskMessage)], "")
	_ = s.updateTask(key, t.Key, func(t *taskRecord) {
		t.Done, t.OK, t.Message, t.Process = true, why == "", message, nil
	})
	s.options.Log.Info("task ended", "placement", key.String(), "task", t.Effect.Task, "ok", why == "")
	s.mu.Lock()
	delete(s.secrets, t.Instance)
	s.mu.Unlock()
	s.removeLater(s.layout.workloadDir(key, t.Effect.Workload.Service, t.Effect.Workload.ComputeDigest()))
}
