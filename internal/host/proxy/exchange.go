package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// exchange is one request and its answer on their way through the proxy. It is
// the ResponseWriter that the reverse proxy writes to, so that it sees how the
// answer ends. Its plain fields belong to the handler's goroutine.
type exchange struct {
	http.ResponseWriter
	server  *server
	request *http.Request
	start   time.Time
	route   *route
	group   *group
	backend *backend
	upload  *upload // nil on the short way
	body    []byte  // on the short way

	status  int  // of the final answer's head; 0 before it
	counted bool // in the requests
	erred   bool // in the errors
	broken  bool // the backend broke off in the middle of its answer
	unsent  bool // the client did not take the answer
}

type exchangeKey struct{}

// forward answers one request of a route.
func (s *server) forward(w http.ResponseWriter, request *http.Request, r *route) {
	conn := http.NewResponseController(w)
	hasBody := request.Body != nil && request.Body != http.NoBody
	if hasBody {
		_ = conn.EnableFullDuplex() // the answer may begin before the body has ended
		_ = conn.SetReadDeadline(time.Now().Add(s.limits.StallTimeout))
	}
	if request.Method == http.MethodConnect {
		w.Header().Set("Connection", "close")
		refuse(w, http.StatusMethodNotAllowed, "This address serves an application; it is not a forward proxy.")
		return
	}
	if request.ContentLength > s.limits.BodyBytes {
		w.Header().Set("Connection", "close")
		refuse(w, http.StatusRequestEntityTooLarge, "The request's body is larger than this address takes.")
		return
	}
	x := &exchange{ResponseWriter: w, server: s, start: time.Now(), route: r}
	short := isPlain(request, hasBody)
	if short && hasBody {
		buffer := copyBuffers.Get()
		defer copyBuffers.Put(buffer)
		x.body = buffer[:request.ContentLength]
		if err := readSmall(conn, request, x.body); err != nil {
			refuseBody(w, err)
			return
		}
	}
	if !x.acquire() {
		r.unserved.Add(1)
		if x.group != nil {
			x.group.counter.count(http.StatusServiceUnavailable, time.Since(x.start))
		}
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "No instance of this service is ready: try again shortly.")
		return
	}
	x.request = request
	defer x.finish()
	if short {
		s.plain(x)
		return
	}
	x.request = request.WithContext(context.WithValue(request.Context(), exchangeKey{}, x))
	if hasBody {
		x.upload = &upload{inner: http.MaxBytesReader(w, request.Body, s.limits.BodyBytes), conn: conn, stall: s.limits.StallTimeout}
		x.request.Body = x.upload
	}
	s.reverse.ServeHTTP(x, x.request)
}

// refuse answers without a backend.
func refuse(w http.ResponseWriter, status int, sentence string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, sentence+"\n")
}

// acquire chooses who answers and notes the request as under way there. It
// looks at the table again after it did so: whoever replaced the table and then
// finds no request under way at a backend can be sure that none comes.
func (x *exchange) acquire() bool {
	var cursor *atomic.Uint64
	var n uint64
	for {
		t := x.route.table.Load()
		if t.cursor != cursor {
			cursor = t.cursor
			n = cursor.Add(1) - 1
		}
		meant, taker, b := t.choose(n, x.server.now(x.start))
		if b == nil {
			x.group = meant
			return false
		}
		b.inFlight.Add(1)
		if x.route.table.Load() != t {
			b.inFlight.Add(-1)
			continue
		}
		if taker != meant {
			meant.counter.diverted.Add(1)
		}
		x.group, x.backend = taker, b
		taker.counter.inFlight.Add(1)
		return true
	}
}

// move takes the request to another backend of its workload; false if there is none.
func (x *exchange) move() bool {
	for {
		t := x.route.table.Load()
		g := t.find(x.group.counter.key.Workload)
		if g == nil {
			return false
		}
		b := g.pick(x.backend, x.server.now(time.Now()))
		if b == nil {
			return false
		}
		b.inFlight.Add(1)
		if x.route.table.Load() != t {
			b.inFlight.Add(-1)
			continue
		}
		x.backend.inFlight.Add(-1)
		x.backend = b
		return true
	}
}

// finish counts what is not counted yet and lets go of the backend.
func (x *exchange) finish() {
	c := x.group.counter
	switch gone := x.unsent || x.request.Context().Err() != nil; {
	case x.counted:
		if (x.broken || x.status >= 500) && !x.erred {
			c.broken.Add(1)
			c.errors.Add(1)
		}
	case x.broken:
		c.broken.Add(1)
		c.count(http.StatusBadGateway, time.Since(x.start))
	case x.status == 0 || gone && x.status < 500:
		c.cancelled.Add(1)
	default:
		c.count(x.status, time.Since(x.start))
	}
	c.inFlight.Add(-1)
	x.backend.inFlight.Add(-1)
}

// Unwrap lets http.ResponseController flush and hijack.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader notes the final status.
func (x *exchange) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		x.status = status
		if h := x.ResponseWriter.Header(); h["Content-Type"] == nil {
			h["Content-Type"] = nil // what the backend did not say is not guessed
		}
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write notes when the client does not take the answer.
func (x *exchange) Write(b []byte) (int, error) {
	n, err := x.ResponseWriter.Write(b)
	if err != nil {
		x.unsent = true
	}
	return n, err
}

// refuseBody answers a client whose body could not be read.
func refuseBody(w http.ResponseWriter, err error) {
	w.Header().Set("Connection", "close")
	switch {
	case isType[*http.MaxBytesError](err):
		refuse(w, http.StatusRequestEntityTooLarge, "The request's body is larger than this address takes.")
	case isTimeout(err):
		refuse(w, http.StatusRequestTimeout, "The request's body came too slowly.")
	case errors.Is(err, io.ErrUnexpectedEOF) || isType[*net.OpError](err) || errors.Is(err, context.Canceled):
		panic(http.ErrAbortHandler) // the client has left; returning would be an answer, 200
	default:
		refuse(w, http.StatusBadRequest, "The request's body could not be read to its end.")
	}
}

// newReverse returns the reverse proxy that all routes share; what differs is
// in the request's exchange.
func (s *server) newReverse() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:      s.rewrite,
		Transport:    roundTripper{},
		ErrorHandler: s.fail,
		BufferPool:   &copyBuffers,
		ErrorLog:     s.errorLog,
	}
}

// rewrite makes the backend's request. ReverseProxy has removed hop-by-hop
// headers and X-Forwarded-* before.
func (s *server) rewrite(pr *httputil.ProxyRequest) {
	x := pr.In.Context().Value(exchangeKey{}).(*exchange)
	out := pr.Out
	out.URL.Scheme, out.URL.Host = "http", x.backend.address
	out.URL.RawQuery = pr.In.URL.RawQuery // as it came, not normalised
	out.Host = pr.In.Host
	s.setForwarded(out.Header, pr.In)
}

// setForwarded tells the backend who asks, for which host, and how. What an
// untrusted client says of itself is dropped.
func (s *server) setForwarded(h http.Header, in *http.Request) {
	peer, forwarded := "", in.Host
	proto := "http"
	if address, err := netip.ParseAddrPort(in.RemoteAddr); err == nil {
		peer = address.Addr().Unmap().String()
		if s.trusts(address.Addr()) {
			if before := in.Header["X-Forwarded-For"]; len(before) > 0 {
				peer = strings.Join(before, ", ") + ", " + peer
			}
			if host := in.Header.Get("X-Forwarded-Host"); host != "" {
				forwarded = host
			}
			if p := in.Header.Get("X-Forwarded-Proto"); p == "https" {
				proto = p
			}
		}
	}
	delete(h, "Forwarded")
	values := []string{peer, forwarded, proto} // one allocation for three headers
	h["X-Forwarded-For"] = values[0:1:1]
	h["X-Forwarded-Host"] = values[1:2:2]
	h["X-Forwarded-Proto"] = values[2:3:3]
}

// trusts reports whether a peer's X-Forwarded headers are believed.
func (s *server) trusts(peer netip.Addr) bool {
	peer = peer.Unmap()
	for _, prefix := range s.trusted {
		if prefix.Contains(peer) {
			return true
		}
	}
	return false
}

// fail answers a request that got no answer.
func (s *server) fail(w http.ResponseWriter, request *http.Request, err error) {
	x := w.(*exchange)
	if err := x.upload.failure(); err != nil {
		refuseBody(w, err)
		return
	}
	if x.request.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the client has left, and no backend is to blame; returning would be an answer, 200
	}
	s.log.Debug("A backend gave no answer.", "route", x.route.id.String(), "backend", x.backend.id, "error", err)
	if !isType[*dialError](err) && isTimeout(err) {
		refuse(w, http.StatusGatewayTimeout, "The service did not answer in time.")
		return
	}
	refuse(w, http.StatusBadGateway, "The service gave no answer.")
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func isType[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// roundTripper sends a request to its exchange's backend, and once more to
// another backend of the same workload when no connection could be made and
// nothing of the body was read: then nothing was sent, whatever the method is.
type roundTripper struct{}

func (roundTripper) RoundTrip(request *http.Request) (*http.Response, error) {
	x := request.Context().Value(exchangeKey{}).(*exchange)
	response, err := x.backend.transport.RoundTrip(request)
	if err != nil && isType[*dialError](err) && request.Context().Err() == nil {
		x.backend.unreachable(x.server.now(time.Now()), err)
		if !x.upload.touched() && x.move() {
			x.group.counter.retried.Add(1)
			again := request.WithContext(request.Context())
			address := *request.URL
			address.Host = x.backend.address
			again.URL = &address
			if again.Body != nil {
				again.Body = x.upload // what ReverseProxy put around it was closed with the first try
			}
			if response, err = x.backend.transport.RoundTrip(again); err != nil && isType[*dialError](err) {
				x.backend.unreachable(x.server.now(time.Now()), err)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusSwitchingProtocols || response.ContentLength < 0 {
		x.note(response.StatusCode)
	}
	if response.StatusCode != http.StatusSwitchingProtocols && response.Body != http.NoBody {
		response.Body = &download{response.Body, x}
	}
	return response, nil
}
