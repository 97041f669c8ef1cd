package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/host/proxy"
)

// The test binary is also the programs that the tests run: a small web
// application, a proxy process and a supervisor process.
const roleVariable = "TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "application":
		application()
	case "proxy":
		proxyProcess()
	case "supervisor":
		supervisorProcess()
	default:
		os.Exit(m.Run())
	}
}

// application is what releases run: GET / answers who it is.
func application() {
	fmt.Println("hello from", os.Getenv("NAME"), "secret", os.Getenv("PASSWORD"))
	if os.Getenv("STUBBORN") != "" {
		signal.Ignore(syscall.SIGTERM)
	}
	if n := os.Getenv("CHATTER"); n != "" {
		go func() {
			for {
				fmt.Println(strings.Repeat("x", 100))
			}
		}()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s %d %s", os.Getenv("NAME"), os.Getpid(), os.Getenv("ARGUMENT"))
	})
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, _ *http.Request) {
		<-time.After(300 * time.Millisecond)
		fmt.Fprint(w, "slow")
	})
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, _ *http.Request) {
		wd, _ := os.Getwd()
		_ = json.NewEncoder(w).Encode(map[string]any{"env": os.Environ(), "uid": os.Getuid(), "groups": groups(), "dir": wd, "args": os.Args[1:], "home": os.WriteFile(filepath.Join(os.Getenv("HOME"), "x"), nil, 0o600) == nil})
	})
	mux.HandleFunc("GET /exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	fmt.Println(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), mux))
	os.Exit(1)
}

func groups() []int {
	g, _ := os.Getgroups()
	return g
}

func proxyProcess() {
	err := proxy.Run(context.Background(), proxy.Options{
		Dir: ProxyDir(os.Getenv("TEST_DIR")), Socket: ProxySocket(os.Getenv("TEST_DIR")), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func proxyCommand(dir string) (command, env []string) {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return []string{self}, []string{roleVariable + "=proxy", "TEST_DIR=" + dir}
}

// library gives artifacts from memory, and counts.
type library struct {
	mu       sync.Mutex
	content  map[delivery.Digest][]byte
	fetched  int
	offsets  []int64
	failures int // so many fetches break off half way
}

func newLibrary() *library { return &library{content: map[delivery.Digest][]byte{}} }

// add returns the artifact of an executable.
func (l *library) add(content []byte) delivery.Artifact {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := delivery.DigestBytes(content)
	l.content[d] = content
	return delivery.Artifact{Digest: d, Size: int64(len(content)), Kind: delivery.ArtifactExecutable}
}

func (l *library) Artifact(_ context.Context, d delivery.Digest, offset int64) (io.ReadCloser, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.content[d]
	if !ok {
		return nil, delivery.Errorf(delivery.CodeNotFound, "there is no artifact %s.", d)
	}
	l.fetched++
	l.offsets = append(l.offsets, offset)
	if l.failures > 0 {
		l.failures--
		half := (int64(len(b)) + offset) / 2
		return io.NopCloser(io.MultiReader(strings.NewReader(string(b[offset:half])), brokenReader{})), nil
	}
	return io.NopCloser(strings.NewReader(string(b[offset:]))), nil
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("the line broke") }

var applicationArtifact = sync.OnceValue(func() []byte {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		panic(err)
	}
	return b
})

var testKey = delivery.PlacementKey{Project: "default", Application: "shop", Environment: "dev"}

// world is a supervisor with what the tests need around it.
type world struct {
	t       *testing.T
	options Options
	library *library
	s       *Supervisor
	cancel  context.CancelFunc
	done    chan struct{}
	seq     int64
}

// newWorld starts a supervisor with a proxy process of its own.
func newWorld(t *testing.T, change ...func(*Options)) *world {
	t.Helper()
	dir := openDir(t)
	w := &world{t: t, library: newLibrary()}
	w.options = Options{
		Dir: dir, Tick: 50 * time.Millisecond, Artifacts: w.library,
		BackOff: BackOff{First: 10 * time.Millisecond, Max: 50 * time.Millisecond, Reset: time.Second},
		Log:     slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	w.options.ProxyCommand, w.options.ProxyEnv = proxyCommand(dir)
	for _, c := range change {
		c(&w.options)
	}
	t.Cleanup(func() { killAll(t, w.options.Dir) })
	w.start()
	t.Cleanup(w.stop)
	return w
}

// openDir returns a directory that the user of releases can come through to.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// start runs a supervisor in this process.
func (w *world) start() {
	w.t.Helper()
	s, err := New(w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.s, w.cancel, w.done = s, cancel, make(chan struct{})
	go func() {
		defer close(w.done)
		_ = s.Run(ctx)
		_ = s.Close()
	}()
}

// stop ends the supervisor; programs and proxy go on.
func (w *world) stop() {
	w.cancel()
	<-w.done
}

// killAll ends what a host's directory says that it started.
func killAll(t *testing.T, dir string) {
	records, err := states{filepath.Join(dir, "state")}.load()
	if err != nil {
		t.Error(err)
		return
	}
	for _, r := range records {
		for _, i := range r.Instances {
			sweepMarked(i.ID)
		}
		for _, task := range r.Tasks {
			sweepMarked(task.Instance)
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries { // proxies, also one that does not answer yet
		pid, err := strconv.Atoi(e.Name())
		if err == nil && slices.ContainsFunc(environment(pid), func(v []byte) bool { return string(v) == "TEST_DIR="+dir }) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// workload is a service that runs the test application.
func (w *world) workload(name string, change ...func(*delivery.Workload)) delivery.Workload {
	wl := delivery.Workload{
		Service: "web", Artifact: w.library.add(applicationArtifact()),
		Env:       map[string]string{roleVariable: "application", "NAME": name},
		Readiness: delivery.Probe{HTTP: "/", Interval: delivery.Duration(20 * time.Millisecond), Timeout: delivery.Duration(10 * time.Second)},
		Stop:      delivery.Stop{Drain: delivery.Duration(2 * time.Second), Grace: delivery.Duration(time.Second)},
	}
	for _, c := range change {
		c(&wl)
	}
	return wl
}

// script is a service that runs a shell script.
func (w *world) script(text string, change ...func(*delivery.Workload)) delivery.Workload {
	return w.workload("script", append([]func(*delivery.Workload){func(wl *delivery.Workload) {
		wl.Artifact = w.library.add([]byte("#!/bin/sh\n" + text + "\n"))
		wl.Env = nil
	}}, change...)...)
}

// effect fills in what all effects have.
func (w *world) effect(e delivery.Effect) delivery.Effect {
	w.seq++
	e.Key = delivery.EffectKey{Deployment: "d1", Sequence: w.seq}
	e.Placement, e.Target = testKey, "local"
	if e.Token == 0 {
		e.Token = 1
	}
	return e
}

// do performs an effect that must succeed.
func (w *world) do(e delivery.Effect) delivery.Effect {
	w.t.Helper()
	e = w.effect(e)
	r, err := w.s.Do(w.t.Context(), e)
	if err != nil || !r.OK {
		w.t.Fatalf("%s: got %+v, %v, want OK", e.Kind(), r, err)
	}
	return e
}

func startEffect(wl delivery.Workload, n int) delivery.Effect {
	return delivery.Effect{Start: &delivery.StartEffect{Service: wl.Service, Release: wl.Artifact.Digest, Version: "1", Digest: wl.ComputeDigest(), Workload: wl, Instances: n}}
}

func shiftEffect(weights ...delivery.Weight) delivery.Effect {
	return delivery.Effect{Shift: &delivery.ShiftEffect{Service: "web", Weights: weights}}
}

func stopEffect(wl delivery.Workload, keep int) delivery.Effect {
	return delivery.Effect{Stop: &delivery.StopEffect{Service: wl.Service, Workload: wl.ComputeDigest(), Keep: keep}}
}

// status returns the report's entry of the test service.
func (w *world) status() *delivery.ServiceStatus {
	w.t.Helper()
	r, err := w.s.Report(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Service(testKey, "web")
}

// run starts a workload, waits until it is ready and gives it all traffic.
func (w *world) run(wl delivery.Workload, n int) {
	w.t.Helper()
	w.do(startEffect(wl, n))
	w.ready(wl, n)
	w.do(shiftEffect(delivery.Weight{Workload: wl.ComputeDigest(), Percent: 100}))
	w.weight(wl, 100)
}

func (w *world) ready(wl delivery.Workload, n int) {
	w.t.Helper()
	eventually(w.t, func() error {
		if s := w.status().Workload(wl.ComputeDigest()); s == nil || s.Ready != n {
			return fmt.Errorf("got %+v, want %d ready", s, n)
		}
		return nil
	})
}

func (w *world) weight(wl delivery.Workload, percent int) {
	w.t.Helper()
	eventually(w.t, func() error {
		if got, ok := w.status().Percent(wl.ComputeDigest()); !ok || got != percent {
			return fmt.Errorf("got %d %% (%v), want %d %%", got, ok, percent)
		}
		return nil
	})
}

// get asks the service through the proxy.
func (w *world) get(path string) (string, error) {
	return get("http://" + w.status().Listen + path)
}

func get(url string) (string, error) {
	answer, err := (&http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}}).Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, b)
	}
	return string(b), err
}

// record returns what the host's file says.
func (w *world) record() *record {
	w.t.Helper()
	records, err := states{filepath.Join(w.options.Dir, "state")}.load()
	if err != nil {
		w.t.Fatal(err)
	}
	return records[testKey]
}

// eventually waits until check returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(20 * time.Second)
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
