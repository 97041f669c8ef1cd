package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Client speaks to a proxy over its admin socket. It is safe for concurrent
// use and outlives restarts of the proxy: every call connects anew where it
// has to. Errors of [delivery.CodeUnavailable] mean that no proxy answers, or
// that it is just being exchanged: call again.
type Client struct {
	http *http.Client
}

// Dial returns a client for the proxy whose admin socket is at path. It
// connects with the first call.
func Dial(path string) *Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &Client{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
		DisableKeepAlives:  true, // so that a call never goes to a process that handed over
		DisableCompression: true,
	}}}
}

// Configure makes the proxy serve c instead of what it served. When it
// returns nil, every new request follows c; requests under way stay where they
// are. A route that cannot listen does not hold up the others: its reason is
// in [RouteStatus.Error], and the proxy keeps trying. A configuration that is
// wrong is refused with [delivery.CodeInvalid] and changes nothing.
// Configuring the same again changes nothing.
func (c *Client) Configure(ctx context.Context, config Config) error {
	body, err := json.Marshal(config)
	if err != nil {
		return delivery.Wrap(delivery.CodeInternal, err, "The proxy's configuration could not be written as JSON.")
	}
	return c.call(ctx, http.MethodPut, "/config", body, nil)
}

// Status returns what the proxy serves and its counts.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.call(ctx, http.MethodGet, "/status", nil, &s)
	return s, err
}

// Drain waits until a backend has no request under way, at most limit. The
// backend must have left the configuration before ([delivery.CodeConflict]
// otherwise), so that no new request can reach it; one that the proxy does not
// know is drained. When requests are left at the limit the error is of
// [delivery.CodeUnavailable] and says how many.
func (c *Client) Drain(ctx context.Context, backend string, limit time.Duration) error {
	query := url.Values{"backend": {backend}, "limit": {limit.String()}}
	return c.call(ctx, http.MethodPost, "/drain?"+query.Encode(), nil, nil)
}

// How often and how soon a call is tried again while one proxy process hands
// over to another, which takes milliseconds.
const (
	exchangeTries = 40
	exchangePause = 25 * time.Millisecond
)

// call does one request of the admin API and decodes its answer into out. It
// waits for an exchange of processes to end.
func (c *Client) call(ctx context.Context, method, path string, body []byte, out any) error {
	for try := 1; ; try++ {
		exchanged, err := c.try(ctx, method, path, body, out)
		if !exchanged || try == exchangeTries {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(exchangePause):
		}
	}
}

// try does one request; exchanged means that the process that answered is
// leaving, so that the same request again reaches its successor.
func (c *Client) try(ctx context.Context, method, path string, body []byte, out any) (exchanged bool, _ error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://proxy"+path, bytes.NewReader(body))
	if err != nil {
		return false, delivery.Wrap(delivery.CodeInternal, err, "The proxy's admin request could not be made.")
	}
	response, err := c.http.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		return false, delivery.Wrap(delivery.CodeUnavailable, err, "The proxy does not answer on its admin socket: see whether its process runs.")
	}
	defer response.Body.Close()
	if response.StatusCode/100 == 2 {
		if out == nil {
			return false, nil
		}
		if err := json.NewDecoder(io.LimitReader(response.Body, 256<<20)).Decode(out); err != nil {
			return false, delivery.Wrap(delivery.CodeUnavailable, err, "The proxy's answer broke off: ask again.")
		}
		return false, nil
	}
	var refused delivery.Error
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&refused); err != nil || refused.Code == "" {
		return false, delivery.Wrap(delivery.CodeInternal, errors.Join(err, errors.New(response.Status)), "The proxy refused with an answer that is not understood.")
	}
	return response.Header.Get(headerExchanged) != "", &refused
}
