package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

const heartbeat = 15 * time.Second

// events streams events as they are recorded. Their ids are audit indexes, so
// that Last-Event-ID goes on exactly where a broken stream ended.
func (a *API) events(q request) error {
	next, err := a.firstEvent(q)
	if err != nil {
		return err
	}
	flush := http.NewResponseController(q.w)
	q.w.Header().Set("Content-Type", "text/event-stream")
	q.w.WriteHeader(http.StatusOK)
	fmt.Fprint(q.w, ": tidegate events\n\n")
	if flush.Flush() != nil {
		return nil // the client went away
	}
	for q.Context().Err() == nil {
		changed := a.o.Control.Changed() // before reading: what comes meanwhile is not missed
		list, err := a.o.Control.AuditEntries(q.Context(), q.actor, wire.AuditQuery{From: next, Limit: 500})
		if err != nil {
			return nil // the stream has begun; the client comes again
		}
		for _, entry := range list.Items {
			next = entry.Index + 1
			if !writeEvent(q, entry) {
				return nil
			}
		}
		if flush.Flush() != nil {
			return nil
		}
		if len(list.Items) > 0 {
			continue
		}
		timer := time.NewTimer(heartbeat)
		select {
		case <-changed:
		case <-timer.C:
			fmt.Fprint(q.w, ": still here\n\n")
		case <-q.Context().Done():
		}
		timer.Stop()
	}
	return nil
}

// firstEvent is the index after the one that the client has, else the next one.
func (a *API) firstEvent(q request) (int64, error) {
	if last := q.Header.Get("Last-Event-ID"); last != "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n < -1 {
			return 0, delivery.Errorf(delivery.CodeInvalid, "Last-Event-ID %q is not an audit index.", last)
		}
		return n + 1, nil
	}
	list, err := a.o.Control.AuditEntries(q.Context(), q.actor, wire.AuditQuery{Last: 1})
	if err != nil || len(list.Items) == 0 {
		return 0, err
	}
	return list.Items[0].Index + 1, nil
}

// writeEvent writes an event that the query selects, and only the id of any other.
func writeEvent(q request, entry wire.AuditEntry) bool {
	e := wire.Event{Index: entry.Index}
	v := q.URL.Query()
	wants := func(name, value string) bool { return v.Get(name) == "" || v.Get(name) == value }
	if len(entry.Event) == 0 || json.Unmarshal(entry.Event, &e.Event) != nil ||
		!wants("project", e.Project) || !wants("application", e.Application) || !wants("environment", e.Environment) ||
		!wants("deployment", string(e.Deployment)) || v.Has("type") && !slices.Contains(v["type"], string(e.Type)) {
		_, err := fmt.Fprintf(q.w, "id: %d\n\n", entry.Index)
		return err == nil
	}
	raw, err := json.Marshal(e)
	if err != nil {
		return false
	}
	_, err = fmt.Fprintf(q.w, "id: %d\nevent: %s\ndata: %s\n\n", entry.Index, e.Type, raw)
	return err == nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}
