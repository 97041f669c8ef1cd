package remote

import (
	"context"
	"crypto/rand"
	"net/http"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// logWait is somebody waiting for a machine's answer.
type logWait struct {
	host   string
	query  LogQuery
	answer chan logAnswer // holds one
}

// Logs asks a host for the output of a service's instances: the request
// travels in the answer to the host's long poll. It waits until ctx ends;
// unavailable when the host does not answer by then.
func (s *Server) Logs(ctx context.Context, host string, q LogQuery) ([]LogLine, error) {
	id, wait := rand.Text(), &logWait{host: host, query: q, answer: make(chan logAnswer, 1)}
	s.mu.Lock()
	s.logs[id] = wait
	if s.asked[host] == nil {
		s.asked[host] = map[string]struct{}{}
	}
	s.asked[host][id] = struct{}{}
	if c := s.wake[host]; c != nil {
		close(c)
		delete(s.wake, host)
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.logs, id)
		delete(s.asked[host], id)
		if len(s.asked[host]) == 0 {
			delete(s.asked, host)
		}
	}()
	select {
	case a := <-wait.answer:
		if a.Error != "" {
			return nil, delivery.Errorf(delivery.CodeUnavailable, "Host %q can't read its logs: %s", host, a.Error)
		}
		return a.Lines, nil
	case <-ctx.Done():
		return nil, delivery.Errorf(delivery.CodeUnavailable, "Host %q did not answer in time; see whether its supervisor runs and reaches this server.", host)
	}
}

// logWake returns a channel that is closed when somebody asks for host's logs.
func (s *Server) logWake(host string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wake[host] == nil {
		s.wake[host] = make(chan struct{})
	}
	return s.wake[host]
}

// takeLogRequests hands out what was asked of host and not handed out yet.
func (s *Server) takeLogRequests(host string) []logRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	var requests []logRequest
	for id := range s.asked[host] {
		requests = append(requests, logRequest{ID: id, Query: s.logs[id].query})
	}
	delete(s.asked, host)
	return requests
}

// answerLogs takes a machine's answer to a log request.
func (s *Server) answerLogs(w http.ResponseWriter, r *http.Request, host string) error {
	var a logAnswer
	if err := readJSON(r, &a); err != nil {
		return err
	}
	s.mu.Lock()
	wait := s.logs[a.ID]
	s.mu.Unlock()
	if wait != nil && wait.host == host {
		select {
		case wait.answer <- a:
		default: // answered already
		}
	}
	w.WriteHeader(http.StatusNoContent) // nobody waits any more: fine
	return nil
}
