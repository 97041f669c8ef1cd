// Package api is control over HTTP: JSON under /api/v1, one table of routes in
// which every route names its authentication, one table from error codes to
// status. It decides nothing.
//
// Start reading at [New] and the table in route.go.
package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/control"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// maxBody bounds a JSON body, in bytes. Artifacts stream and have a limit of their own.
const maxBody = 32 << 20

// Status is the HTTP status of every error code.
var Status = map[delivery.Code]int{
	delivery.CodeInvalid:     http.StatusBadRequest,
	delivery.CodeNotFound:    http.StatusNotFound,
	delivery.CodeConflict:    http.StatusConflict,
	delivery.CodeDenied:      http.StatusForbidden,
	delivery.CodeUnavailable: http.StatusServiceUnavailable,
	delivery.CodeInternal:    http.StatusInternalServerError,
}

// Options says what the API serves.
type Options struct {
	Control *control.Control
	Memory  Memory // of answers, for idempotency keys
	Version wire.Version
	Log     *slog.Logger
}

// Memory remembers answers to requests that carried an idempotency key.
type Memory interface {
	Remembered(ctx context.Context, key string) (store.Idempotency, error)
	Commit(ctx context.Context, c store.Change) (store.Committed, error)
	Now(ctx context.Context) (time.Time, error)
}

// API serves HTTP. It is safe for concurrent use.
type API struct {
	o        Options
	handler  http.Handler
	requests *prometheus.CounterVec
	metrics  http.Handler
}

// New returns the API's handler.
func New(o Options) *API {
	registry := prometheus.NewRegistry()
	a := &API{
		o:        o,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_api_requests_total", Help: "Requests by route and status."}, []string{"route", "status"}),
		metrics:  promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	}
	registry.MustRegister(a.requests)
	mux := http.NewServeMux()
	for _, r := range a.Routes() {
		mux.Handle(r.Method+" "+r.Pattern, a.serve(r))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, delivery.Errorf(delivery.CodeNotFound, "There is nothing at %s: the API is described at /api/v1/openapi.json.", r.URL.Path))
	})
	a.handler = http.NewCrossOriginProtection().Handler(mux)
	return a
}

// ServeHTTP serves one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }

// request is one request of a known actor.
type request struct {
	*http.Request
	actor delivery.Actor
	w     http.ResponseWriter
}

// key is the placement that the path names.
func (r request) key() delivery.PlacementKey {
	return delivery.PlacementKey{Project: r.PathValue("project"), Application: r.PathValue("application"), Environment: r.PathValue("environment")}
}

// recorder remembers the status for metrics, and passes flushes on.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (a *API) serve(route Route) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := &recorder{ResponseWriter: rw, status: http.StatusOK}
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				a.fail(w, r, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
			}
			a.requests.WithLabelValues(route.Pattern, fmt.Sprint(w.status)).Inc()
		}()
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		q := request{Request: r, w: w}
		if route.Access == ByToken {
			actor, err := a.authenticate(r)
			if err != nil {
				w.Header().Set("WWW-Authenticate", "Bearer")
				a.fail(w, r, err)
				return
			}
			q.actor = actor
		}
		if !route.Stream {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		}
		a.answer(w, q, route)
	})
}

func (a *API) authenticate(r *http.Request) (delivery.Actor, error) {
	secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return delivery.Actor{}, delivery.Errorf(delivery.CodeDenied, "No token was given: send 'Authorization: Bearer TOKEN'.")
	}
	actor, err := a.o.Control.Authenticate(r.Context(), secret)
	if err == nil && r.Header.Get("Tidegate-Channel") == string(delivery.ChannelCLI) {
		actor.Channel = delivery.ChannelCLI
	}
	return actor, err
}

// answer runs the route's function, once for each idempotency key.
func (a *API) answer(w http.ResponseWriter, q request, route Route) {
	if route.serve != nil {
		if err := route.serve(q); err != nil {
			a.fail(w, q.Request, err)
		}
		return
	}
	once := q.Header.Get("Idempotency-Key")
	if q.Method == http.MethodGet || route.Stream || len(once) > 128 {
		once = ""
	}
	var digest delivery.Digest
	if once != "" {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			a.fail(w, q.Request, bodyError(err))
			return
		}
		q.Body = io.NopCloser(strings.NewReader(string(body)))
		digest = delivery.DigestBytes([]byte(q.Method + " " + q.URL.Path + "\n" + string(body)))
		once = q.actor.Subject + "/" + once
		if old, err := a.o.Memory.Remembered(q.Context(), once); err == nil {
			if old.Request != digest {
				a.fail(w, q.Request, delivery.Errorf(delivery.CodeConflict, "The idempotency key was used for another request: choose a new one."))
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Write(old.Response)
			return
		}
	}
	v, err := route.do(q)
	if err != nil {
		a.fail(w, q.Request, err)
		return
	}
	raw, err := json.Marshal(v)
	if err != nil {
		a.fail(w, q.Request, err)
		return
	}
	if once != "" {
		a.remember(q.Context(), once, digest, raw)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(raw, '\n'))
}

func (a *API) remember(ctx context.Context, key string, digest delivery.Digest, answer json.RawMessage) {
	now, err := a.o.Memory.Now(ctx)
	if err == nil {
		_, err = a.o.Memory.Commit(ctx, store.Change{Idempotency: &store.Idempotency{Key: key, Request: digest, Response: answer, At: now}})
	}
	if err != nil {
		a.o.Log.Warn("answer not remembered", "error", err)
	}
}

// fail answers with an error. Causes are logged under a correlation id and not shown.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	e, ours := errors.AsType[*delivery.Error](err)
	code := delivery.ErrorCode(err)
	out := wire.Error{Code: code, Message: err.Error()}
	if ours {
		out.Verdicts = e.Verdicts
		if list, many := err.(interface{ Unwrap() []error }); !many || len(list.Unwrap()) == 1 {
			out.Message, out.Position = e.Message, e.Position
		}
	}
	if !ours {
		out.Message = "Something went wrong in the server."
	}
	if code == delivery.CodeInternal || code == delivery.CodeUnavailable {
		out.Correlation = rand.Text()[:12]
		a.o.Log.Error("request failed", "correlation", out.Correlation, "path", r.URL.Path, "error", err, "cause", errors.Unwrap(err))
	}
	status := Status[code]
	if code == delivery.CodeDenied && r.Header.Get("Authorization") == "" {
		status = http.StatusUnauthorized
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(wire.Failure{Error: out}) // a client that went away needs no answer
}

// decode reads a JSON body strictly.
func decode[T any](q request) (T, error) {
	var v T
	d := json.NewDecoder(http.MaxBytesReader(q.w, q.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		if errors.Is(err, io.EOF) {
			return v, nil // no body: nothing was said
		}
		return v, bodyError(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, delivery.Errorf(delivery.CodeInvalid, "The body has more than one JSON value.")
	}
	return v, nil
}

func bodyError(err error) error {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return delivery.Errorf(delivery.CodeInvalid, "The body has more than %d bytes.", maxBody)
	}
	return delivery.Wrap(delivery.CodeInvalid, err, "The body is not what is expected: %v.", err)
}
