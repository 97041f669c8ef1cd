package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// smallBody is the largest body, in bytes, that is read whole before a backend
// is chosen. It is at most copyBufferBytes.
const smallBody = 16 << 10

// isPlain reports whether a request can take the short way: its body is small
// or absent, and it asks for nothing that lives on one connection only. All
// others go through httputil.ReverseProxy, which does the same with more steps.
func isPlain(r *http.Request, hasBody bool) bool {
	if hasBody && (r.ContentLength <= 0 || r.ContentLength > smallBody) {
		return false
	}
	return len(r.TransferEncoding) == 0 && len(r.Trailer) == 0 && r.Header["Upgrade"] == nil && r.Header["Te"] == nil && r.Header["Expect"] == nil &&
		r.URL.Opaque == "" && (strings.HasPrefix(r.URL.Path, "/") || r.URL.Path == "*" || r.URL.Path == "")
}

// readSmall reads a body whole, within the read deadline that is set.
func readSmall(conn *http.ResponseController, r *http.Request, body []byte) error {
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return err
	}
	return conn.SetReadDeadline(time.Time{}) // the next read waits for the client to leave
}

// plain forwards a request on the handler's own goroutine.
func (s *server) plain(x *exchange) {
	u, response, release, err := x.send()
	if err != nil {
		s.fail(x, x.request, err)
		return
	}
	keep := false
	defer func() {
		if release() && keep {
			x.backend.plain.put(u)
		} else {
			_ = u.conn.Close()
		}
	}()
	stream := response.ContentLength < 0 && response.Body != http.NoBody
	if stream {
		x.note(response.StatusCode)
	}
	removeHopByHop(response.Header)
	header := x.Header()
	for name, values := range response.Header {
		header[name] = values
	}
	if len(response.Trailer) > 0 {
		names := make([]string, 0, len(response.Trailer))
		for name := range response.Trailer {
			names = append(names, name)
		}
		header.Set("Trailer", strings.Join(names, ", "))
	}
	x.WriteHeader(response.StatusCode)
	switch {
	case response.Body == http.NoBody:
	case response.ContentLength >= 0 && int64(u.reader.Buffered()) >= response.ContentLength:
		body, _ := u.reader.Peek(int(response.ContentLength)) // all is there
		_, err = x.Write(body)
		_, _ = u.reader.Discard(len(body))
	default:
		err = x.copyBody(u, response, stream || strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream"))
	}
	if err != nil {
		panic(http.ErrAbortHandler) // the client must not take a part for the whole
	}
	for name, values := range response.Trailer {
		header[http.TrailerPrefix+name] = values
	}
	keep = !response.Close && u.reader.Buffered() == 0
}

// note counts an answer of unknown length at its beginning.
func (x *exchange) note(status int) {
	x.counted, x.erred = true, status >= 500
	x.group.counter.count(status, time.Since(x.start))
}

// copyBody copies an answer's body. When flush is set, nothing that came is
// kept back while the backend thinks.
func (x *exchange) copyBody(u *upstream, response *http.Response, flush bool) error {
	flusher, _ := x.ResponseWriter.(interface{ FlushError() error })
	if flush && flusher != nil && u.reader.Buffered() == 0 {
		if err := flusher.FlushError(); err != nil { // the head, for who waits for it
			x.unsent = true
			return err
		}
	}
	buffer := copyBuffers.Get()
	defer copyBuffers.Put(buffer)
	for {
		n, err := response.Body.Read(buffer)
		if n > 0 {
			if _, err := x.Write(buffer[:n]); err != nil {
				return err
			}
			if flush && flusher != nil && err == nil && u.reader.Buffered() == 0 {
				if err := flusher.FlushError(); err != nil {
					x.unsent = true
					return err
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			if x.request.Context().Err() == nil {
				x.broken = true
			}
			return err
		}
	}
}

// send sends the request and reads the answer's head. It tries another backend
// of the workload when no connection can be made, and a new connection when
// the backend closed an idle one just as it was used and a repeat does no harm
// (RFC 9110, section 9.2.2; those that http.Transport repeats). Release ends
// the watch over the client and reports whether the connection is sound.
func (x *exchange) send() (*upstream, *http.Response, func() bool, error) {
	ctx, moved := x.request.Context(), false
	for {
		u, err := x.connect(ctx)
		if err != nil {
			if ctx.Err() == nil {
				x.backend.unreachable(x.server.now(time.Now()), err)
				if !moved && x.move() {
					moved = true
					x.group.counter.retried.Add(1)
					continue
				}
			}
			return nil, nil, nil, err
		}
		release := context.AfterFunc(ctx, func() { _ = u.conn.SetDeadline(time.Unix(1, 0)) })
		response, err := x.exchangeHeads(u)
		if err == nil {
			return u, response, release, nil
		}
		release()
		_ = u.conn.Close()
		if !u.used || ctx.Err() != nil || !errors.Is(err, errNothingCame) || !repeatable(x.request) {
			return nil, nil, nil, err
		}
	}
}

// repeatable reports whether a request may be sent again though the first may
// have arrived.
func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return r.Header["Idempotency-Key"] != nil
}

func (x *exchange) connect(ctx context.Context) (*upstream, error) {
	if u := x.backend.plain.take(time.Now()); u != nil {
		return u, nil
	}
	return dial(ctx, x.backend.address, x.server.limits.ConnectTimeout)
}

// errNothingCame means that a connection ended before the first byte of an answer.
var errNothingCame = errors.New("the connection ended before an answer")

// exchangeHeads writes the request and reads the head of its answer.
func (x *exchange) exchangeHeads(u *upstream) (*http.Response, error) {
	if err := u.await(time.Now(), x.server.limits.AnswerTimeout); err != nil {
		return nil, err
	}
	u.request = x.appendRequest(u.request[:0])
	if _, err := u.conn.Write(u.request); err != nil {
		return nil, noAnswer(err)
	}
	if _, err := u.reader.Peek(1); err != nil {
		return nil, noAnswer(err)
	}
	for range 6 {
		response, err := http.ReadResponse(u.reader, x.request)
		if err != nil {
			return nil, err
		}
		switch {
		case response.StatusCode == http.StatusSwitchingProtocols:
			return nil, errors.New("the backend switched protocols without being asked")
		case response.StatusCode == http.StatusContinue: // nobody waits for it
		case response.StatusCode < 200:
			x.inform(response)
		default:
			buffered := response.Body == http.NoBody || response.ContentLength >= 0 && int64(u.reader.Buffered()) >= response.ContentLength
			return response, u.begun(buffered)
		}
	}
	return nil, errors.New("the backend sends one informational answer after another")
}

// noAnswer marks what a connection that was closed while idle gives; a time-out is none of that.
func noAnswer(err error) error {
	if isTimeout(err) {
		return err
	}
	return fmt.Errorf("%w: %w", errNothingCame, err)
}

// inform passes an informational answer (103 Early Hints) on.
func (x *exchange) inform(response *http.Response) {
	header := x.Header()
	removeHopByHop(response.Header)
	for name, values := range response.Header {
		header[name] = values
	}
	x.WriteHeader(response.StatusCode)
	for name := range response.Header {
		delete(header, name)
	}
}

// appendRequest writes the backend's request with its body. Names and values were checked by
// the HTTP server that read them.
func (x *exchange) appendRequest(b []byte) []byte {
	r := x.request
	removeHopByHop(r.Header)
	x.server.setForwarded(r.Header, r)
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.URL.RequestURI()...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	if r.Host != "" {
		b = append(b, r.Host...)
	} else {
		b = append(b, x.backend.address...)
	}
	b = append(b, "\r\n"...)
	for name, values := range r.Header {
		if name == "Content-Length" || name == "Host" {
			continue
		}
		for _, value := range values {
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, value...)
			b = append(b, "\r\n"...)
		}
	}
	if len(x.body) > 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(x.body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	return append(b, x.body...)
}

// hopByHop are the headers of one connection (RFC 9110, section 7.6.1, and
// older ones that are in use).
var hopByHop = [...]string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// removeHopByHop removes the headers of one connection, those that Connection
// names first.
func removeHopByHop(h http.Header) {
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			if name = strings.TrimSpace(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}
