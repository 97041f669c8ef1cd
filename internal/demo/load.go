package demo

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// rate is how many requests a second production gets.
const rate = 300

// load makes requests to production and counts what comes back. An answer says
// in a header which release gave it.
type load struct {
	url    string
	cancel context.CancelFunc
	done   sync.WaitGroup
	good   atomic.Pointer[string] // the stable release's version

	total, failed, outside atomic.Int64
}

func newLoad() *load { return &load{} }

func (l *load) running() bool { return l.cancel != nil }

// stable says which release is no candidate from now on.
func (l *load) stable(version string) { l.good.Store(&version) }

// start sends requests until stop, at a steady rate whatever the answers take.
func (l *load) start(ctx context.Context, url, version string) {
	l.url = url
	l.stable(version)
	ctx, l.cancel = context.WithCancel(ctx)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	l.done.Go(func() {
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				l.done.Go(func() { l.one(client) })
			}
		}
	})
}

func (l *load) one(client *http.Client) {
	stable := *l.good.Load()
	l.total.Add(1)
	response, err := client.Get(l.url)
	if err != nil {
		l.failed.Add(1)
		l.outside.Add(1)
		return
	}
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body) // so that the connection is used again
	if response.StatusCode < 500 {
		return
	}
	l.failed.Add(1)
	if by := response.Header.Get("Shop-Release"); by == "" || by == stable {
		l.outside.Add(1)
	}
}

// stop ends the load and waits for the answers under way.
func (l *load) stop() {
	if l.cancel != nil {
		l.cancel()
		l.done.Wait()
	}
}

func (l *load) requests() Requests {
	return Requests{Total: l.total.Load(), Failed: l.failed.Load(), FailedOutsideCandidate: l.outside.Load()}
}
