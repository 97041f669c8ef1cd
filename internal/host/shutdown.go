package host

import (
	"context"
	"sync"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// proxyGrace is how long a proxy may finish its requests under way.
const proxyGrace = 10 * time.Second

// Shutdown ends everything that runs for the host with that data directory:
// first the proxy, so that no request meets a program that is gone, then the
// programs, each with the grace of its plan. No supervisor may run (conflict).
// What is wanted stays recorded: the next supervisor starts it again. A
// directory for programs outside the data directory is removed, so that
// removing the data directory afterwards leaves nothing behind.
func Shutdown(ctx context.Context, o Options) error {
	s, err := New(o)
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(ctx) // ends the watches over processes, too
	defer cancel()
	if p := s.adoptServing(ctx, 0); p != nil {
		terminate(ctx, p, proxyGrace)
	}
	var all sync.WaitGroup
	for _, r := range s.records {
		for _, i := range r.Instances {
			grace := stopGrace
			if svc := r.service(i.Service); svc != nil && svc.workload(i.Workload) != nil {
				grace = orDefault(svc.workload(i.Workload).Workload.Stop.Grace, stopGrace)
			}
			all.Go(func() { s.endMarked(ctx, i.Process, i.ID, grace) })
		}
		for _, t := range r.Tasks {
			if !t.Done {
				all.Go(func() { s.endMarked(ctx, t.Process, t.Instance, taskGrace) })
			}
		}
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.layout.forgetElsewhere(); err != nil {
		return delivery.Wrap(delivery.CodeInternal, err, "The programs' directory %s can't be removed (%v).", s.layout.work, err)
	}
	return nil
}

// endMarked ends the process of an instance and what it left behind.
func (s *Supervisor) endMarked(ctx context.Context, was *processRecord, instance string, grace time.Duration) {
	record, ok := processRecord{}, was != nil && was.alive()
	if ok {
		record = *was
	} else {
		record, ok = find(instance, s.options.Now())
	}
	if ok {
		if p := adopt(ctx, record); p != nil {
			terminate(ctx, p, grace)
		}
	}
	sweepMarked(instance)
}
