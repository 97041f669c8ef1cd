package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// quiet is a log that goes to the test's output only when it asks for it.
func quiet() *slog.Logger {
	if os.Getenv("PROXY_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// process is a proxy that runs inside the test.
type process struct {
	t      *testing.T
	dir    string
	client *Client
	stop   func() // ends it and waits
	ended  chan struct{}
}

func startIn(t *testing.T, dir string, limits Limits) *process {
	t.Helper()
	socket := filepath.Join(dir, "proxy.sock")
	ctx, cancel := context.WithCancel(t.Context())
	p := &process{t: t, dir: dir, client: Dial(socket), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		if err := Run(ctx, Options{Dir: dir, Socket: socket, Log: quiet(), Limits: limits}); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	p.stop = func() { cancel(); <-p.ended }
	t.Cleanup(p.stop)
	eventually(t, "the proxy answers", func() bool { _, err := p.client.Status(ctx); return err == nil })
	return p
}

// start runs a proxy in a directory of its own. Socket paths are short, so
// t.TempDir with its long test names will not do.
func start(t *testing.T, limits Limits) *process {
	t.Helper()
	return startIn(t, shortDir(t), limits)
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "px")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("It did not come about within 10s that %s.", what)
		}
	}
}

func (p *process) configure(c Config) {
	p.t.Helper()
	if err := p.client.Configure(p.t.Context(), c); err != nil {
		p.t.Fatalf("Configure: %v", err)
	}
}

func (p *process) status() Status {
	p.t.Helper()
	s, err := p.client.Status(p.t.Context())
	if err != nil {
		p.t.Fatalf("Status: %v", err)
	}
	return s
}

func (p *process) url(id RouteID) string {
	p.t.Helper()
	r := p.status().Route(id)
	if r == nil || r.Listen == "" {
		p.t.Fatalf("Route %s does not listen: %+v", id, r)
	}
	return "http://" + r.Listen
}

func (p *process) group(id RouteID, w delivery.Digest) GroupStatus {
	p.t.Helper()
	s := p.status()
	g := s.Route(id).Group(w)
	if g == nil {
		p.t.Fatalf("Route %s has no workload %s.", id, w.Short())
	}
	return *g
}

var web = RouteID{delivery.PlacementKey{Project: "default", Application: "shop", Environment: "dev"}, "web"}

func digest(name string) delivery.Digest { return delivery.DigestBytes([]byte(name)) }

// serve starts a backend.
func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

// says starts a backend that answers with its name.
func says(t *testing.T, name string) *httptest.Server {
	return serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
}

func arm(name string, percent int, servers ...*httptest.Server) Group {
	g := Group{Workload: digest(name), Release: digest("release " + name), Version: name, Percent: percent}
	for _, s := range servers {
		address := strings.TrimPrefix(s.URL, "http://")
		g.Backends = append(g.Backends, Backend{ID: name + "-" + address, Address: address})
	}
	return g
}

func oneRoute(groups ...Group) Config {
	return Config{Revision: 1, Routes: []Route{{ID: web, Groups: groups}}}
}

// get returns status and body; a failure to get an answer is status 0.
func get(client *http.Client, url string) (int, string) {
	response, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(b)
}

func newClient(t *testing.T) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// deadAddress returns an address where nothing listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestSharesAreExactOverHundredRequests(t *testing.T) {
	p := start(t, Limits{})
	p.configure(oneRoute(arm("one", 63, says(t, "one"), says(t, "one")), arm("two", 37, says(t, "two"))))
	url, client := p.url(web), newClient(t)
	for block := range 3 {
		got := map[string]int{}
		for range 100 {
			status, body := get(client, url)
			if status != 200 {
				t.Fatalf("status %d: %s", status, body)
			}
			got[body]++
		}
		if got["one"] != 63 || got["two"] != 37 {
			t.Errorf("block %d: got %v, want one 63 and two 37", block, got)
		}
	}
	one := p.group(web, digest("one"))
	if one.Counts.Requests != 189 || one.Counts.Errors != 0 || one.Counts.Epoch == "" {
		t.Errorf("counts of one: %+v", one.Counts)
	}
	if last := one.Latency.Buckets[len(one.Latency.Buckets)-1]; last != 189 {
		t.Errorf("the histogram of one counts %d requests, want 189", last)
	}
}

func TestNoBackend(t *testing.T) {
	p := start(t, Limits{})
	two := says(t, "two")
	client := newClient(t)

	p.configure(oneRoute(arm("one", 60), arm("two", 40, two)))
	url := p.url(web)
	for range 100 {
		if status, body := get(client, url); status != 200 || body != "two" {
			t.Fatalf("got %d %q, want two to take it", status, body)
		}
	}
	if g := p.group(web, digest("one")); g.Diverted != 60 || g.Counts.Requests != 0 {
		t.Errorf("one has %d diverted and %d requests, want 60 and 0", g.Diverted, g.Counts.Requests)
	}
	if g := p.group(web, digest("two")); g.Counts.Requests != 100 {
		t.Errorf("two has %d requests, want 100", g.Counts.Requests)
	}

	// A group at 0 percent takes nothing, even when it alone has a backend.
	p.configure(oneRoute(arm("one", 100), arm("two", 0, two)))
	status, body := get(client, url)
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "No instance of this service is ready") {
		t.Errorf("got %d %q, want 503 with a sentence", status, body)
	}
	r := p.status().Route(web)
	if one := r.Group(digest("one")); r.Unserved != 1 || one.Counts.Errors != 1 || one.Counts.Requests != 1 {
		t.Errorf("unserved %d, counts of one %+v, want 1 everywhere", r.Unserved, one.Counts)
	}

	p.configure(Config{Routes: []Route{{ID: web}}})
	if status, _ := get(client, url); status != http.StatusServiceUnavailable {
		t.Errorf("a route without groups answers %d, want 503", status)
	}
}

func TestCountsErrors(t *testing.T) {
	p := start(t, Limits{AnswerTimeout: 50 * time.Millisecond})
	backend := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/500":
			w.WriteHeader(500)
		case "/404":
			w.WriteHeader(404)
		case "/hang":
			<-r.Context().Done()
		case "/abort":
			panic(http.ErrAbortHandler)
		case "/breaks": // in the middle of an answer of known length
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/stream-breaks": // counted at its first byte, then broken off
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	p.configure(oneRoute(arm("one", 100, backend)))
	url := p.url(web)
	for _, test := range []struct {
		path             string
		status           int
		requests, errors int64
	}{
		{"/", 200, 1, 0},
		{"/404", 404, 1, 0},
		{"/500", 500, 1, 1},
		{"/hang", 504, 1, 1},
		{"/abort", 502, 1, 1},
		{"/breaks", 0, 1, 1},
		{"/stream-breaks", 0, 1, 1},
	} {
		before := p.group(web, digest("one"))
		if status, body := get(newClient(t), url+test.path); status != test.status {
			t.Errorf("%s: status %d %q, want %d", test.path, status, body, test.status)
		}
		var after GroupStatus
		eventually(t, test.path+" is counted", func() bool {
			after = p.group(web, digest("one"))
			return after.Counts.Requests-before.Counts.Requests >= test.requests && after.Counts.Errors-before.Counts.Errors >= test.errors
		})
		if got := after.Counts; got.Requests-before.Counts.Requests != test.requests || got.Errors-before.Counts.Errors != test.errors {
			t.Errorf("%s: counts went from %+v to %+v", test.path, before.Counts, got)
		}
		if after.Cancelled != 0 {
			t.Errorf("%s: counted as cancelled", test.path)
		}
	}
}

func TestClientThatLeavesIsNoError(t *testing.T) {
	p := start(t, Limits{})
	arrived, left := make(chan struct{}, 3), make(chan struct{}, 3)
	backend := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
		}
		if r.URL.Path == "/upload" {
			arrived <- struct{}{}
			_, _ = io.Copy(io.Discard, r.Body)
			left <- struct{}{}
			return
		}
		arrived <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
	})
	p.configure(oneRoute(arm("one", 100, backend)))
	url := p.url(web)
	for _, request := range []string{
		"GET /wait HTTP/1.1\r\nHost: shop\r\n\r\n",
		"GET /stream HTTP/1.1\r\nHost: shop\r\n\r\n",
		"POST /upload HTTP/1.1\r\nHost: shop\r\nContent-Length: 100000\r\n\r\nsome of it",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		<-arrived
		if strings.Contains(request, "/stream") {
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		_ = conn.Close()
		<-left // the backend sees that nobody waits any more
	}
	var g GroupStatus
	eventually(t, "all three have ended", func() bool {
		g = p.group(web, digest("one"))
		return g.Cancelled+g.Counts.Requests == 3 && g.Backends[0].InFlight == 0
	})
	if g.Cancelled != 2 || g.Counts.Requests != 1 || g.Counts.Errors != 0 {
		t.Errorf("got %d cancelled and %+v, want 2, and the stream as a request without error", g.Cancelled, g.Counts)
	}
}

// Half a request, or a client that closed its half of the connection, must not
// get an answer that looks like success.
func TestClientThatLeavesGetsNoAnswer(t *testing.T) {
	p := start(t, Limits{})
	backend := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	p.configure(oneRoute(arm("one", 100, backend)))
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: shop\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: shop\r\nTE: trailers\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nbody",
		"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nbody",
		"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 500000\r\n\r\nbody",
		"POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.url(web), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, request)
		_ = conn.(*net.TCPConn).CloseWrite()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if answer, _ := io.ReadAll(conn); strings.HasPrefix(string(answer), "HTTP/1.1 2") {
			t.Errorf("%q got %q", request, answer)
		}
		_ = conn.Close()
	}
	if g := p.group(web, digest("one")); g.Counts.Requests != 0 {
		t.Errorf("they are counted: %+v", g.Counts)
	}
}

func TestBodiesArriveWhole(t *testing.T) {
	p := start(t, Limits{})
	echo := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%d %x", r.ContentLength, sha256.Sum256(b))
	})
	p.configure(oneRoute(arm("one", 100, echo)))
	url, client := p.url(web), newClient(t)
	for _, size := range []int{1, 2000, smallBody, smallBody + 1, 1 << 20} {
		for _, chunked := range []bool{false, true} {
			sent := bytes.Repeat([]byte("abc"), size)[:size]
			var body io.Reader = bytes.NewReader(sent)
			length := size
			if chunked {
				body, length = struct{ io.Reader }{body}, -1
			}
			response, err := client.Post(url, "text/plain", body)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if want := fmt.Sprintf("%d %x", length, sha256.Sum256(sent)); string(got) != want {
				t.Errorf("%d bytes, chunked %v: got %q, want %q", size, chunked, got, want)
			}
		}
	}
}

func TestRetriesWhatWasNotSent(t *testing.T) {
	p := start(t, Limits{})
	alive := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	g := arm("one", 100, alive)
	g.Backends = append(g.Backends, Backend{ID: "dead", Address: deadAddress(t)})
	p.configure(oneRoute(g, arm("two", 0)))
	url, client := p.url(web), newClient(t)
	for i := range 20 {
		var body io.Reader = strings.NewReader(fmt.Sprint("body ", i))
		if i%2 == 0 { // of unknown length, on the long way
			body = struct{ io.Reader }{body}
		}
		response, err := client.Post(url, "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != 200 || string(b) != fmt.Sprint("body ", i) {
			t.Fatalf("request %d: %d %q %v", i, response.StatusCode, b, err)
		}
	}
	one := p.group(web, digest("one"))
	if one.Retried == 0 || one.Counts.Requests != 20 || one.Counts.Errors != 0 {
		t.Errorf("retried %d, counts %+v, want retries and 20 requests without error", one.Retried, one.Counts)
	}
	for _, b := range one.Backends {
		if b.InFlight != 0 || (b.ID == "dead") != (b.Error != "") {
			t.Errorf("backend %+v: want nothing under way, and the dead one's reason", b)
		}
	}

	// Nobody of the workload can be reached: no other workload hides that.
	p.configure(oneRoute(Group{Workload: digest("one"), Percent: 50, Backends: []Backend{{ID: "dead", Address: deadAddress(t)}}}, arm("two", 50, alive)))
	failed := 0
	for range 100 {
		if status, _ := get(client, url); status == http.StatusBadGateway {
			failed++
		}
	}
	if failed != 50 {
		t.Errorf("%d of 100 failed, want the dead workload's 50", failed)
	}
}

func TestDrain(t *testing.T) {
	p := start(t, Limits{})
	arrived, release := make(chan struct{}), make(chan struct{})
	slow := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		_, _ = io.WriteString(w, "done")
	})
	one := arm("one", 100, slow)
	id := one.Backends[0].ID
	p.configure(oneRoute(one))
	url := p.url(web)
	answer := make(chan string, 1)
	go func() { _, body := get(newClient(t), url); answer <- body }()
	<-arrived

	if err := p.client.Drain(t.Context(), id, time.Second); delivery.ErrorCode(err) != delivery.CodeConflict {
		t.Errorf("draining a configured backend: %v, want a conflict", err)
	}
	p.configure(oneRoute(arm("two", 100, says(t, "two"))))
	if err := p.client.Drain(t.Context(), id, 20*time.Millisecond); delivery.ErrorCode(err) != delivery.CodeUnavailable || !strings.Contains(err.Error(), "1 requests under way") {
		t.Errorf("draining while a request is under way: %v, want unavailable with the number", err)
	}
	if g := p.group(web, digest("one")); !g.Gone || len(g.Backends) != 1 || !g.Backends[0].Removed || g.Backends[0].InFlight != 1 {
		t.Errorf("the removed workload says %+v", g)
	}
	drained := make(chan error, 1)
	go func() { drained <- p.client.Drain(t.Context(), id, 10*time.Second) }()
	close(release)
	if body := <-answer; body != "done" {
		t.Errorf("the request under way got %q", body)
	}
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	if err := p.client.Drain(t.Context(), "never heard of", time.Second); err != nil {
		t.Errorf("draining an unknown backend: %v", err)
	}
}

// loadUnder sends requests from several clients until stop, and returns how
// many there were and the failures.
func loadUnder(t *testing.T, url string, clients int) (stop func() (total int64, failures []string)) {
	t.Helper()
	var total atomic.Int64
	quit, results := make(chan struct{}), make(chan []string)
	for i := range clients {
		go func() {
			client := newClient(t)
			var failures []string
			defer func() { results <- failures }()
			for n := 0; ; n++ {
				select {
				case <-quit:
					return
				default:
				}
				if i%2 == 1 && n%10 == 0 { // some connect anew often
					client.CloseIdleConnections()
				}
				var status int
				var body string
				if n%3 == 0 {
					response, err := client.Post(url, "text/plain", strings.NewReader("x"))
					if err != nil {
						failures = append(failures, err.Error())
						continue
					}
					b, _ := io.ReadAll(response.Body)
					_ = response.Body.Close()
					status, body = response.StatusCode, string(b)
				} else {
					status, body = get(client, url)
				}
				if status != 200 {
					failures = append(failures, fmt.Sprint(status, " ", body))
				}
				total.Add(1)
			}
		}()
	}
	return func() (int64, []string) {
		close(quit)
		var failures []string
		for range clients {
			failures = append(failures, <-results...)
		}
		return total.Load(), failures
	}
}

func TestReloadUnderLoadLosesNothing(t *testing.T) {
	p := start(t, Limits{})
	a, b, c := says(t, "a"), says(t, "b"), says(t, "c")
	p.configure(oneRoute(arm("one", 100, a), arm("two", 0, b)))
	stop := loadUnder(t, p.url(web), 8)
	for i := range 60 {
		two := arm("two", 100-i%101, b, c)
		if i%2 == 0 {
			two = arm("two", 100-i%101, c)
		}
		config := oneRoute(arm("one", i%101, a), two)
		config.Revision = int64(i)
		p.configure(config)
	}
	total, failures := stop()
	if len(failures) > 0 {
		t.Errorf("%d of %d failed, first: %s", len(failures), total, failures[0])
	}
	s := p.status()
	var counted int64
	for _, g := range s.Routes[0].Groups {
		counted += g.Counts.Requests
	}
	if counted != total {
		t.Errorf("the proxy counted %d requests, the clients %d", counted, total)
	}
}

// What a supervisor does at every exchange: start the new one, configure it,
// drain the old one, end it.
func TestDrainedBackendsGetNothingMore(t *testing.T) {
	p := start(t, Limits{})
	current := says(t, "0")
	p.configure(oneRoute(arm("0", 100, current)))
	stop := loadUnder(t, p.url(web), 8)
	for i := range 60 {
		next := says(t, "next")
		old := arm(fmt.Sprint(i), 100, current).Backends[0].ID
		p.configure(oneRoute(arm(fmt.Sprint(i+1), 100, next))) // another workload, so that no second try hides a loss
		if err := p.client.Drain(t.Context(), old, 5*time.Second); err != nil {
			t.Error(err)
		}
		_ = current.Listener.Close()
		current.CloseClientConnections() // at once, whatever is under way
		current = next
	}
	if total, failures := stop(); len(failures) > 0 {
		t.Errorf("%d of %d failed, first: %s", len(failures), total, failures[0])
	}
}

func TestRouteThatCannotListenHoldsUpNobody(t *testing.T) {
	p := start(t, Limits{})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other := web
	other.Service = "other"
	c := Config{Routes: []Route{
		{ID: other, Listen: taken.Addr().String(), Groups: []Group{arm("o", 100, says(t, "o"))}},
		{ID: web, Groups: []Group{arm("one", 100, says(t, "one"))}},
	}}
	p.configure(c)
	if status, body := get(newClient(t), p.url(web)); status != 200 || body != "one" {
		t.Errorf("the good route answers %d %q", status, body)
	}
	if r := p.status().Route(other); r.Listen != "" || !strings.Contains(r.Error, "another program or route uses it") {
		t.Errorf("the other route says %+v", r)
	}
	_ = taken.Close()
	eventually(t, "the route listens once its address is free", func() bool { return p.status().Route(other).Listen == taken.Addr().String() })
	if r := p.status().Route(other); r.Error != "" {
		t.Errorf("it listens but says %q", r.Error)
	}
}

func TestRoutesComeMoveAndGo(t *testing.T) {
	p := start(t, Limits{Linger: 10 * time.Millisecond})
	one := arm("one", 100, says(t, "one"))
	p.configure(oneRoute(one))
	first, client := p.url(web), newClient(t)
	get(client, first)
	p.configure(Config{Routes: []Route{{ID: web, Listen: deadAddress(t), Groups: []Group{one}}}})
	second := p.url(web)
	if first == second {
		t.Fatal("the route did not move")
	}
	if status, _ := get(client, second); status != 200 {
		t.Errorf("the new address answers %d", status)
	}
	p.configure(Config{})
	eventually(t, "nothing listens any more", func() bool {
		status, text := get(newClient(t), second)
		return status == 0 && strings.Contains(text, "refused")
	})
	if status, text := get(newClient(t), first); status != 0 {
		t.Errorf("the first address answers %d %s", status, text)
	}
}

func TestConfigurationIsRefusedWithASentence(t *testing.T) {
	p := start(t, Limits{})
	p.configure(oneRoute(arm("one", 100, says(t, "one"))))
	for _, test := range []struct {
		name, want string
		change     func(*Config)
	}{
		{"sum", "add up to 99", func(c *Config) { c.Routes[0].Groups[0].Percent = 99 }},
		{"negative", "-1 percent", func(c *Config) { c.Routes[0].Groups[0].Percent = -1 }},
		{"workload", "not a digest", func(c *Config) { c.Routes[0].Groups[0].Workload = "sha256:xyz" }},
		{"release", "release", func(c *Config) { c.Routes[0].Groups[0].Release = "main" }},
		{"backend address", "write host:port", func(c *Config) { c.Routes[0].Groups[0].Backends[0].Address = "localhost" }},
		{"backend port", "the port is 0", func(c *Config) { c.Routes[0].Groups[0].Backends[0].Address = "localhost:0" }},
		{"backend host", "not a name", func(c *Config) { c.Routes[0].Groups[0].Backends[0].Address = "a/b:80" }},
		{"backend twice", "is there twice", func(c *Config) {
			g := &c.Routes[0].Groups[0]
			g.Backends = append(g.Backends, g.Backends[0])
		}},
		{"workload twice", "twice", func(c *Config) { c.Routes[0].Groups = append(c.Routes[0].Groups, c.Routes[0].Groups[0]) }},
		{"route twice", "twice", func(c *Config) { c.Routes = append(c.Routes, Route{ID: web}) }},
		{"service", "service name", func(c *Config) { c.Routes[0].ID.Service = "Web!" }},
		{"listen", "cannot listen", func(c *Config) { c.Routes[0].Listen = "8080" }},
		{"listen port", "cannot listen", func(c *Config) { c.Routes[0].Listen = "127.0.0.1:http" }},
		{"too many", "at most", func(c *Config) { c.Routes = make([]Route, maxRoutes+1) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := oneRoute(arm("one", 100, says(t, "one")))
			test.change(&c)
			err := p.client.Configure(t.Context(), c)
			if delivery.ErrorCode(err) != delivery.CodeInvalid || !strings.Contains(err.Error(), test.want) || !strings.HasSuffix(err.Error(), ".") {
				t.Errorf("got %v, want a sentence with %q", err, test.want)
			}
		})
	}
	if s := p.status(); s.Revision != 1 || s.Routes[0].Groups[0].Percent != 100 {
		t.Errorf("a refused configuration changed something: %+v", s)
	}
	for _, body := range []string{"", "{", `{"routes":[]} {}`, `{"weights":1}`, `{"routes":{}}`, `[]`} {
		if _, err := DecodeConfig(strings.NewReader(body)); delivery.ErrorCode(err) != delivery.CodeInvalid {
			t.Errorf("%q: %v, want invalid", body, err)
		}
	}
}

func TestClientWithoutProxy(t *testing.T) {
	_, err := Dial(filepath.Join(shortDir(t), "none.sock")).Status(t.Context())
	if delivery.ErrorCode(err) != delivery.CodeUnavailable {
		t.Errorf("got %v, want unavailable", err)
	}
}

func TestOptionsAreRefusedWithASentence(t *testing.T) {
	for _, o := range []Options{{}, {Dir: "x"}, {Dir: "x", Socket: strings.Repeat("s", 101)}, {Dir: "x", Socket: "y"}} {
		err := Run(t.Context(), o)
		if _, ok := errors.AsType[*delivery.Error](err); !ok {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestAdminSocketIsPrivate(t *testing.T) {
	p := start(t, Limits{})
	info, err := os.Stat(filepath.Join(p.dir, "proxy.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the admin socket's mode is %v (%v), want 0600", info.Mode(), err)
	}
	p.stop()
	if _, err := os.Stat(filepath.Join(p.dir, "proxy.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the admin socket stays after the end: %v", err)
	}
}
