package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// maxInstances bounds what one effect can ask for.
const maxInstances = 1000

// Do performs one effect as [target.Target] says. It changes the wanted state
// durably and returns; [Supervisor.Run] makes it so.
func (s *Supervisor) Do(_ context.Context, e delivery.Effect) (delivery.Result, error) {
	if err := checkEffect(e); err != nil {
		return delivery.Result{Key: e.Key, Message: err.Error(), At: s.options.Now()}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.records[e.Placement]
	if before == nil {
		before = &record{Format: recordFormat, Key: e.Placement}
	}
	if result, ok := before.done(e.Key); ok {
		result.Already = true
		return result, nil
	}
	if e.Token < before.Token {
		return delivery.Result{Key: e.Key, At: s.options.Now(), Message: fmt.Sprintf(
			"The fencing token %d of %s is lower than %d, which this host has seen: another server took the placement over.", e.Token, e.Placement, before.Token)}, nil
	}
	after := before.clone()
	after.Token = e.Token
	result := delivery.Result{Key: e.Key, OK: true, At: s.options.Now()}
	if err := after.apply(e); err != nil {
		result.OK, result.Message = false, err.Error()
	} else if e.Start != nil {
		s.forgive(after, e.Start)
	}
	after.Results = append(after.Results, result)
	after.Results = after.Results[max(0, len(after.Results)-keptResults):]
	if err := s.states.save(after); errors.Is(err, errMaybeWritten) {
		return delivery.Result{}, err
	} else if err != nil {
		s.options.Log.Error("an effect could not be recorded, so it was not done", "effect", e.Key.String(), "error", err)
		return delivery.Result{}, fmt.Errorf("record the effect: %w", err)
	}
	s.records[e.Placement] = after
	s.changedLocked()
	s.wake()
	return result, nil
}

// checkEffect refuses what no host can do, whatever its state.
func checkEffect(e delivery.Effect) error {
	for _, n := range []struct{ what, name string }{
		{"project", e.Placement.Project}, {"application", e.Placement.Application}, {"environment", e.Placement.Environment}, {"target", e.Target},
	} {
		if err := delivery.CheckName(n.what, n.name); err != nil {
			return err
		}
	}
	if e.Key.Deployment == "" {
		return delivery.Errorf(delivery.CodeInvalid, "The effect has no key.")
	}
	switch {
	case e.Start != nil:
		if err := checkWorkload(e.Start.Workload, e.Start.Service); err != nil {
			return err
		}
		if e.Start.Workload.ComputeDigest() != e.Start.Digest {
			return delivery.Errorf(delivery.CodeInvalid, "The workload of %s is not the one that its digest names.", e.Start.Service)
		}
		if e.Start.Instances < 0 || e.Start.Instances > maxInstances {
			return delivery.Errorf(delivery.CodeInvalid, "%d instances of %s can't be started: ask for 0 to %d.", e.Start.Instances, e.Start.Service, maxInstances)
		}
	case e.Shift != nil:
		return checkWeights(e.Shift.Weights)
	case e.Stop != nil:
		if e.Stop.Keep < 0 {
			return delivery.Errorf(delivery.CodeInvalid, "%d instances can't be kept.", e.Stop.Keep)
		}
	case e.Run != nil:
		return checkWorkload(e.Run.Workload, e.Run.Workload.Service)
	default:
		return delivery.Errorf(delivery.CodeInvalid, "A host can't do an effect of kind %q; use a host of the server's version.", e.Kind())
	}
	return nil
}

func checkWorkload(w delivery.Workload, service string) error {
	if err := delivery.CheckName("service", service); err != nil {
		return err
	}
	if w.Service != service {
		return delivery.Errorf(delivery.CodeInvalid, "The workload is for service %q, not %q.", w.Service, service)
	}
	if !w.Artifact.Digest.Valid() {
		return delivery.Errorf(delivery.CodeInvalid, "The artifact of %s has no valid digest.", service)
	}
	if p := w.Readiness.HTTP; p != "" && (!strings.HasPrefix(p, "/") || strings.ContainsFunc(p, func(c rune) bool { return c <= ' ' || c == 0x7f })) {
		return delivery.Errorf(delivery.CodeInvalid, "The readiness path %q of %s is not a path of the program's own address: begin it with a slash.", p, service)
	}
	for name := range w.Env {
		if err := checkVariable(name); err != nil {
			return err
		}
	}
	for name := range w.Secrets {
		if err := checkVariable(name); err != nil {
			return err
		}
	}
	return nil
}

// checkVariable refuses names that would change another variable, or the marks
// by which the host knows its processes.
func checkVariable(name string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") || strings.HasPrefix(name, markPrefix) {
		return delivery.Errorf(delivery.CodeInvalid, "%q can't be the name of an environment variable here; choose another.", name)
	}
	return nil
}

func checkWeights(weights []delivery.Weight) error {
	sum := 0
	seen := map[delivery.Digest]bool{}
	for _, w := range weights {
		if w.Percent < 0 || w.Percent > 100 || seen[w.Workload] {
			return delivery.Errorf(delivery.CodeInvalid, "The weights are not shares of distinct workloads from 0 to 100 %%.")
		}
		seen[w.Workload] = true
		sum += w.Percent
	}
	if sum != 100 {
		return delivery.Errorf(delivery.CodeInvalid, "The weights add up to %d, not to 100 %%.", sum)
	}
	return nil
}

// apply changes the wanted state. An error is terminal and leaves r unchanged.
func (r *record) apply(e delivery.Effect) error {
	switch {
	case e.Start != nil:
		return r.start(e.Target, e.Start)
	case e.Shift != nil:
		return r.shift(e.Target, e.Shift)
	case e.Stop != nil:
		return r.stop(e.Target, e.Stop)
	default:
		r.Tasks = append(r.Tasks, &taskRecord{Key: e.Key, Target: e.Target, Effect: *e.Run, Instance: newInstanceID(e.Run.Workload.Service)})
		r.forgetTasks()
		return nil
	}
}

func (r *record) start(target string, e *delivery.StartEffect) error {
	svc := r.service(e.Service)
	if svc == nil {
		svc = &serviceRecord{Name: e.Service, Target: target}
		r.Services = append(r.Services, svc)
	}
	if svc.Target != target {
		return otherTarget(svc, target)
	}
	w := svc.workload(e.Digest)
	if w == nil {
		w = &workloadRecord{Digest: e.Digest, Workload: e.Workload}
		svc.Workloads = append(svc.Workloads, w)
	}
	w.Release, w.Version, w.Listen, w.Wanted = e.Release, e.Version, e.Listen, e.Instances
	return nil
}

func otherTarget(svc *serviceRecord, target string) error {
	return delivery.Errorf(delivery.CodeInvalid, "Service %s runs on this host as target %q, so it can't run here as target %q too: give each target of an environment its own host.", svc.Name, svc.Target, target)
}

func (r *record) shift(target string, e *delivery.ShiftEffect) error {
	svc := r.service(e.Service)
	if svc == nil {
		return delivery.Errorf(delivery.CodeNotFound, "Service %s does not run on this host, so it has no traffic to shift.", e.Service)
	}
	if svc.Target != target {
		return otherTarget(svc, target)
	}
	var weights []delivery.Weight
	for _, w := range e.Weights {
		if svc.workload(w.Workload) != nil {
			weights = append(weights, w)
		} else if w.Percent > 0 {
			return delivery.Errorf(delivery.CodeNotFound, "Workload %s of %s does not run on this host, so it can't get %d %% of the traffic.", w.Workload.Short(), e.Service, w.Percent)
		}
	}
	svc.Weights = weights
	return nil
}

// stop of what does not run is done already.
func (r *record) stop(target string, e *delivery.StopEffect) error {
	svc := r.service(e.Service)
	if svc == nil {
		return nil
	}
	if svc.Target != target {
		return otherTarget(svc, target)
	}
	if w := svc.workload(e.Workload); w != nil {
		w.Wanted = min(w.Wanted, e.Keep)
	}
	return nil
}

// forgetTasks drops the oldest tasks that are done.
func (r *record) forgetTasks() {
	surplus := len(r.Tasks) - keptTasks
	r.Tasks = slices.DeleteFunc(r.Tasks, func(t *taskRecord) bool {
		if surplus > 0 && t.Done {
			surplus--
			return true
		}
		return false
	})
}

// newInstanceID returns a name that no other process ever has.
func newInstanceID(service string) string {
	return service + "-" + strings.ToLower(rand.Text()[:12])
}
