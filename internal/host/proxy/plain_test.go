package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// rawBackend answers each request with the bytes of answer, and closes the
// connection after one when once is set. It returns its address.
func rawBackend(t *testing.T, once bool, answer func(n int64) string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var n atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				reader := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(reader)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					if _, err := io.WriteString(c, answer(n.Add(1))); err != nil || once {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func rawRoute(addresses ...string) Config {
	g := Group{Workload: digest("raw"), Version: "raw", Percent: 100}
	for i, a := range addresses {
		g.Backends = append(g.Backends, Backend{ID: fmt.Sprint(i, " ", a), Address: a})
	}
	return oneRoute(g)
}

// seen is what a client sees of an answer.
type seen struct {
	Status  int
	Body    string
	Header  http.Header
	Trailer http.Header
	Hints   []string
	Failed  bool // the body broke off
}

func look(t *testing.T, url, method string, header http.Header) (s seen) {
	t.Helper()
	request, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	request = request.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			s.Hints = append(s.Hints, fmt.Sprint(code, h["Link"]))
			return nil
		},
	}))
	client := newClient(t)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(request)
	if err != nil {
		s.Failed = true
		return s
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	s.Status, s.Body, s.Header, s.Trailer, s.Failed = response.StatusCode, string(b), response.Header, response.Trailer, err != nil
	delete(s.Header, "Date")
	delete(s.Header, "Trailer")
	return s
}

// The short way and the reverse proxy of the standard library (which a TE
// header asks for) must show clients and counts the same.
func TestShortWayDoesWhatTheLongOneDoes(t *testing.T) {
	p := start(t, Limits{AnswerTimeout: 200 * time.Millisecond})
	large := strings.Repeat("0123456789", 30000)
	for _, test := range []struct{ name, method, answer string }{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nX-A: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\nServer: raw\r\n\r\nhello"},
		{"large", "GET", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n%s", len(large), large)},
		{"chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"},
		{"chunks and trailer", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n"},
		{"until the end", "GET", "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"},
		{"HEAD of chunks", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"no content", "DELETE", "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"},
		{"not modified", "GET", "HTTP/1.1 304 Not Modified\r\nEtag: \"x\"\r\nContent-Length: 10\r\n\r\n"},
		{"redirect", "GET", "HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n"},
		{"error", "GET", "HTTP/1.1 503 Down\r\nContent-Length: 4\r\n\r\ndown"},
		{"early hints", "GET", "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"continue", "GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"empty POST", "POST", "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"},
		{"set cookies", "GET", "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n"},
		{"odd status", "GET", "HTTP/1.1 799 Odd\r\nContent-Length: 2\r\n\r\nok"},
		{"breaks off", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + large[:9000]},
		{"breaks off in a chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhello"},
		{"nothing", "GET", ""},
		{"no HTTP", "GET", "SSH-2.0-OpenSSH_9.2\r\n\r\n"},
		{"half a head", "GET", "HTTP/1.1 200 OK\r\nContent-Le"},
		{"bad length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"},
		{"two lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"},
		{"head too large", "GET", "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", maxAnswerHead) + "\r\nContent-Length: 2\r\n\r\nok"},
		{"switch without being asked", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"},
		{"never anything but hints", "GET", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 5)},
	} {
		t.Run(test.name, func(t *testing.T) {
			p.configure(Config{})
			p.configure(rawRoute(rawBackend(t, true, func(int64) string { return test.answer })))
			url := p.url(web)
			var got [2]seen
			var counts [2]string
			for i, header := range []http.Header{nil, {"Te": {"trailers"}}} {
				before := p.group(web, digest("raw"))
				got[i] = look(t, url, test.method, header)
				var after GroupStatus
				eventually(t, "it is counted", func() bool {
					after = p.group(web, digest("raw"))
					return after.Counts.Requests+after.Cancelled > before.Counts.Requests+before.Cancelled && after.Backends[0].InFlight == 0
				})
				counts[i] = fmt.Sprint(after.Counts.Requests-before.Counts.Requests, " requests, ", after.Counts.Errors-before.Counts.Errors, " errors, ", after.Cancelled-before.Cancelled, " cancelled")
			}
			for i := range got {
				switch {
				case got[i].Failed: // how much comes before the end is a matter of buffers
					got[i] = seen{Failed: true}
				case strings.HasPrefix(test.name, "chunks"): // one that is short and whole may get a length
					delete(got[i].Header, "Content-Length")
				case test.name == "continue" || strings.HasPrefix(test.name, "never"): // the short way tells only who asked
					got[i].Hints = nil
				}
			}
			if diff := cmp.Diff(got[1], got[0]); diff != "" {
				t.Errorf("the short way differs (-long +short):\n%s", diff)
			}
			if counts[0] != counts[1] {
				t.Errorf("the short way counts %s, the long one %s", counts[0], counts[1])
			}
		})
	}
}

func TestShortWayKeepsConnections(t *testing.T) {
	p := start(t, Limits{})
	var conns sync.Map
	backend := serve(t, func(w http.ResponseWriter, r *http.Request) {
		conns.Store(r.RemoteAddr, true)
		if r.URL.Path == "/chunks" {
			_, _ = io.WriteString(w, "a")
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = io.WriteString(w, "b")
	})
	p.configure(oneRoute(arm("one", 100, backend)))
	url, client := p.url(web), newClient(t)
	for _, path := range []string{"/", "/chunks", "/", "/chunks", "/missing"} {
		for range 5 {
			if status, body := get(client, url+path); status != 200 || !strings.HasSuffix(body, "b") {
				t.Fatalf("%s: %d %q", path, status, body)
			}
		}
	}
	n := 0
	conns.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("25 requests in a row took %d connections, want 1", n)
	}
}

// A backend that closes connections without announcing it is no failure.
func TestIdleConnectionThatWasClosed(t *testing.T) {
	p := start(t, Limits{})
	p.configure(rawRoute(rawBackend(t, true, func(int64) string { return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" })))
	url, client := p.url(web), newClient(t)
	for i := range 30 {
		if status, body := get(client, url); status != 200 {
			t.Fatalf("request %d: %d %s", i, status, body)
		}
	}
}

func TestRequestThatDiesOnAnIdleConnection(t *testing.T) {
	p := start(t, Limits{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var requests atomic.Int64
	go func() { // answers the first request of each connection, and closes it on receiving the second
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				reader := bufio.NewReader(c)
				for i := range 2 {
					if _, err := http.ReadRequest(reader); err != nil {
						return
					}
					requests.Add(1)
					if i == 0 {
						_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					}
				}
			}()
		}
	}()
	p.configure(rawRoute(l.Addr().String()))
	url, client := p.url(web), newClient(t)
	for i := range 10 {
		if status, body := get(client, url); status != 200 {
			t.Fatalf("GET %d: %d %s", i, status, body)
		}
	}
	// What may have been done must not be done again.
	before := requests.Load()
	var statuses []int
	for range 2 {
		request, err := http.NewRequest(http.MethodDelete, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		statuses = append(statuses, response.StatusCode)
	}
	if n := requests.Load() - before; n != 2 {
		t.Errorf("two DELETE requests arrived %d times", n)
	}
	if diff := cmp.Diff([]int{502, 200}, statuses); diff != "" {
		t.Errorf("DELETE on a connection that dies: %s", diff)
	}
}

func TestIdleConnectionsArePruned(t *testing.T) {
	var pool upstreams
	connect := func() *upstream {
		t.Helper()
		u, err := dial(t.Context(), rawBackend(t, false, func(int64) string { return "" }), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	old, fresh := connect(), connect()
	pool.put(old)
	pool.put(fresh)
	old.idle = time.Now().Add(-upstreamIdle)
	pool.prune(time.Now(), false)
	if got := pool.take(time.Now()); got != fresh {
		t.Error("the fresh connection is gone")
	}
	if pool.take(time.Now()) != nil {
		t.Error("the old connection is still there")
	}
	pool.prune(time.Now(), true)
	pool.put(fresh)
	if pool.take(time.Now()) != nil {
		t.Error("a closed pool keeps a connection")
	}
	if _, err := fresh.conn.Write([]byte("x")); err == nil {
		t.Error("a connection that is not kept stays open")
	}
}
