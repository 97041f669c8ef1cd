package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func TestStreamsAreNotBuffered(t *testing.T) {
	p := start(t, Limits{})
	next := make(chan string)
	for _, kind := range []string{"text/event-stream", "application/json"} {
		backend := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			for line := range next {
				_, _ = io.WriteString(w, line)
				_ = http.NewResponseController(w).Flush()
			}
		})
		p.configure(oneRoute(arm("one", 100, backend)))
		next = make(chan string)
		go func() { next <- "data: first\n" }()
		response, err := newClient(t).Get(p.url(web))
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(response.Body)
		for i, want := range []string{"data: first\n", "data: second\n"} {
			if i > 0 {
				next <- want // sent only after the one before was seen
			}
			if got, err := lines.ReadString('\n'); got != want || err != nil {
				t.Errorf("%s: got %q %v, want %q", kind, got, err, want)
			}
			if g := p.group(web, digest("one")); g.Counts.Requests == 0 {
				t.Errorf("%s: a stream under way is not counted", kind)
			}
		}
		close(next)
		_ = response.Body.Close()
	}
}

func TestUploadsAreNotBuffered(t *testing.T) {
	p := start(t, Limits{})
	backend := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		lines := bufio.NewReader(r.Body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(w, "echo "+line)
			_ = http.NewResponseController(w).Flush()
		}
	})
	p.configure(oneRoute(arm("one", 100, backend)))
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url(web), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
	answer := bufio.NewReader(conn)
	expect := func(want string) {
		t.Helper()
		for {
			line, err := answer.ReadString('\n')
			if err != nil {
				t.Fatalf("waiting for %q: %v", want, err)
			}
			if strings.TrimSpace(line) == want {
				return
			}
		}
	}
	expect("echo one")
	fmt.Fprint(conn, "4\r\ntwo\n\r\n0\r\n\r\n")
	expect("echo two")
}

func TestWebSocket(t *testing.T) {
	p := start(t, Limits{})
	backend := serve(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, append([]byte("echo "), message...)); err != nil {
				return
			}
		}
	})
	one := arm("one", 100, backend)
	p.configure(oneRoute(one))
	url := p.url(web)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	say := func(text string) {
		t.Helper()
		if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != "echo "+text {
			t.Fatalf("got %q %v", got, err)
		}
	}
	say("hello")
	// It is counted at its start, stays under way, and outlives its backend's removal.
	g := p.group(web, digest("one"))
	if g.Counts.Requests != 1 || g.Counts.Errors != 0 || g.Backends[0].InFlight != 1 {
		t.Errorf("an open WebSocket is %+v, want one request under way", g)
	}
	p.configure(oneRoute(arm("two", 100, says(t, "two"))))
	say("still there")
	if err := p.client.Drain(ctx, one.Backends[0].ID, 10*time.Millisecond); err == nil {
		t.Error("a backend with an open WebSocket counts as drained")
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := p.client.Drain(ctx, one.Backends[0].ID, 5*time.Second); err != nil {
		t.Errorf("Drain: %v", err)
	}
	if g := p.group(web, digest("one")); g.Counts.Requests != 1 || g.Counts.Errors != 0 || g.Cancelled != 0 {
		t.Errorf("a WebSocket that ended is counted as %+v", g)
	}
}

func TestOtherUpgrades(t *testing.T) {
	p := start(t, Limits{})
	backend := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "chat" || r.Header.Get("Connection") != "Upgrade" {
			w.WriteHeader(http.StatusUpgradeRequired)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nhello ")
		line, _ := rw.ReadString('\n')
		fmt.Fprint(conn, line)
	})
	p.configure(oneRoute(arm("one", 100, backend)))
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url(web), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
	answer := bufio.NewReader(conn)
	response, err := http.ReadResponse(answer, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", response, err)
	}
	fmt.Fprint(conn, "you\n")
	if got, err := io.ReadAll(answer); string(got) != "hello you\n" {
		t.Errorf("got %q %v", got, err)
	}
}

func TestHeaders(t *testing.T) {
	p := start(t, Limits{})
	seen := make(chan *http.Request, 1)
	backend := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("X-End", "1")
	})
	p.configure(oneRoute(arm("one", 100, backend)))
	address := strings.TrimPrefix(p.url(web), "http://")
	for _, test := range []struct {
		name, send string
		want       http.Header
		absent     []string
		uri, host  string
	}{
		{
			name: "forwarded", send: "GET /a%2Fb//c?x=1;y=%zz HTTP/1.1\r\nHost: shop.example\r\n\r\n",
			want: http.Header{"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Host": {"shop.example"}, "X-Forwarded-Proto": {"http"}},
			uri:  "/a%2Fb//c?x=1;y=%zz", host: "shop.example",
		},
		{
			name: "behind a TLS terminator on this machine",
			send: "GET / HTTP/1.1\r\nHost: inner\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: outer\r\n\r\n",
			want: http.Header{"X-Forwarded-For": {"203.0.113.9, 127.0.0.1"}, "X-Forwarded-Host": {"outer"}, "X-Forwarded-Proto": {"https"}},
			uri:  "/", host: "inner",
		},
		{
			name: "hop by hop", send: "GET / HTTP/1.1\r\nHost: shop\r\nConnection: keep-alive, X-Secret-Hop\r\nX-Secret-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\nTE: gzip\r\nX-End: 2\r\n\r\n",
			want: http.Header{"X-End": {"2"}}, absent: []string{"X-Secret-Hop", "Keep-Alive", "Proxy-Authorization", "Te", "Connection", "User-Agent", "Accept-Encoding"},
			uri: "/", host: "shop",
		},
		{
			name: "absolute form goes to the backend all the same", send: "GET http://elsewhere.example/x HTTP/1.1\r\nHost: shop\r\n\r\n",
			want: http.Header{"X-Forwarded-Host": {"elsewhere.example"}}, uri: "/x", host: "elsewhere.example",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, test.send)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if response.Header.Get("X-Hop") != "" || response.Header.Get("X-End") != "1" {
				t.Errorf("the answer's headers are %v", response.Header)
			}
			r := <-seen
			for name, want := range test.want {
				if diff := cmp.Diff(want, r.Header[name]); diff != "" {
					t.Errorf("%s: %s", name, diff)
				}
			}
			for _, name := range test.absent {
				if v, ok := r.Header[name]; ok {
					t.Errorf("%s is %v, want it absent", name, v)
				}
			}
			if r.RequestURI != test.uri || r.Host != test.host {
				t.Errorf("got %q of %q, want %q of %q", r.RequestURI, r.Host, test.uri, test.host)
			}
		})
	}
}

func TestStrangersForwardedHeadersAreDropped(t *testing.T) {
	s := newServer(Options{Log: quiet(), TrustedProxies: nil})
	for address, want := range map[string]bool{"127.0.0.1:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true, "192.0.2.7:1": false, "[2001:db8::1]:1": false} {
		request, err := http.NewRequest(http.MethodGet, "http://shop/", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.RemoteAddr = address
		request.Header.Set("X-Forwarded-For", "203.0.113.9")
		got := rewritten(s, request).Get("X-Forwarded-For")
		if strings.Contains(got, "203.0.113.9") != want {
			t.Errorf("from %s: X-Forwarded-For is %q", address, got)
		}
	}
}

func TestLimits(t *testing.T) {
	p := start(t, Limits{HeaderBytes: 4 << 10, BodyBytes: 1000, HeaderTimeout: 100 * time.Millisecond, StallTimeout: 100 * time.Millisecond})
	backend := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil && r.URL.Path == "/much" {
			for range 2000 {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}
	})
	p.configure(oneRoute(arm("one", 100, backend)))
	address := strings.TrimPrefix(p.url(web), "http://")
	for _, test := range []struct{ name, send, want string }{
		{"large head", "GET / HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 9000) + "\r\n\r\n", "431"},
		{"large body announced", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", "413"},
		{"large body in chunks", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + strings.Repeat("a", 2000) + "\r\n0\r\n\r\n", "413"},
		{"body that stalls", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome", "408"},
		{"body with broken chunks", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
		{"two lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "400"},
		{"unknown transfer encoding", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", "501"},
		{"two hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400"},
		{"CONNECT", "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", "405"},
		{"HTTP/0.9", "GET /\r\n\r\n", "400"},
		{"head that never ends", "GET / HTTP/1.1\r\nHost: x\r\nX-A", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.WriteString(conn, test.send); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Fatal("the connection stays open")
			}
			line, _, _ := bytes.Cut(answer, []byte("\r\n"))
			if _, status, _ := strings.Cut(string(line), " "); !strings.HasPrefix(status, test.want) {
				t.Errorf("got %q, want status %s", line, test.want)
			}
		})
	}
	t.Run("client that does not read", func(t *testing.T) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
		eventually(t, "the answer is under way", func() bool { return p.group(web, digest("one")).Backends[0].InFlight == 1 })
		eventually(t, "it is given up", func() bool { return p.group(web, digest("one")).Backends[0].InFlight == 0 })
	})
	if g := p.group(web, digest("one")); g.Counts.Errors != 0 {
		t.Errorf("clients' faults are counted as %d errors", g.Counts.Errors)
	}
}

func TestMetrics(t *testing.T) {
	p := start(t, Limits{Gone: time.Millisecond})
	config := oneRoute(arm("one", 50, says(t, "one")), arm("two", 50))
	config.Routes[0].Groups[0].Version = "v\"1\"\n\xff"
	p.configure(config)
	client := newClient(t)
	for range 10 {
		get(client, p.url(web))
	}
	scrape := func() map[string]float64 {
		t.Helper()
		response, err := p.client.http.Get("http://proxy/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for name, family := range families {
			for _, m := range family.Metric {
				series := name
				for _, l := range m.Label {
					if l.GetName() == "code_class" || l.GetName() == "workload" {
						series += "," + l.GetValue()
					}
				}
				switch {
				case m.Counter != nil:
					got[series] = m.Counter.GetValue()
				case m.Gauge != nil:
					got[series] = m.Gauge.GetValue()
				case m.Histogram != nil:
					got[series] = float64(m.Histogram.GetSampleCount())
				}
			}
		}
		return got
	}
	one, two := digest("one").Short(), digest("two").Short()
	got := scrape()
	for series, want := range map[string]float64{
		"tidegate_proxy_requests_total,2xx," + one:            10,
		"tidegate_proxy_requests_total,5xx," + one:            0,
		"tidegate_proxy_requests_total,cancelled," + one:      0,
		"tidegate_proxy_request_duration_seconds," + one:      10,
		"tidegate_proxy_in_flight_requests," + one:            0,
		"tidegate_proxy_weight_percent," + one:                50,
		"tidegate_proxy_diverted_total," + two:                5,
		"tidegate_proxy_requests_total,2xx," + two:            0,
		"tidegate_proxy_unserved_total":                       0,
		"tidegate_proxy_listening":                            1,
		"tidegate_proxy_config_revision":                      1,
		"tidegate_proxy_retries_total," + one:                 0,
		"tidegate_proxy_broken_total," + one:                  0,
		"tidegate_proxy_errors_total," + one:                  0,
		"tidegate_proxy_request_duration_seconds," + two + "": 0,
	} {
		if v, ok := got[series]; !ok || v != want {
			t.Errorf("%s is %v (there: %v), want %v", series, v, ok, want)
		}
	}
	// What left the configuration leaves the metrics, and begins a new epoch when it comes back.
	epoch := p.group(web, digest("one")).Counts.Epoch
	p.configure(oneRoute(arm("two", 100, says(t, "two"))))
	eventually(t, "the workload that is gone leaves the metrics", func() bool {
		_, there := scrape()["tidegate_proxy_requests_total,2xx,"+one]
		return !there
	})
	p.configure(config)
	if again := p.group(web, digest("one")).Counts; again.Epoch == epoch || again.Requests != 0 {
		t.Errorf("counts that began again: %+v, epoch before %s", again, epoch)
	}
}

// rewritten returns the headers that a backend would get.
func rewritten(s *server, in *http.Request) http.Header {
	x := &exchange{backend: &backend{address: "127.0.0.1:1"}}
	in = in.WithContext(context.WithValue(in.Context(), exchangeKey{}, x))
	out := in.Clone(in.Context())
	out.Header.Del("X-Forwarded-For")
	s.rewrite(&httputil.ProxyRequest{In: in, Out: out})
	return out.Header
}
