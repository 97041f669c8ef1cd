package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/remote"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// supervisorOptions is what a supervisor process is told in its environment.
type supervisorOptions struct{ Dir, Server, Token string }

func supervisorProcess() {
	var o supervisorOptions
	if err := json.Unmarshal([]byte(os.Getenv("TEST_OPTIONS")), &o); err != nil {
		panic(err)
	}
	options := Options{
		Dir: o.Dir, Server: o.Server, Token: o.Token, Tick: 50 * time.Millisecond,
		BackOff: BackOff{First: 10 * time.Millisecond, Max: 50 * time.Millisecond, Reset: time.Second},
		Log:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	options.ProxyCommand, options.ProxyEnv = proxyCommand(o.Dir)
	if err := Run(context.Background(), options); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// site is a server in this process and a host in others.
type site struct {
	*world // its library, workloads and effects; its supervisor is not used
	store  store.Store
	http   *http.Server
	socket net.Listener
	remote *remote.Server
	token  string
	keys   string // where the server keeps its authority
	cmd    *exec.Cmd
	output bytes.Buffer
}

// Open gives the library's artifacts to hosts.
func (l *library) Open(d delivery.Digest) (io.ReadSeekCloser, int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.content[d]
	if !ok {
		return nil, 0, delivery.Errorf(delivery.CodeNotFound, "there is no artifact %s.", d)
	}
	return struct {
		*bytes.Reader
		io.Closer
	}{bytes.NewReader(b), io.NopCloser(nil)}, int64(len(b)), nil
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{world: &world{t: t, library: newLibrary()}, store: store.NewMemory(store.Options{}), keys: t.TempDir()}
	s.options.Dir = openDir(t)
	t.Cleanup(func() { killAll(t, s.options.Dir) })
	s.listen("127.0.0.1:0")
	t.Cleanup(func() { s.http.Close() })
	token := remote.NewEnrolmentToken(s.remote.Fingerprint())
	_, err := s.store.Commit(t.Context(), store.Change{Tokens: []store.Token{{ID: "t", Hash: token.Hash(), Name: "local", Kind: remote.TokenKindEnrol}}})
	if err != nil {
		t.Fatal(err)
	}
	s.token = token.String()
	s.startHost()
	t.Cleanup(func() {
		s.killHost()
		if t.Failed() {
			t.Log(s.output.String())
		}
	})
	return s
}

func (s *site) listen(address string) {
	s.t.Helper()
	server, err := remote.NewServer(remote.ServerOptions{
		Backend: remote.NewStoreBackend(remote.StoreBackendOptions{Store: s.store, Artifacts: s.library, NewID: func() delivery.ID { return delivery.ID(uuid.NewString()) }}),
		Dir:     s.keys,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if s.socket, err = net.Listen("tcp", address); err != nil {
		s.t.Fatal(err)
	}
	s.remote = server
	s.http = &http.Server{Handler: server, TLSConfig: server.TLSConfig(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func(h *http.Server, l net.Listener) { _ = h.ServeTLS(l, "", "") }(s.http, s.socket)
}

// startHost starts a supervisor process.
func (s *site) startHost() {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	o, err := json.Marshal(supervisorOptions{Dir: s.options.Dir, Server: "https://" + s.socket.Addr().String(), Token: s.token})
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd = exec.Command(self)
	s.cmd.Env = append(os.Environ(), roleVariable+"=supervisor", "TEST_OPTIONS="+string(o))
	s.cmd.Stderr = &s.output
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// killHost ends the supervisor as a power cut would.
func (s *site) killHost() {
	_ = s.cmd.Process.Kill() // SIGKILL; it may be dead already
	_ = s.cmd.Wait()
}

// intend commits an effect, as the runner does.
func (s *site) intend(e delivery.Effect) delivery.Effect {
	s.t.Helper()
	e = s.effect(e)
	ctx := s.t.Context()
	if _, err := s.store.Commit(ctx, store.Change{Commands: []delivery.Command{{ID: delivery.ID(uuid.NewString()), Key: testKey, Kind: delivery.CommandPause}}}); err != nil {
		s.t.Fatal(err)
	}
	leases, err := s.store.Claim(ctx, "test", time.Minute, 1)
	if err != nil || len(leases) != 1 {
		s.t.Fatalf("no lease: %v, %v", leases, err)
	}
	r, err := s.store.Placement(ctx, testKey)
	if err != nil {
		s.t.Fatal(err)
	}
	change := store.Change{Lease: &leases[0], Placement: &delivery.Placement{Format: delivery.PlacementFormat, Key: testKey}, Version: r.Version, Effects: []delivery.Effect{e}}
	for _, c := range r.Commands {
		change.ConsumedCommands = append(change.ConsumedCommands, c.ID)
	}
	for _, x := range r.Results {
		change.ConsumedResults = append(change.ConsumedResults, x.Key)
	}
	if _, err := s.store.Commit(ctx, change); err != nil {
		s.t.Fatal(err)
	}
	if err := s.store.Yield(ctx, leases[0]); err != nil {
		s.t.Fatal(err)
	}
	return e
}

// reported waits until the host's report says what check wants.
func (s *site) reported(check func(svc *delivery.ServiceStatus) bool) *delivery.ServiceStatus {
	s.t.Helper()
	var svc *delivery.ServiceStatus
	eventually(s.t, func() error {
		r, err := s.store.Report(s.t.Context(), "local")
		if svc = r.Service(testKey, "web"); err != nil || svc == nil || !check(svc) {
			return fmt.Errorf("the report is %+v, %v", svc, err)
		}
		effects, err := s.store.Effects(s.t.Context(), "local")
		if err != nil || len(effects) > 0 {
			return fmt.Errorf("%d effects have no result, %v", len(effects), err)
		}
		return nil
	})
	return svc
}

// The whole way: enrolment, effects by long poll, a canary under load, with
// supervisor and server killed on the way. No request fails.
func TestHostThroughKills(t *testing.T) {
	s := newSite(t)
	one, two := s.workload("one"), s.workload("two")
	ready := func(wl delivery.Workload, n int) func(*delivery.ServiceStatus) bool {
		return func(svc *delivery.ServiceStatus) bool {
			w := svc.Workload(wl.ComputeDigest())
			return w != nil && w.Ready == n
		}
	}
	weight := func(wl delivery.Workload, percent int) func(*delivery.ServiceStatus) bool {
		return func(svc *delivery.ServiceStatus) bool {
			got, ok := svc.Percent(wl.ComputeDigest())
			return ok && got == percent
		}
	}
	shift := func(percent int) {
		s.intend(shiftEffect(delivery.Weight{Workload: two.ComputeDigest(), Percent: percent}, delivery.Weight{Workload: one.ComputeDigest(), Percent: 100 - percent}))
	}
	s.intend(startEffect(one, 1))
	s.reported(ready(one, 1))
	s.intend(shiftEffect(delivery.Weight{Workload: one.ComputeDigest(), Percent: 100}))
	listen := s.reported(weight(one, 100)).Listen

	var asked, failed atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				asked.Add(1)
				if _, err := get("http://" + listen + "/"); err != nil {
					failed.Add(1)
					t.Errorf("a request failed: %v", err)
				}
			}
		}
	}()
	first, err := get("http://" + listen + "/")
	if err != nil {
		t.Fatal(err)
	}

	s.killHost()
	s.intend(startEffect(two, 1)) // while no supervisor runs
	s.startHost()
	s.reported(ready(two, 1))

	s.socket.Close()
	s.http.Close() // the server dies
	shift(10)      // committed by another
	s.listen(s.socket.Addr().String())
	s.reported(weight(two, 10))

	shift(100)
	s.killHost() // with the shift on its way or done
	s.startHost()
	s.reported(weight(two, 100))
	s.intend(stopEffect(one, 0))
	s.reported(func(svc *delivery.ServiceStatus) bool { return svc.Workload(one.ComputeDigest()) == nil })
	last, err := get("http://" + listen + "/")
	if err != nil || !strings.HasPrefix(first, "one ") || !strings.HasPrefix(last, "two ") {
		t.Errorf("answers were %q, then %q, %v", first, last, err)
	}
	close(stop)
	<-stopped
	if failed.Load() > 0 || asked.Load() == 0 {
		t.Errorf("%d of %d requests failed, want none", failed.Load(), asked.Load())
	}
	lines, err := s.remote.Logs(t.Context(), "local", remote.LogQuery{Placement: testKey, Service: "web", Lines: 1})
	if err != nil || len(lines) == 0 {
		t.Errorf("got %v, %v, want log lines", lines, err)
	}
}

// Wherever the supervisor is killed, it ends with exactly the processes that
// are wanted, and every effect has one result.
func TestKillSweep(t *testing.T) {
	s := newSite(t)
	wl := s.script("while :; do sleep 1; done", func(wl *delivery.Workload) {
		wl.Stop = delivery.Stop{Drain: delivery.Duration(time.Millisecond), Grace: delivery.Duration(100 * time.Millisecond)}
	})
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 3, 2, 4, 1, 2} {
		s.intend(startEffect(wl, n))
		select { // a moment somewhere in what follows
		case <-time.After(time.Duration(random.IntN(60)) * time.Millisecond):
		case <-t.Context().Done():
		}
		s.killHost()
		s.startHost()
	}
	s.reported(func(svc *delivery.ServiceStatus) bool {
		w := svc.Workload(wl.ComputeDigest())
		return w != nil && w.Wanted == 2
	})
	eventually(t, func() error {
		records, err := states{s.options.Dir + "/state"}.load()
		if err != nil {
			return err
		}
		r := records[testKey]
		if len(r.Instances) != 2 {
			return fmt.Errorf("%d instances, want 2", len(r.Instances))
		}
		var want []int
		for _, i := range r.Instances {
			if i.Process == nil || !i.Process.alive() {
				return fmt.Errorf("%s does not run", i.ID)
			}
			want = append(want, i.Process.PID)
		}
		got := leaders(t, s.options.Dir)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			return fmt.Errorf("processes %v run, %v are recorded", got, want)
		}
		return nil
	})
}

// leaders returns the group leaders that run from below dir.
func leaders(t *testing.T, dir string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscanf(e.Name(), "%d", &pid); err != nil {
			continue
		}
		isOurs := slices.ContainsFunc(environment(pid), func(v []byte) bool { return strings.HasPrefix(string(v), "HOME="+dir+"/") })
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && isOurs {
			if _, rest, ok := cutLast(string(stat), ")"); ok {
				var state string
				var parent, group int
				if _, err := fmt.Sscan(rest, &state, &parent, &group); err == nil && group == pid {
					found = append(found, pid)
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

// A host that can't enrol says why and ends; it does not wait for ever.
func TestRunRefused(t *testing.T) {
	s := newSite(t)
	eventually(t, func() error { // its own host enrols and spends the token
		_, err := s.store.Host(t.Context(), "local")
		return err
	})
	for name, token := range map[string]string{
		"a spent token":             s.token,
		"a token of another server": remote.NewEnrolmentToken(strings.Repeat("0", 64)).String(),
		"no token":                  "",
	} {
		err := Run(t.Context(), Options{Dir: openDir(t), Server: "https://" + s.socket.Addr().String(), Token: token})
		if err == nil || delivery.ErrorCode(err) != delivery.CodeDenied && delivery.ErrorCode(err) != delivery.CodeInvalid {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
	}
}
