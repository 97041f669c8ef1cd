package api

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tidegate-cd/tidegate/internal/audit"
	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/control"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Access names how a route is authenticated.
type Access string

// The kinds of access. A route without one does not compile into the table's test.
const (
	Open    Access = "open" // no secrets, nothing of any project
	ByToken Access = "token"
)

// Route is one route of the API.
type Route struct {
	Method, Pattern string
	Access          Access
	Summary         string
	Stream          bool // the body or the answer streams

	do    func(q request) (any, error)
	serve func(q request) error // instead of do, for what is not JSON
}

const (
	v1          = "/api/v1"
	project     = v1 + "/projects/{project}"
	application = project + "/applications/{application}"
	environment = application + "/environments/{environment}"
)

// Routes is every route.
func (a *API) Routes() []Route {
	c := a.o.Control
	routes := []Route{
		{Method: "GET", Pattern: v1 + "/version", Access: Open, Summary: "Which program answers", do: func(request) (any, error) { return a.o.Version, nil }},
		{Method: "GET", Pattern: v1 + "/health", Access: Open, Summary: "The process lives", do: func(request) (any, error) { return wire.Health{Status: "ok"}, nil }},
		{Method: "GET", Pattern: v1 + "/ready", Access: Open, Summary: "The server can work", serve: a.ready},
		{Method: "GET", Pattern: "/metrics", Access: Open, Summary: "Counters in Prometheus' format", serve: func(q request) error { a.metrics.ServeHTTP(q.w, q.Request); return nil }},
		{Method: "GET", Pattern: v1 + "/openapi.json", Access: Open, Summary: "This description", do: func(request) (any, error) { return a.OpenAPI(), nil }},
		{Method: "GET", Pattern: v1 + "/actor", Access: ByToken, Summary: "Who is signed in", do: func(q request) (any, error) { return q.actor, nil }},
		{Method: "GET", Pattern: v1 + "/events", Access: ByToken, Summary: "The event stream, resumable by audit index", Stream: true, serve: a.events},
	}
	routes = append(routes, a.accessRoutes(c)...)
	routes = append(routes, a.objectRoutes(c)...)
	routes = append(routes, a.queryRoutes(c)...)
	return append(routes, a.placementRoutes(c)...)
}

func (a *API) ready(q request) error {
	h := a.o.Control.Ready(q.Context())
	if h.Status != "ok" {
		q.w.WriteHeader(http.StatusServiceUnavailable)
	}
	return writeJSON(q.w, h)
}

func (a *API) accessRoutes(c *control.Control) []Route {
	return []Route{
		{Method: "GET", Pattern: v1 + "/tokens", Access: ByToken, Summary: "List tokens", do: func(q request) (any, error) { return c.Tokens(q.Context(), q.actor) }},
		{Method: "POST", Pattern: v1 + "/tokens", Access: ByToken, Summary: "Make an API token", Stream: true, do: func(q request) (any, error) {
			n, err := decode[wire.NewToken](q)
			if err != nil {
				return nil, err
			}
			return c.CreateToken(q.Context(), q.actor, n)
		}},
		{Method: "DELETE", Pattern: v1 + "/tokens/{id}", Access: ByToken, Summary: "Revoke a token", do: func(q request) (any, error) {
			return struct{}{}, c.RevokeToken(q.Context(), q.actor, delivery.ID(q.PathValue("id")))
		}},
		{Method: "POST", Pattern: v1 + "/enrolments", Access: ByToken, Summary: "Make a one-time token for a host", Stream: true, do: func(q request) (any, error) {
			n, err := decode[wire.NewEnrolment](q)
			if err != nil {
				return nil, err
			}
			return c.CreateEnrolment(q.Context(), q.actor, n)
		}},
		{Method: "GET", Pattern: v1 + "/hosts", Access: ByToken, Summary: "List hosts", do: func(q request) (any, error) { return c.EnrolledHosts(q.Context(), q.actor) }},
		{Method: "GET", Pattern: v1 + "/audit/entries", Access: ByToken, Summary: "List audit entries", do: func(q request) (any, error) {
			from, err1 := number(q, "from")
			limit, err2 := number(q, "limit")
			last, err3 := number(q, "last")
			if err := first(err1, err2, err3); err != nil {
				return nil, err
			}
			return c.AuditEntries(q.Context(), q.actor, wire.AuditQuery{From: from, Limit: int(limit), Last: int(last)})
		}},
		{Method: "GET", Pattern: v1 + "/audit/entries/{index}", Access: ByToken, Summary: "One audit entry", do: func(q request) (any, error) {
			p, err := a.proof(q)
			return p.Entry, err
		}},
		{Method: "GET", Pattern: v1 + "/audit/entries/{index}/proof", Access: ByToken, Summary: "Inclusion proof of an audit entry", do: func(q request) (any, error) { return a.proof(q) }},
		{Method: "GET", Pattern: v1 + "/audit/checkpoint", Access: ByToken, Summary: "Signed head of the audit log", do: func(q request) (any, error) { return c.AuditCheckpoint(q.Context(), q.actor) }},
		{Method: "GET", Pattern: v1 + "/audit/export", Access: ByToken, Summary: "The whole audit log, for offline verification", Stream: true, serve: func(q request) error {
			q.w.Header().Set("Content-Type", "application/jsonl")
			return c.AuditExport(q.Context(), q.actor, q.w)
		}},
	}
}

func (a *API) proof(q request) (wire.AuditProof, error) {
	index, err := strconv.ParseInt(q.PathValue("index"), 10, 64)
	if err != nil {
		return wire.AuditProof{}, delivery.Errorf(delivery.CodeInvalid, "%q is not the index of an audit entry.", q.PathValue("index"))
	}
	p, err := a.o.Control.AuditProof(q.Context(), q.actor, index)
	if err != nil {
		return wire.AuditProof{}, err
	}
	return proofOf(p), nil
}

func proofOf(p audit.Proof) wire.AuditProof {
	out := wire.AuditProof{Entry: wire.AuditEntry{Index: p.Entry.Index, Event: p.Entry.Payload, Salt: p.Entry.Salt, Leaf: p.Entry.Leaf}, Checkpoint: p.Checkpoint}
	for _, h := range p.Hashes {
		out.Hashes = append(out.Hashes, append([]byte(nil), h[:]...))
	}
	if lines := strings.Split(p.Checkpoint, "\n"); len(lines) > 1 {
		out.Size, _ = strconv.ParseInt(lines[1], 10, 64) // the second line of a checkpoint that we signed is its size
	}
	return out
}

func (a *API) objectRoutes(c *control.Control) []Route {
	return []Route{
		{Method: "POST", Pattern: project + "/apply", Access: ByToken, Summary: "Apply documents, all or none", do: func(q request) (any, error) {
			v, err := decode[wire.Apply](q)
			if err != nil {
				return nil, err
			}
			return c.Apply(q.Context(), q.actor, q.PathValue("project"), v)
		}},
		{Method: "GET", Pattern: project + "/objects/{kind}", Access: ByToken, Summary: "List objects", do: func(q request) (any, error) {
			p, err := pageOf(q)
			if err != nil {
				return nil, err
			}
			return c.Objects(q.Context(), q.actor, q.PathValue("project"), delivery.Kind(q.PathValue("kind")), p)
		}},
		{Method: "GET", Pattern: project + "/objects/{kind}/{name}", Access: ByToken, Summary: "One object", do: func(q request) (any, error) {
			revision, err := number(q, "revision")
			if err != nil {
				return nil, err
			}
			return c.Object(q.Context(), q.actor, q.PathValue("project"), delivery.Kind(q.PathValue("kind")), q.PathValue("name"), revision)
		}},
		{Method: "DELETE", Pattern: project + "/objects/{kind}/{name}", Access: ByToken, Summary: "Delete an object", do: func(q request) (any, error) {
			revision := int64(0)
			if tag := strings.Trim(q.Header.Get("If-Match"), `"`); tag != "" {
				var err error
				if revision, err = strconv.ParseInt(tag, 10, 64); err != nil {
					return nil, delivery.Errorf(delivery.CodeInvalid, "If-Match %q is not a revision.", tag)
				}
			}
			return struct{}{}, c.DeleteObject(q.Context(), q.actor, q.PathValue("project"), delivery.Kind(q.PathValue("kind")), q.PathValue("name"), revision)
		}},
		{Method: "POST", Pattern: v1 + "/artifacts", Access: ByToken, Summary: "Upload an artifact", Stream: true, do: func(q request) (any, error) {
			return c.UploadArtifact(q.Context(), q.actor, q.Body, delivery.Digest(q.URL.Query().Get("digest")))
		}},
		{Method: "GET", Pattern: v1 + "/artifacts/{digest}", Access: ByToken, Summary: "What is stored under a digest", do: func(q request) (any, error) {
			return c.Artifact(q.Context(), q.actor, delivery.Digest(q.PathValue("digest")))
		}},
		{Method: "POST", Pattern: application + "/releases", Access: ByToken, Summary: "Make a release", do: func(q request) (any, error) {
			v, err := decode[wire.NewRelease](q)
			if err != nil {
				return nil, err
			}
			return c.CreateRelease(q.Context(), q.actor, q.PathValue("project"), q.PathValue("application"), v)
		}},
		{Method: "GET", Pattern: application + "/releases", Access: ByToken, Summary: "List releases", do: func(q request) (any, error) {
			p, err := pageOf(q)
			if err != nil {
				return nil, err
			}
			return c.Releases(q.Context(), q.actor, q.PathValue("project"), q.PathValue("application"), p)
		}},
		{Method: "GET", Pattern: application + "/releases/{reference}", Access: ByToken, Summary: "One release", do: func(q request) (any, error) {
			return c.Release(q.Context(), q.actor, q.PathValue("project"), q.PathValue("application"), q.PathValue("reference"))
		}},
	}
}

// number reads a whole number of the query; absent is 0.
func number(q request, name string) (int64, error) {
	s := q.URL.Query().Get(name)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, delivery.Errorf(delivery.CodeInvalid, "%s=%q is not a whole number.", name, s)
	}
	return n, nil
}

func pageOf(q request) (wire.Page, error) {
	limit, err := number(q, "limit")
	if limit > 1000 {
		return wire.Page{}, delivery.Errorf(delivery.CodeInvalid, "limit=%d is too large: at most 1000.", limit)
	}
	return wire.Page{Cursor: q.URL.Query().Get("cursor"), Limit: int(limit)}, err
}

func moment(q request, name string) (time.Time, error) {
	s := q.URL.Query().Get(name)
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, delivery.Errorf(delivery.CodeInvalid, "%s=%q is not a time such as 2026-11-20T15:04:05Z.", name, s)
	}
	return t, nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
