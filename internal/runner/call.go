package runner

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// HTTPCaller performs HTTP tasks. Addresses are checked when they are dialled,
// so that no name and no redirect leads to a link-local address (where clouds
// keep credentials); redirects to another host are not followed.
type HTTPCaller struct{ client *http.Client }

// NewHTTPCaller returns a caller.
func NewHTTPCaller() *HTTPCaller {
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if ip := at.Addr().Unmap(); ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
			return fmt.Errorf("the address %s is not allowed", ip)
		}
		return nil
	}}
	return &HTTPCaller{&http.Client{
		Transport: &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Host != via[0].URL.Host || len(via) > 5 {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}}
}

// Call performs the task. The effect's key goes along as Idempotency-Key, so
// that a receiver can tell a repeat.
func (c *HTTPCaller) Call(ctx context.Context, e delivery.Effect) delivery.Result {
	task := e.Call.HTTP
	fail := func(retry bool, format string, args ...any) delivery.Result {
		return delivery.Result{Key: e.Key, Retry: retry, Message: fmt.Sprintf(format, args...)}
	}
	request, err := http.NewRequestWithContext(ctx, task.Method, task.URL, strings.NewReader(task.Body))
	if err != nil {
		return fail(false, "%s is not a request that can be made", task.URL)
	}
	for k, v := range task.Header {
		request.Header.Set(k, v)
	}
	request.Header.Set("Idempotency-Key", e.Key.String())
	response, err := c.client.Do(request)
	if err != nil {
		return fail(true, "%s %s does not answer: %v", task.Method, request.URL.Redacted(), err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 512)) // what was read of the answer is enough for a message
	if response.StatusCode/100 == 2 {
		return delivery.Result{Key: e.Key, OK: true, Message: response.Status}
	}
	retry := response.StatusCode >= 500 || response.StatusCode == http.StatusTooManyRequests
	return fail(retry, "%s %s answered %s: %s", task.Method, request.URL.Redacted(), response.Status, strings.TrimSpace(string(body)))
}
