package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// maxDrain is the longest wait that one drain call may ask for.
const maxDrain = 10 * time.Minute

// headerExchanged marks the refusals of a process that is handing over: the
// same call again reaches its successor.
const headerExchanged = "Tidegate-Proxy-Exchanged"

// statuses is the HTTP status of each code on the admin socket.
var statuses = map[delivery.Code]int{
	delivery.CodeInvalid: http.StatusBadRequest, delivery.CodeNotFound: http.StatusNotFound,
	delivery.CodeConflict: http.StatusConflict, delivery.CodeDenied: http.StatusForbidden,
	delivery.CodeUnavailable: http.StatusServiceUnavailable, delivery.CodeInternal: http.StatusInternalServerError,
}

// admin returns the handler of the admin socket. Whoever can open the socket
// (mode 0600) may do everything.
func (s *server) admin() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{s})
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /config", s.putConfig)
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.serves(); err != nil {
			s.refuse(w, err)
			return
		}
		s.answer(w, s.status())
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: s.errorLog}))
	mux.HandleFunc("POST /drain", s.postDrain)
	mux.HandleFunc("POST /handover", s.postHandover)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.refuse(w, delivery.Errorf(delivery.CodeNotFound, "The proxy's admin socket has GET /status, GET /metrics, PUT /config, POST /drain and POST /handover."))
	})
	return mux
}

func (s *server) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.log.Debug("An answer on the admin socket was not taken.", "error", err)
	}
}

func (s *server) refuse(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[*delivery.Error](err)
	if !ok {
		e = delivery.Wrap(delivery.CodeInternal, err, "The proxy failed: see its log.")
	}
	w.Header().Set("Content-Type", "application/json")
	if s.leaving.Load() {
		w.Header().Set(headerExchanged, "1")
	}
	w.WriteHeader(statuses[e.Code])
	if err := json.NewEncoder(w).Encode(e); err != nil {
		s.log.Debug("An answer on the admin socket was not taken.", "error", err)
	}
}

func (s *server) putConfig(w http.ResponseWriter, r *http.Request) {
	c, err := DecodeConfig(r.Body)
	if err != nil {
		s.refuse(w, err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.serves(); err != nil {
		s.refuse(w, err)
		return
	}
	s.apply(context.WithoutCancel(r.Context()), c, nil)
	s.log.Info("Configured.", "revision", c.Revision, "routes", len(c.Routes))
	w.WriteHeader(http.StatusNoContent)
}

// postDrain waits until ?backend= has no request under way, at most ?limit=.
func (s *server) postDrain(w http.ResponseWriter, r *http.Request) {
	if err := s.serves(); err != nil {
		s.refuse(w, err)
		return
	}
	id := r.URL.Query().Get("backend")
	limit, err := time.ParseDuration(r.URL.Query().Get("limit"))
	if err != nil || limit < 0 || limit > maxDrain || id == "" {
		s.refuse(w, delivery.Errorf(delivery.CodeInvalid, "A drain needs ?backend=ID and ?limit= from 0s to %s.", maxDrain))
		return
	}
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for over := false; ; {
		n, configured := s.inFlight(id)
		switch {
		case configured:
			s.refuse(w, delivery.Errorf(delivery.CodeConflict, "Backend %q is still configured and gets new requests: take it out of the configuration, then drain it.", id))
			return
		case n == 0:
			w.WriteHeader(http.StatusNoContent)
			return
		case over:
			s.refuse(w, delivery.Errorf(delivery.CodeUnavailable, "Backend %q still has %d requests under way after %s: wait longer, or stop it and lose them.", id, n, limit))
			return
		}
		select {
		case <-deadline.C:
			over = true
		case <-look.C:
		case <-r.Context().Done():
			return
		}
	}
}

// status returns what GET /status says.
func (s *server) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Status{Epoch: s.epoch, PID: os.Getpid(), Started: s.started.UTC(), Revision: s.config.Revision, Unsaved: s.unsaved}
	index := map[RouteID]int{}
	for i, r := range s.order {
		index[r.id] = i
		status := RouteStatus{ID: r.id, Error: r.problem, Unserved: r.unserved.Load()}
		if r.door != nil {
			status.Listen = r.door.address
		}
		for _, g := range r.table.Load().groups {
			status.Groups = append(status.Groups, s.groupStatus(g.counter.tally(), g))
		}
		out.Routes = append(out.Routes, status)
	}
	for _, t := range s.tallies() {
		if i, ok := index[t.Key.Route]; ok && !t.Gone.IsZero() {
			out.Routes[i].Groups = append(out.Routes[i].Groups, s.groupStatus(t, nil))
		}
	}
	return out
}

func (s *server) groupStatus(t tally, g *group) GroupStatus {
	status := GroupStatus{
		Workload: t.Key.Workload, Release: t.Release, Version: t.Version, Gone: g == nil, Counts: t.counts(),
		Cancelled: t.Cancelled, Diverted: t.Diverted, Retried: t.Retried, Latency: t.latency(),
	}
	var backends []*backend
	if g != nil {
		status.Percent, backends = g.percent, g.backends
	}
	for _, b := range s.removed {
		if n := b.inFlight.Load(); b.key == t.Key && n > 0 {
			status.Backends = append(status.Backends, BackendStatus{ID: b.id, Address: b.address, InFlight: n, Removed: true})
		}
	}
	for _, b := range backends {
		bs := BackendStatus{ID: b.id, Address: b.address, InFlight: b.inFlight.Load() + s.earlier[b.id]}
		if failure := b.failure.Load(); failure != nil {
			bs.Error = *failure
		}
		status.Backends = append(status.Backends, bs)
	}
	return status
}
