package remote

import (
	"net/http"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// sweep is how often a waiting effects request looks again although nobody
// said that anything changed.
const sweep = time.Second

// effects answers with what the host has to do, as soon as there is something.
func (s *Server) effects(w http.ResponseWriter, r *http.Request, host string) error {
	var q effectsRequest
	if err := readJSON(r, &q); err != nil {
		return err
	}
	inFlight := make(map[delivery.EffectKey]bool, len(q.InFlight))
	for _, key := range q.InFlight {
		inFlight[key] = true
	}
	ctx := r.Context()
	end := time.NewTimer(s.options.Poll)
	defer end.Stop()
	ticker := time.NewTicker(sweep)
	defer ticker.Stop()
	for {
		changed, asked := s.options.Backend.Changed(ctx), s.logWake(host) // before reading, so that nothing is missed
		targets, err := s.options.Backend.Targets(ctx, host)
		if err != nil {
			return err
		}
		effects, err := s.options.Backend.Effects(ctx, host)
		if err != nil {
			return err
		}
		reply := effectsReply{Targets: targets, Logs: s.takeLogRequests(host)}
		for _, e := range effects {
			if !inFlight[e.Key] && len(reply.Effects) < maxEffects {
				reply.Effects = append(reply.Effects, e)
			}
		}
		if len(reply.Effects)+len(reply.Logs) > 0 {
			writeJSON(w, http.StatusOK, reply)
			return nil
		}
		select {
		case <-changed:
		case <-asked:
		case <-ticker.C:
		case <-end.C:
			writeJSON(w, http.StatusOK, reply)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// deliver takes results and reports.
func (s *Server) deliver(w http.ResponseWriter, r *http.Request, host string) error {
	var q deliverRequest
	if err := readJSON(r, &q); err != nil {
		return err
	}
	if err := s.options.Backend.Deliver(r.Context(), host, q.Results, q.Reports); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
