package host

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/host/proxy"
	"github.com/tidegate-cd/tidegate/internal/remote"
)

// Report says all that runs on the host's first target, for use in process.
func (s *Supervisor) Report(ctx context.Context) (delivery.Report, error) {
	reports, err := s.Reports(ctx)
	if err != nil {
		return delivery.Report{}, err
	}
	return reports[0], nil
}

// Reports says what runs, for each target that the host answers for and each
// that something still runs for.
func (s *Supervisor) Reports(context.Context) ([]delivery.Report, error) {
	// In the order in which routing takes them; it is held so that weights and
	// counts are of one moment.
	s.router.mu.Lock()
	defer s.router.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.options.Now()
	var reports []delivery.Report
	of := func(target string) *delivery.Report {
		i := slices.IndexFunc(reports, func(r delivery.Report) bool { return r.Target == target })
		if i < 0 {
			reports = append(reports, delivery.Report{Target: target, At: now})
			i = len(reports) - 1
		}
		return &reports[i]
	}
	for _, t := range s.targets {
		of(t)
	}
	for _, r := range s.records {
		for _, svc := range r.Services {
			report := of(svc.Target)
			report.Services = append(report.Services, s.serviceStatusLocked(r, svc, now))
		}
		for _, t := range r.Tasks {
			report := of(t.Target)
			report.Tasks = append(report.Tasks, delivery.TaskStatus{Key: t.Key, Done: t.Done, OK: t.OK, Message: t.Message})
		}
	}
	for i := range reports {
		slices.SortFunc(reports[i].Services, func(a, b delivery.ServiceStatus) int {
			return strings.Compare(a.Placement.String()+"/"+a.Service, b.Placement.String()+"/"+b.Service)
		})
		slices.SortFunc(reports[i].Tasks, func(a, b delivery.TaskStatus) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	}
	return reports, nil
}

// serviceStatusLocked is one service as it is. Weights are those that the
// router confirmed for an address that it listens on. Both locks are held.
func (s *Supervisor) serviceStatusLocked(r *record, svc *serviceRecord, now time.Time) delivery.ServiceStatus {
	id := proxy.RouteID{Placement: r.Key, Service: svc.Name}
	route := s.router.status.Route(id)
	status := delivery.ServiceStatus{Placement: r.Key, Service: svc.Name}
	problem := ""
	if route != nil {
		status.Listen = route.Listen
		if since, down := s.router.down[id]; down && route.Error != "" && now.Sub(since) >= routeDown {
			problem = sentence("Its address " + svc.listen() + " can't be listened on: " + route.Error)
		}
	}
	if status.Listen != "" {
		status.Weights = slices.Clone(s.router.weights[id])
	}
	for _, w := range svc.Workloads {
		ws := delivery.WorkloadStatus{Workload: w.Digest, Release: w.Release, Version: w.Version, Wanted: w.Wanted}
		for _, i := range r.instances(svc.Name, w.Digest) {
			ws.Restarts += i.Restarts
			if i.Stopping {
				continue
			}
			if i.Ready {
				ws.Ready++
			}
			ws.Failed = ws.Failed || i.Failed
			if i.Message != "" && (ws.Message == "" || i.Failed) {
				ws.Message = i.Message
			}
		}
		if problem != "" {
			ws.Failed, ws.Message = true, problem
		}
		if g := route.Group(w.Digest); g != nil {
			ws.Counts = g.Counts
		}
		status.Workloads = append(status.Workloads, ws)
	}
	return status
}

// Logs reads the last lines of a service's instances, those that ended not
// long ago included, without secret values.
func (s *Supervisor) Logs(_ context.Context, q remote.LogQuery) ([]remote.LogLine, error) {
	lines := q.Lines
	if lines <= 0 {
		lines = 100
	}
	dir := s.outputs.of(q.Placement)
	if err := checkQuery(q); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, q.Service+".*.log"))
	if err != nil {
		return nil, err
	}
	target, versions, references := s.logFacts(q)
	if q.Target != "" && target != q.Target {
		return nil, nil
	}
	var out []remote.LogLine
	for _, path := range files {
		parts := strings.Split(strings.TrimSuffix(filepath.Base(path), ".log"), ".")
		if len(parts) != 3 || q.Workload != "" && parts[1] != q.Workload.Short() {
			continue
		}
		clean := s.redactorOf(parts[2])
		for _, ref := range references {
			// Those of an earlier supervisor's ended processes: as they are now.
			if values, err := resolveSecrets(map[string]delivery.Secret{"": ref}); err == nil {
				clean = newRedactor(append(clean.values, valuesOf(values)...)...)
			}
		}
		texts, err := tail(path, lines, clean)
		if err != nil {
			return nil, err
		}
		w := versions[parts[1]]
		for _, text := range texts {
			out = append(out, remote.LogLine{Target: target, Workload: w.Digest, Version: w.Version, Instance: parts[2], Text: text})
		}
	}
	return out, nil
}

func checkQuery(q remote.LogQuery) error {
	for _, n := range []struct{ what, name string }{
		{"project", q.Placement.Project}, {"application", q.Placement.Application}, {"environment", q.Placement.Environment}, {"service", q.Service},
	} {
		if err := delivery.CheckName(n.what, n.name); err != nil {
			return err
		}
	}
	return nil
}

// logFacts returns what the record knows of a service: its target, its
// workloads by short digest, and every secret reference.
func (s *Supervisor) logFacts(q remote.LogQuery) (string, map[string]workloadRecord, []delivery.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	versions, target := map[string]workloadRecord{}, ""
	var references []delivery.Secret
	r := s.records[q.Placement]
	if r == nil {
		return "", versions, nil
	}
	if svc := r.service(q.Service); svc != nil {
		target = svc.Target
		for _, w := range svc.Workloads {
			versions[w.Digest.Short()] = *w
			for _, ref := range w.Workload.Secrets {
				references = append(references, ref)
			}
		}
	}
	for _, t := range r.Tasks {
		if t.Effect.Workload.Service == q.Service {
			for _, ref := range t.Effect.Workload.Secrets {
				references = append(references, ref)
			}
		}
	}
	return target, versions, references
}

// housekeeping keeps logs within their limits and drops old artifacts.
func (s *Supervisor) housekeeping(ctx context.Context) {
	const artifactLife = 30 * 24 * time.Hour
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	expired := time.Time{}
	for {
		for _, path := range s.openOutputs() {
			if err := s.outputs.rotate(path); err != nil {
				s.options.Log.Warn("a log could not be kept within its limit", "path", path, "error", err)
			}
		}
		if now := s.options.Now(); now.Sub(expired) > time.Hour {
			expired = now
			if err := s.cache.expire(now.Add(-artifactLife), s.wantedArtifacts()); err != nil && !errors.Is(err, context.Canceled) {
				s.options.Log.Warn("old artifacts could not be removed", "error", err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Supervisor) openOutputs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	paths := []string{filepath.Join(s.layout.outputs(), "proxy.log")}
	for _, k := range s.keepers {
		paths = append(paths, k.output)
	}
	return paths
}

func (s *Supervisor) wantedArtifacts() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[string]bool{}
	for _, r := range s.records {
		for _, svc := range r.Services {
			for _, w := range svc.Workloads {
				wanted[w.Workload.Artifact.Digest.Hex()] = true
			}
		}
	}
	return wanted
}
