package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

const (
	maxAnswer  = 64 << 20 // bytes of a JSON answer
	maxFailure = 1 << 20  // bytes of an error's body
	tries      = 4        // of a request that may be repeated
	firstPause = 100 * time.Millisecond
)

// Options says how to reach a server.
type Options struct {
	Address string           // e.g. http://127.0.0.1:7707; a path in it is kept
	Token   string           // bearer token, "tg_..."; "" for health, ready and version only
	Channel delivery.Channel // recorded as the way in; default api
	HTTP    *http.Client     // default: one without a total time limit, since events stream; give contexts deadlines
}

// Client speaks to one server. It is safe for concurrent use. All methods
// return [delivery.Error]: the server's own, or unavailable when it was not
// reached. Requests that change something carry an idempotency key, so they
// are repeated safely when a connection is lost.
type Client struct {
	base    string
	token   string
	channel delivery.Channel
	http    *http.Client
}

// New returns a client. It does not connect. An address that is no http or
// https URL is invalid.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.Address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, delivery.Errorf(delivery.CodeInvalid, "%q is not the address of a server: write it like http://127.0.0.1:7707.", o.Address)
	}
	if strings.ContainsAny(o.Token, " \r\n\t") {
		return nil, delivery.Errorf(delivery.CodeInvalid, "The token contains white space: copy it again, or give the file that holds it.")
	}
	c := &Client{base: strings.TrimSuffix(u.String(), "/") + "/api/v1", token: o.Token, channel: o.Channel, http: o.HTTP}
	if c.http == nil {
		c.http = &http.Client{Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 8,
			IdleConnTimeout:     90 * time.Second,
			TLSHandshakeTimeout: 10 * time.Second,
		}}
	}
	return c, nil
}

type idempotencyKey struct{}

// WithIdempotencyKey makes the one request that is made with the context carry
// this key instead of a random one: repeating it later, from another process,
// is answered with the first answer. Keys have at most 128 characters.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, key)
}

// request is one call. Body is encoded as JSON, unless stream is set.
type request struct {
	method string
	path   string // after /api/v1, escaped
	query  url.Values
	header http.Header
	body   any
	stream io.Reader
	size   int64 // of stream; -1: not known
}

// call makes a request and decodes the answer into out, which may be nil.
func (c *Client) call(ctx context.Context, r request, out any) error {
	response, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if out == nil {
		io.Copy(io.Discard, io.LimitReader(response.Body, maxFailure)) // so that the connection is used again; nobody needs the rest
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(out); err != nil {
		if ctx.Err() != nil {
			return delivery.Wrap(delivery.CodeUnavailable, ctx.Err(), "The request was given up before the answer was complete; try again.")
		}
		return delivery.Wrap(delivery.CodeUnavailable, err, "The answer of %s is not complete or not JSON: check the address, and try again.", c.base)
	}
	return nil
}

// send makes a request, again after a lost connection where that is safe, and
// returns an answer of 2xx or an error.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return nil, delivery.Wrap(delivery.CodeInvalid, err, "The request cannot be written as JSON.")
		}
	}
	key, _ := ctx.Value(idempotencyKey{}).(string)
	if key == "" && r.method != http.MethodGet {
		key = rand.Text()
	}
	pause := firstPause
	for try := 1; ; try++ {
		response, err := c.once(ctx, r, body, key)
		switch {
		case err == nil && response.StatusCode/100 == 2:
			return response, nil
		case err == nil:
			return nil, failure(response)
		case ctx.Err() != nil:
			return nil, delivery.Wrap(delivery.CodeUnavailable, ctx.Err(), "The request was given up before the server at %s answered; try again.", c.base)
		case try == tries || r.stream != nil || !lost(err):
			return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The server at %s cannot be reached (%s): check that it runs and that the address is right.", c.base, rootCause(err))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause *= 3
	}
}

func (c *Client) once(ctx context.Context, r request, body []byte, key string) (*http.Response, error) {
	address := c.base + r.path
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	reader := r.stream
	if body != nil {
		reader = bytes.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, r.method, address, reader)
	if err != nil {
		return nil, err
	}
	for name, values := range r.header {
		request.Header[name] = values
	}
	if r.stream != nil {
		request.ContentLength = r.size
		request.Header.Set("Content-Type", "application/octet-stream")
	} else if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if request.Header.Get("Accept") == "" {
		request.Header.Set("Accept", "application/json")
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.channel != "" {
		request.Header.Set("Tidegate-Channel", string(c.channel))
	}
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	return c.http.Do(request)
}

// lost reports whether the connection failed in a way that a repeat may mend.
func lost(err error) bool {
	var timeout net.Error
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &timeout) && timeout.Timeout()
}

// rootCause is the innermost cause: the part that a person can use.
func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// failure reads the error that the server answered with.
func failure(response *http.Response) error {
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxFailure)) // what can't be read is not a wire.Failure either
	var f wire.Failure
	if err := json.Unmarshal(body, &f); err != nil || f.Error.Code == "" || f.Error.Message == "" {
		return delivery.Wrap(delivery.CodeUnavailable, fmt.Errorf("%s: %.200s", response.Status, body),
			"%s answered %q, which is not an answer of Tidegate: check the address.", response.Request.URL.Host, response.Status)
	}
	message := f.Error.Message
	if f.Error.Code == delivery.CodeInternal && f.Error.Correlation != "" {
		message += " (correlation " + f.Error.Correlation + ")"
	}
	return &delivery.Error{Code: f.Error.Code, Message: message, Position: f.Error.Position, Verdicts: f.Error.Verdicts}
}

// path joins escaped parts.
func path(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}

func pathOf(key delivery.PlacementKey, more ...string) string {
	return path(append([]string{"projects", key.Project, "applications", key.Application, "environments", key.Environment}, more...)...)
}

// values builds a query from name, value pairs; empty values are left out.
func values(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

func withPage(q url.Values, p wire.Page) url.Values {
	if p.Cursor != "" {
		q.Set("cursor", p.Cursor)
	}
	if p.Limit != 0 {
		q.Set("limit", fmt.Sprint(p.Limit))
	}
	return q
}

// get reads one answer of type T.
func get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	var out T
	err := c.call(ctx, request{method: http.MethodGet, path: path, query: query}, &out)
	return out, err
}

// post sends a request that changes something and reads an answer of type T.
func post[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	var out T
	err := c.call(ctx, request{method: http.MethodPost, path: path, body: body}, &out)
	return out, err
}
