package remote

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// shelf is artifacts in memory.
type shelf map[delivery.Digest][]byte

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

func (s shelf) Open(d delivery.Digest) (io.ReadSeekCloser, int64, error) {
	b, ok := s[d]
	if !ok {
		return nil, 0, delivery.Errorf(delivery.CodeNotFound, "There is no artifact %s.", d)
	}
	return nopCloser{bytes.NewReader(b)}, int64(len(b)), nil
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// side is a server over a memory store, listening on loopback.
type side struct {
	t       *testing.T
	clock   *clock
	store   store.Store
	server  *Server
	http    *http.Server
	socket  net.Listener
	address string
	shelf   shelf
	dir     string
}

func newSide(t *testing.T) *side {
	t.Helper()
	s := &side{t: t, clock: &clock{t: time.Now()}, shelf: shelf{}, dir: t.TempDir()}
	s.store = store.NewMemory(store.Options{Now: s.clock.now})
	s.listen("127.0.0.1:0")
	t.Cleanup(func() { s.http.Close() })
	return s
}

// listen starts the server, or starts it again after http.Close.
func (s *side) listen(address string) {
	s.t.Helper()
	server, err := NewServer(ServerOptions{
		Backend: NewStoreBackend(StoreBackendOptions{Store: s.store, Artifacts: s.shelf, NewID: newID}),
		Dir:     s.dir, Hosts: []string{"127.0.0.1"}, Now: s.clock.now, Poll: 300 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(s.t.Output(), nil)),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.server, s.socket, s.address = server, l, l.Addr().String()
	s.http = &http.Server{Handler: server, TLSConfig: server.TLSConfig(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func(h *http.Server) { _ = h.ServeTLS(l, "", "") }(s.http)
}

func newID() delivery.ID { return delivery.ID(uuid.Must(uuid.NewV7()).String()) }

// token makes an enrolment token for a host.
func (s *side) token(host string, change ...func(*store.Token)) string {
	s.t.Helper()
	e := NewEnrolmentToken(s.server.Fingerprint())
	t := store.Token{ID: newID(), Hash: e.Hash(), Name: host, Kind: TokenKindEnrol, CreatedAt: s.clock.now(), Expires: s.clock.now().Add(time.Hour)}
	for _, c := range change {
		c(&t)
	}
	if _, err := s.store.Commit(s.t.Context(), store.Change{Tokens: []store.Token{t}}); err != nil {
		s.t.Fatal(err)
	}
	return e.String()
}

func (s *side) client(host, token string, change ...func(*ClientOptions)) *Client {
	s.t.Helper()
	o := ClientOptions{
		Server: "https://" + s.address, Name: host, Dir: s.t.TempDir(), Token: token, Now: s.clock.now,
		Tick: 20 * time.Millisecond, Wait: [2]time.Duration{time.Millisecond, 20 * time.Millisecond},
		Log: slog.New(slog.NewTextHandler(s.t.Output(), nil)),
	}
	for _, c := range change {
		c(&o)
	}
	c, err := NewClient(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *side) enrolled(host string) *Client {
	s.t.Helper()
	c := s.client(host, s.token(host))
	if err := c.Enrol(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// intend commits effects of a placement.
func (s *side) intend(project string, effects ...delivery.Effect) {
	s.t.Helper()
	ctx := s.t.Context()
	key := delivery.PlacementKey{Project: project, Application: "shop", Environment: "dev"}
	if _, err := s.store.Commit(ctx, store.Change{Commands: []delivery.Command{{ID: newID(), Key: key, Kind: delivery.CommandPause}}}); err != nil {
		s.t.Fatal(err)
	}
	var lease *store.Lease
	leases, err := s.store.Claim(ctx, "test", time.Minute, 10)
	for i := range leases {
		if leases[i].Key == key {
			lease = &leases[i]
		}
	}
	if err != nil || lease == nil {
		s.t.Fatalf("no lease of %s: %v", key, err)
	}
	record, err := s.store.Placement(ctx, key)
	if err != nil {
		s.t.Fatal(err)
	}
	var consumed []delivery.ID
	for _, c := range record.Commands {
		consumed = append(consumed, c.ID)
	}
	for i := range effects {
		effects[i].Placement = key
		if effects[i].Stop == nil {
			effects[i].Stop = &delivery.StopEffect{Service: "web"}
		}
	}
	change := store.Change{Lease: lease, Placement: &delivery.Placement{Format: delivery.PlacementFormat, Key: key}, Version: record.Version, Effects: effects, ConsumedCommands: consumed}
	if _, err := s.store.Commit(ctx, change); err != nil {
		s.t.Fatal(err)
	}
	if err := s.store.Yield(ctx, *lease); err != nil {
		s.t.Fatal(err)
	}
}

func effectOf(target string, sequence int64) delivery.Effect {
	return delivery.Effect{Key: delivery.EffectKey{Deployment: "d", Sequence: sequence}, Target: target}
}

// machine is a machine that notes what it does.
type machine struct {
	mu      sync.Mutex
	did     []int64
	times   map[delivery.EffectKey]int
	fail    int // so many effects end without a result
	targets []string
	ready   int
	changed chan struct{}
}

func newMachine() *machine {
	return &machine{times: map[delivery.EffectKey]int{}, changed: make(chan struct{})}
}

func (m *machine) Do(_ context.Context, e delivery.Effect) (delivery.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail > 0 {
		m.fail--
		return delivery.Result{}, errors.New("not known")
	}
	m.times[e.Key]++
	if m.times[e.Key] == 1 {
		m.did = append(m.did, e.Key.Sequence)
	}
	return delivery.Result{Key: e.Key, OK: true, Already: m.times[e.Key] > 1, At: time.Now()}, nil
}

func (m *machine) SetTargets(names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.targets = names
}

func (m *machine) set(ready int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready = ready
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *machine) Reports(context.Context) ([]delivery.Report, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := delivery.PlacementKey{Project: "default", Application: "shop", Environment: "dev"}
	return []delivery.Report{{Target: "local", At: time.Now(), Services: []delivery.ServiceStatus{{Placement: key, Service: "web", Workloads: []delivery.WorkloadStatus{{Ready: m.ready}}}}}}, nil
}

func (m *machine) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func (m *machine) Logs(_ context.Context, q LogQuery) ([]LogLine, error) {
	if q.Service == "broken" {
		return nil, errors.New("no such file")
	}
	return []LogLine{{Target: "local", Text: fmt.Sprintf("%s %d", q.Service, q.Lines)}}, nil
}

// runs starts a client's Run; the function returned ends it and gives its error.
func runs(t *testing.T, c *Client, m Machine) func() error {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, m) }()
	end := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = end() })
	return end
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(10 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("not in time: %v", err)
		}
	}
}

func TestTokenText(t *testing.T) {
	token := NewEnrolmentToken(hexSum([]byte("key")))
	got, err := ParseEnrolmentToken(" " + token.String() + "\n")
	if err != nil || got != token {
		t.Fatalf("got %+v, %v, want %+v", got, err, token)
	}
	whole := token.String()
	for _, text := range []string{"", "tge_", whole[4:], whole[:len(whole)-1], strings.Replace(whole, ".", "", 1), whole + "0", strings.ToUpper(whole), "tge_" + whole[5:]} {
		if got, err := ParseEnrolmentToken(text); delivery.ErrorCode(err) != delivery.CodeInvalid {
			t.Errorf("%q: got %+v, %v, want invalid", text, got, err)
		}
	}
}

func FuzzParseEnrolmentToken(f *testing.F) {
	f.Add(NewEnrolmentToken(hexSum(nil)).String())
	f.Add("tge_.")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseEnrolmentToken(text)
		if err == nil && token.String() != strings.TrimSpace(text) {
			t.Errorf("%q was read as %q", text, token)
		}
	})
}

func TestEnrolment(t *testing.T) {
	s := newSide(t)
	c := s.client("local", s.token("local"))
	if err := c.Enrol(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The answer was lost: the same machine may ask again.
	if err := c.Enrol(t.Context()); err != nil {
		t.Errorf("again with the same key: %v", err)
	}
	spent := c.options.Token
	expired := s.token("local", func(x *store.Token) { x.Expires = s.clock.now().Add(-time.Second) })
	tests := []struct {
		name, host, token string
		code              delivery.Code
		want              string
	}{
		{"a spent token", "local", spent, delivery.CodeDenied, "was used before"},
		{"an expired token", "local", expired, delivery.CodeDenied, "has expired"},
		{"a revoked token", "local", s.token("local", func(x *store.Token) { x.Revoked = true }), delivery.CodeDenied, "was revoked"},
		{"another host's token", "other", s.token("local"), delivery.CodeDenied, `was made for host "local"`},
		{"an API token", "local", s.token("local", func(x *store.Token) { x.Kind = "api" }), delivery.CodeDenied, "another kind"},
		{"an unknown token", "local", NewEnrolmentToken(s.server.Fingerprint()).String(), delivery.CodeDenied, "is not known"},
		{"a token of another server", "local", NewEnrolmentToken(hexSum([]byte("other"))).String(), delivery.CodeDenied, "is not the one that made the enrolment token"},
		{"half a token", "local", "tge_abc", delivery.CodeInvalid, "not complete"},
	}
	for _, test := range tests {
		err := s.client(test.host, test.token).Run(t.Context(), newMachine())
		if delivery.ErrorCode(err) != test.code || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s with %q", test.name, err, test.code, test.want)
		}
	}
	hosts, err := s.store.Hosts(t.Context())
	if err != nil || len(hosts) != 1 || hosts[0].Name != "local" {
		t.Errorf("got hosts %+v, %v, want local only", hosts, err)
	}
	for file, want := range map[string]os.FileMode{filepath.Join(s.dir, authorityKeyFile): 0o600, filepath.Join(c.options.Dir, machineKeyFile): 0o600} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: got %v, %v, want mode %o", file, info.Mode(), err, want)
		}
	}
}

// One token, many machines at one time: one host.
func TestTokenIsSpentOnce(t *testing.T) {
	s := newSide(t)
	token := s.token("local")
	// Two servers on one store don't share a lock.
	other := NewStoreBackend(StoreBackendOptions{Store: s.store, NewID: newID})
	parsed, err := ParseEnrolmentToken(token)
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 16)
	for i := range 16 {
		go func() {
			backend := s.server.options.Backend
			if i%2 == 0 {
				backend = other
			}
			errs <- backend.Enrol(t.Context(), Enrolment{TokenHash: parsed.Hash(), Name: "local", Key: fmt.Sprint(i), Certificate: fmt.Sprint(i)})
		}()
	}
	succeeded := 0
	for range 16 {
		switch err := <-errs; delivery.ErrorCode(err) {
		case "":
			succeeded++
		case delivery.CodeDenied:
		default:
			t.Errorf("got %v, want denied", err)
		}
	}
	if succeeded != 1 {
		t.Errorf("%d machines enrolled with one token, want 1", succeeded)
	}
}

func TestCertificatesAreChecked(t *testing.T) {
	s := newSide(t)
	ask := func(c *Client) error {
		var reply effectsReply
		return c.post(t.Context(), pathEffects, effectsRequest{}, &reply)
	}
	good := s.enrolled("local")
	if err := ask(good); err != nil {
		t.Fatal(err)
	}
	// From an authority of somebody else.
	foreign := newSide(t).enrolled("local")
	foreign.base = good.base
	if err := ask(foreign); err == nil {
		t.Error("a server of another authority was trusted")
	}
	ca, err := readCertificate(filepath.Join(good.options.Dir, machineCAFile))
	if err != nil {
		t.Fatal(err)
	}
	foreign.use(mustKey(t, foreign), foreign.cert, ca) // now it trusts our server, and shows its own certificate
	if err := ask(foreign); err == nil {
		t.Error("a certificate of another authority was let in")
	}
	// Without a certificate.
	none := s.client("local", "")
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	none.http = newHTTP(&tls.Config{RootCAs: pool, ServerName: serverName})
	for _, path := range []string{pathEffects, pathDeliver, pathLogs, pathRenew} {
		if err := none.post(t.Context(), path, struct{}{}, nil); delivery.ErrorCode(err) != delivery.CodeDenied {
			t.Errorf("%s without a certificate: got %v, want denied", path, err)
		}
	}
	if _, err := none.Artifact(t.Context(), delivery.DigestBytes(nil), 0); delivery.ErrorCode(err) != delivery.CodeDenied {
		t.Errorf("an artifact without a certificate: got %v, want denied", err)
	}
	// A server's certificate is not a machine's.
	der, serverKey, _, err := s.server.authority.serverCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	none.http = newHTTP(&tls.Config{RootCAs: pool, ServerName: serverName, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: serverKey}}})
	if err := ask(none); err == nil {
		t.Error("a server's certificate was let in as a machine's")
	}
	// Enrolled anew, the former certificate is out.
	s.enrolled("local")
	if err := ask(good); delivery.ErrorCode(err) != delivery.CodeDenied {
		t.Errorf("a replaced certificate: got %v, want denied", err)
	}
	// Expired.
	late := s.enrolled("late")
	if err := ask(late); err != nil {
		t.Fatal(err)
	}
	s.clock.add(machineLife + time.Minute)
	if err := ask(late); err == nil {
		t.Error("an expired certificate was let in on a connection that was open")
	}
}

// mustKey reads a machine's key.
func mustKey(t *testing.T, c *Client) *ecdsa.PrivateKey {
	key, err := loadOrMakeKey(filepath.Join(c.options.Dir, machineKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestRenewal(t *testing.T) {
	s := newSide(t)
	c := s.enrolled("local")
	end := runs(t, c, newMachine())
	first := c.cert.SerialNumber
	s.clock.add(machineLife * 2 / 3)
	serial := func() string {
		cert, err := readCertificate(filepath.Join(c.options.Dir, machineCertFile))
		if err != nil {
			t.Fatal(err)
		}
		return cert.SerialNumber.String()
	}
	eventually(t, func() error {
		h, err := s.store.Host(t.Context(), "local")
		cert, e := readCertificate(filepath.Join(c.options.Dir, machineCertFile))
		if err != nil || e != nil || cert.SerialNumber.Cmp(first) == 0 || h.Certificate != hexSum(cert.Raw) {
			return fmt.Errorf("not renewed: %v", err)
		}
		return nil
	})
	_ = end()
	before := serial()
	// A renewal whose answer was lost: the certificate at hand stays good.
	s.clock.add(machineLife * 2 / 3)
	csr, err := makeCSR(mustKey(t, c), "local")
	if err != nil {
		t.Fatal(err)
	}
	var lost, reply certificateReply
	if err := c.post(t.Context(), pathRenew, renewRequest{CSR: csr}, &lost); err != nil {
		t.Fatal(err)
	}
	if err := c.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.post(t.Context(), pathEffects, effectsRequest{}, &reply); err != nil {
		t.Fatal(err)
	}
	if serial() == before {
		t.Error("the certificate is not renewed")
	}
	// The one that was lost is out by now.
	old, err := x509.ParseCertificate(lost.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := readCertificate(filepath.Join(c.options.Dir, machineCAFile))
	if err != nil {
		t.Fatal(err)
	}
	c.use(mustKey(t, c), old, ca)
	if err := c.post(t.Context(), pathEffects, effectsRequest{}, &reply); delivery.ErrorCode(err) != delivery.CodeDenied {
		t.Errorf("got %v, want denied", err)
	}
}

// A host gets the effects of its own targets, and answers for no others.
func TestOnlyOwnTargets(t *testing.T) {
	s := newSide(t)
	target := func(project, name, spec string) store.ObjectWrite {
		return store.ObjectWrite{Object: delivery.Object{Kind: delivery.KindTarget, Project: project, Name: name, Spec: json.RawMessage(spec)}}
	}
	_, err := s.store.Commit(t.Context(), store.Change{Objects: []store.ObjectWrite{
		target("default", "east", `{"kind":"host","host":"one"}`),
		target("default", "west", `{"kind":"host","host":"two"}`),
		target("default", "imagined", `{"kind":"fake","host":"one"}`),
		target("other", "east", `{"kind":"host","host":"two"}`),
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.intend("default", effectOf("east", 1), effectOf("west", 2), effectOf("one", 3), effectOf("two", 4), effectOf("imagined", 5))
	s.intend("other", effectOf("east", 6))
	b := s.server.options.Backend
	want := map[string][]int64{"one": {1, 3}, "two": {2, 4, 6}, "three": nil}
	for host, sequences := range want {
		effects, err := b.Effects(t.Context(), host)
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		for _, e := range effects {
			got = append(got, e.Key.Sequence)
		}
		slices.Sort(got)
		if diff := cmp.Diff(sequences, got); diff != "" {
			t.Errorf("effects of %s (-want +got):\n%s", host, diff)
		}
	}
	// The other host's effect can't be answered, nor its target reported on.
	s.enrolled("one")
	result := func(n int64) delivery.Result {
		return delivery.Result{Key: delivery.EffectKey{Deployment: "d", Sequence: n}, OK: true}
	}
	status := func(project string) delivery.ServiceStatus {
		return delivery.ServiceStatus{Placement: delivery.PlacementKey{Project: project, Application: "shop", Environment: "dev"}, Service: "web"}
	}
	err = b.Deliver(t.Context(), "one", []delivery.Result{result(1), result(2), result(99)}, []delivery.Report{
		{Target: "west"}, {Target: "east", Services: []delivery.ServiceStatus{status("default"), status("other")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if effects, err := b.Effects(t.Context(), "two"); err != nil || len(effects) != 3 {
		t.Errorf("got %d effects of the other host, %v, want 3", len(effects), err)
	}
	if _, err := s.store.Report(t.Context(), "west"); delivery.ErrorCode(err) != delivery.CodeNotFound {
		t.Errorf("a report on another host's target was taken: %v", err)
	}
	if r, err := s.store.Report(t.Context(), "east"); err != nil || len(r.Services) != 1 || r.Services[0].Placement.Project != "default" {
		t.Errorf("got %+v, %v, want the own project's service only", r, err)
	}
}

// Every effect is done once and answered, in the order of its placement,
// although answers are lost and the server is killed.
func TestRunThroughServerRestarts(t *testing.T) {
	s := newSide(t)
	c, m := s.enrolled("local"), newMachine()
	m.fail = 2
	runs(t, c, m)
	var want []int64
	for n := int64(1); n <= 20; n++ {
		s.intend("default", effectOf("local", n))
		want = append(want, n)
		if n%5 == 0 {
			s.socket.Close() // Close below misses a listener that Serve has not begun with
			s.http.Close()
			s.listen(s.address)
		}
	}
	eventually(t, func() error {
		if effects, err := s.store.Effects(t.Context(), "local"); err != nil || len(effects) > 0 {
			return fmt.Errorf("%d effects are pending, %v", len(effects), err)
		}
		return nil
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.Sort(m.did)
	if diff := cmp.Diff(want, m.did); diff != "" {
		t.Errorf("done (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"local"}, m.targets); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}

func TestReportsGoOutWhenTheyDiffer(t *testing.T) {
	s := newSide(t)
	c, m := s.enrolled("local"), newMachine()
	runs(t, c, m)
	report := func(ready int) (at time.Time) {
		eventually(t, func() error {
			r, err := s.store.Report(t.Context(), "local")
			if err != nil || r.Services[0].Workloads[0].Ready != ready {
				return fmt.Errorf("got %+v, %v, want %d ready", r, err, ready)
			}
			at = r.At
			return nil
		})
		return at
	}
	report(0)
	m.set(3)
	at := report(3)
	// A result brings a report that shows what came of it, though nothing changed.
	s.clock.add(time.Second) // the server's clock stamps both
	s.intend("default", effectOf("local", 1))
	eventually(t, func() error {
		if r, err := s.store.Report(t.Context(), "local"); err != nil || !r.At.After(at) {
			return fmt.Errorf("no new report, %v", err)
		}
		return nil
	})
	key := delivery.PlacementKey{Project: "default", Application: "shop", Environment: "dev"}
	record, err := s.store.Placement(t.Context(), key)
	if err != nil || len(record.Results) != 1 {
		t.Fatalf("got %+v, %v, want one result", record.Results, err)
	}
	if r, err := s.store.Report(t.Context(), "local"); err != nil || r.At.Before(record.Results[0].At) {
		t.Errorf("the report is of %v, %v, before the result of %v", r.At, err, record.Results[0].At)
	}
	// Without a change one comes all the same, after Repeat.
	at = report(3)
	s.clock.add(11 * time.Second)
	eventually(t, func() error {
		if r, err := s.store.Report(t.Context(), "local"); err != nil || !r.At.After(at) {
			return fmt.Errorf("no new report, %v", err)
		}
		return nil
	})
}

func TestLogs(t *testing.T) {
	s := newSide(t)
	runs(t, s.enrolled("local"), newMachine())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	got, err := s.server.Logs(ctx, "local", LogQuery{Service: "web", Lines: 7})
	if diff := cmp.Diff([]LogLine{{Target: "local", Text: "web 7"}}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := s.server.Logs(ctx, "local", LogQuery{Service: "broken"}); delivery.ErrorCode(err) != delivery.CodeUnavailable || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v, want the machine's reason", err)
	}
	short, cancel2 := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel2()
	if _, err := s.server.Logs(short, "away", LogQuery{}); delivery.ErrorCode(err) != delivery.CodeUnavailable {
		t.Errorf("got %v, want unavailable", err)
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if len(s.server.logs)+len(s.server.asked) != 0 {
		t.Errorf("left behind: %v %v", s.server.logs, s.server.asked)
	}
}

func TestArtifacts(t *testing.T) {
	s := newSide(t)
	content := []byte("0123456789")
	d := delivery.DigestBytes(content)
	s.shelf[d] = content
	c := s.enrolled("local")
	for offset, want := range map[int64]string{0: "0123456789", 4: "456789"} {
		body, err := c.Artifact(t.Context(), d, offset)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(body)
		body.Close()
		if err != nil || string(b) != want {
			t.Errorf("from %d: got %q, %v, want %q", offset, b, err, want)
		}
	}
	if _, err := c.Artifact(t.Context(), delivery.DigestBytes(nil), 0); delivery.ErrorCode(err) != delivery.CodeNotFound {
		t.Errorf("got %v, want not found", err)
	}
	if _, err := c.Artifact(t.Context(), "sha256:../../x", 0); delivery.ErrorCode(err) != delivery.CodeInvalid && delivery.ErrorCode(err) != delivery.CodeUnavailable {
		t.Errorf("got %v, want it refused", err)
	}
}

func TestBadRequests(t *testing.T) {
	s := newSide(t)
	c := s.enrolled("local")
	post := func(path, body string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.base.JoinPath(path).String(), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		return answer.StatusCode
	}
	for _, test := range []struct {
		path, body string
		want       int
	}{
		{pathEffects, "{", 400}, {pathDeliver, `{"results": 7}`, 400}, {pathLogs, "", 400}, {pathRenew, `{"csr":"AAAA"}`, 400},
		{pathEnrol, `{"name":"../x"}`, 400}, {pathEnrol, `{"name":"x","csr":"AAAA"}`, 400},
		{pathDeliver, `{"results":[` + strings.Repeat(" ", maxRequest) + `]}`, 400},
		{pathLogs, `{"id":"unknown"}`, 204}, {"/remote/v1/other", "{}", 404}, {"/", "{}", 404},
	} {
		if got := post(test.path, test.body); got != test.want {
			t.Errorf("%s %.40s: got %d, want %d", test.path, test.body, got, test.want)
		}
	}
}

// The authority survives a restart; what does not belong together is refused.
func TestAuthorityIsKept(t *testing.T) {
	dir := t.TempDir()
	open := func() (*Server, error) { return NewServer(ServerOptions{Dir: dir}) }
	one, err := open()
	if err != nil {
		t.Fatal(err)
	}
	two, err := open()
	if err != nil || one.Fingerprint() != two.Fingerprint() {
		t.Errorf("got another authority, %v", err)
	}
	if err := os.Remove(filepath.Join(dir, authorityKeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); err == nil {
		t.Error("a certificate without its key was taken")
	}
	if err := os.WriteFile(filepath.Join(dir, authorityKeyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); err == nil {
		t.Error("a broken key was taken")
	}
}
