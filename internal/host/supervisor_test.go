package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/remote"
)

func TestServeShiftAndStop(t *testing.T) {
	w := newWorld(t)
	one, two := w.workload("one"), w.workload("two")
	w.run(one, 2)
	if got, err := w.get("/"); err != nil || !strings.HasPrefix(got, "one ") {
		t.Fatalf("got %q, %v, want an answer of one", got, err)
	}
	w.do(startEffect(two, 1))
	w.ready(two, 1)
	w.do(shiftEffect(delivery.Weight{Workload: two.ComputeDigest(), Percent: 30}, delivery.Weight{Workload: one.ComputeDigest(), Percent: 70}))
	w.weight(two, 30)
	count := 0
	for range 100 {
		got, err := w.get("/")
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(got, "two ") {
			count++
		}
	}
	if count != 30 {
		t.Errorf("two answered %d of 100 requests, want 30", count)
	}
	eventually(t, func() error {
		if c := w.status().Workload(two.ComputeDigest()).Counts; c.Requests != 30 || c.Epoch == "" {
			return fmt.Errorf("got %+v, want 30 requests", c)
		}
		return nil
	})
	w.do(shiftEffect(delivery.Weight{Workload: two.ComputeDigest(), Percent: 100}, delivery.Weight{Workload: one.ComputeDigest(), Percent: 0}))
	w.weight(two, 100)
	w.do(stopEffect(one, 0))
	eventually(t, func() error {
		if s := w.status().Workload(one.ComputeDigest()); s != nil {
			return fmt.Errorf("still there: %+v", s)
		}
		if _, err := os.Stat(w.s.layout.workloadDir(testKey, "web", one.ComputeDigest())); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("its directory is still there: %v", err)
		}
		return nil
	})
	if n := len(w.record().Instances); n != 1 {
		t.Errorf("%d instances are recorded, want 1", n)
	}
}

// A request under way when its instance shall stop gets its answer.
func TestStopDrains(t *testing.T) {
	w := newWorld(t)
	wl := w.workload("one")
	w.run(wl, 1)
	answer := make(chan error, 1)
	go func() {
		got, err := w.get("/slow")
		if err == nil && got != "slow" {
			err = fmt.Errorf("got %q", got)
		}
		answer <- err
	}()
	eventually(t, func() error {
		s, err := w.s.router.client.Status(t.Context())
		if err != nil || s.Routes[0].Groups[0].Backends[0].InFlight == 0 {
			return fmt.Errorf("not under way: %v", err)
		}
		return nil
	})
	w.do(stopEffect(wl, 0))
	if err := <-answer; err != nil {
		t.Errorf("the request under way failed: %v", err)
	}
}

func TestEffectsAreIdempotentAndFenced(t *testing.T) {
	w := newWorld(t)
	wl := w.script("sleep 100", func(wl *delivery.Workload) { wl.Readiness = delivery.Probe{TCP: true} })
	first := w.effect(startEffect(wl, 2))
	first.Token = 5
	want, err := w.s.Do(t.Context(), first)
	if err != nil || !want.OK {
		t.Fatalf("got %+v, %v", want, err)
	}
	lower := w.effect(startEffect(wl, 7))
	lower.Token = 4
	tests := []struct {
		name   string
		effect delivery.Effect
		want   delivery.Result
	}{
		{"the same key again", first, delivery.Result{Key: first.Key, OK: true, Already: true, At: want.At}},
		{"the same key with another content", func() delivery.Effect {
			e := startEffect(wl, 9)
			e.Key, e.Placement, e.Target, e.Token = first.Key, testKey, "local", 9
			return e
		}(),
			delivery.Result{Key: first.Key, OK: true, Already: true, At: want.At}},
		{"a lower token", lower, delivery.Result{Key: lower.Key}},
	}
	before := w.record()
	for _, restarted := range []bool{false, true} {
		if restarted {
			w.stop()
			w.start()
		}
		for _, test := range tests {
			got, err := w.s.Do(t.Context(), test.effect)
			if err != nil {
				t.Fatalf("%s: %v", test.name, err)
			}
			if !test.want.OK {
				if got.OK || got.Retry || !strings.Contains(got.Message, "fencing token") {
					t.Errorf("%s: got %+v, want a terminal failure", test.name, got)
				}
				continue
			}
			if !got.At.Equal(test.want.At) {
				t.Errorf("%s: got time %v, want the first one %v", test.name, got.At, test.want.At)
			}
			got.At = test.want.At
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.name, diff)
			}
		}
		after := w.record()
		if diff := cmp.Diff(before.Services, after.Services, cmp.AllowUnexported(serviceRecord{}, workloadRecord{})); diff != "" || after.Token != 5 {
			t.Errorf("the wanted state changed (token %d) (-before +after):\n%s", after.Token, diff)
		}
	}
}

func TestRefusedEffects(t *testing.T) {
	w := newWorld(t)
	wl := w.script("sleep 100")
	w.do(startEffect(wl, 1))
	other := wl
	other.Env = map[string]string{"A": "b"}
	tests := []struct {
		name   string
		effect delivery.Effect
		want   string
	}{
		{"no kind", delivery.Effect{}, "can't do an effect"},
		{"a call", delivery.Effect{Call: &delivery.CallEffect{}}, `kind "call"`},
		{"a digest of something else", delivery.Effect{Start: &delivery.StartEffect{Service: "web", Digest: wl.ComputeDigest(), Workload: other, Instances: 1}}, "not the one that its digest names"},
		{"too many", startEffect(wl, 100000), "can't be started"},
		{"a negative number", stopEffect(wl, -1), "can't be kept"},
		{"weights of 90", shiftEffect(delivery.Weight{Workload: wl.ComputeDigest(), Percent: 90}), "add up to 90"},
		{"a weight twice", shiftEffect(delivery.Weight{Workload: wl.ComputeDigest(), Percent: 50}, delivery.Weight{Workload: wl.ComputeDigest(), Percent: 50}), "distinct"},
		{"a weight for nothing", shiftEffect(delivery.Weight{Workload: other.ComputeDigest(), Percent: 100}), "does not run on this host"},
		{"a mark in the environment", startEffect(w.script("true", func(x *delivery.Workload) { x.Env = map[string]string{"TIDEGATE_INSTANCE": "x"} }), 1), "can't be the name"},
		{"a probe of another address", startEffect(w.script("true", func(x *delivery.Workload) { x.Readiness = delivery.Probe{HTTP: "@169.254.169.254/"} }), 1), "begin it with a slash"},
		{"a name with a path", func() delivery.Effect { x := wl; x.Service = "../web"; return startEffect(x, 1) }(), "not valid"},
	}
	for _, test := range tests {
		before := w.record().Services
		got, err := w.s.Do(t.Context(), w.effect(test.effect))
		if err != nil || got.OK || got.Retry || !strings.Contains(got.Message, test.want) {
			t.Errorf("%s: got %+v, %v, want a terminal failure with %q", test.name, got, err, test.want)
		}
		if diff := cmp.Diff(before, w.record().Services); diff != "" {
			t.Errorf("%s changed the wanted state:\n%s", test.name, diff)
		}
	}
}

func TestEnvironmentUserAndArguments(t *testing.T) {
	t.Setenv("HOST_PRIVATE", "must not be seen")
	t.Setenv("HOST_SECRET", "from-the-environment")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("from-the-file\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	wl := w.workload("one", func(wl *delivery.Workload) {
		wl.Args = []string{"--port=${PORT}", "plain"}
		wl.Env["ADDRESS"] = "127.0.0.1:${PORT}"
		wl.Secrets = map[string]delivery.Secret{"A": {File: secret}, "B": {Env: "HOST_SECRET"}}
	})
	w.run(wl, 1)
	body, err := w.get("/env")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Env    []string
		UID    int
		Groups []int
		Dir    string
		Args   []string
		Home   bool
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	i := w.record().Instances[0]
	port := strconv.Itoa(i.Port)
	dir := w.s.layout.workloadDir(testKey, "web", wl.ComputeDigest())
	want := []string{
		"A=from-the-file\n", "ADDRESS=127.0.0.1:" + port, "B=from-the-environment", "HOME=" + filepath.Join(dir, i.ID), "NAME=one",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PORT=" + port, "TEST_ROLE=application", "TIDEGATE_INSTANCE=" + i.ID, "TMPDIR=" + filepath.Join(dir, i.ID, "tmp"),
	}
	slices.Sort(got.Env)
	if diff := cmp.Diff(want, got.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"--port=" + port, "plain"}, got.Args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	if got.Dir != filepath.Join(dir, "root") || !got.Home {
		t.Errorf("got directory %s, home writable %v", got.Dir, got.Home)
	}
	if os.Getuid() == 0 && (got.UID == 0 || len(got.Groups) != 0) {
		t.Errorf("the release runs as user %d with groups %v although the supervisor is root", got.UID, got.Groups)
	}
}

// A release that does not get ready is reported as failed with its reason.
func TestFailures(t *testing.T) {
	short := func(wl *delivery.Workload) { wl.Readiness.Timeout = delivery.Duration(200 * time.Millisecond) }
	tests := []struct {
		name string
		make func(w *world) delivery.Workload
		want string
	}{
		{"it ends", func(w *world) delivery.Workload { return w.script("echo the port is taken; exit 3") }, "It ended before it was ready: exit status 3. Its last line: the port is taken"},
		{"it never listens", func(w *world) delivery.Workload { return w.script("echo waiting; sleep 100", short) }, "It was not ready within 200ms: port"},
		{"it answers wrongly", func(w *world) delivery.Workload {
			return w.workload("one", short, func(wl *delivery.Workload) { wl.Readiness.HTTP = "/nothing" })
		}, "/nothing answers 404 Not Found"},
		{"no artifact", func(w *world) delivery.Workload {
			return w.workload("one", func(wl *delivery.Workload) { wl.Artifact.Digest = delivery.DigestBytes([]byte("x")) })
		}, "there is no artifact"},
		{"no program", func(w *world) delivery.Workload {
			return w.workload("one", func(wl *delivery.Workload) { wl.Artifact = w.library.add([]byte("not a program")) })
		}, "can't be started"},
		{"no secret", func(w *world) delivery.Workload {
			return w.script("sleep 100", func(wl *delivery.Workload) { wl.Secrets = map[string]delivery.Secret{"A": {File: "/no/such/file"}} })
		}, "secret A: the host can't read /no/such/file"},
		{"no secret variable", func(w *world) delivery.Workload {
			return w.script("sleep 100", func(wl *delivery.Workload) { wl.Secrets = map[string]delivery.Secret{"A": {Env: "NO_SUCH_VARIABLE"}} })
		}, "no variable NO_SUCH_VARIABLE"},
	}
	w := newWorld(t)
	for _, test := range tests {
		wl := test.make(w)
		w.do(startEffect(wl, 1))
		eventually(t, func() error {
			s := w.status().Workload(wl.ComputeDigest())
			if s == nil || !s.Failed || s.Ready != 0 || !strings.Contains(s.Message, test.want) {
				return fmt.Errorf("%s: got %+v, want failed with %q", test.name, s, test.want)
			}
			return nil
		})
		w.do(stopEffect(wl, 0))
	}
}

// What is mended outside, or asked for again, is tried again.
func TestFailedStartIsMended(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	w := newWorld(t, func(o *Options) { o.BackOff = BackOff{First: time.Hour, Max: time.Hour, Reset: time.Second} })
	wl := w.workload("one", func(wl *delivery.Workload) { wl.Secrets = map[string]delivery.Secret{"A": {File: secret}} })
	w.do(startEffect(wl, 1))
	eventually(t, func() error {
		if s := w.status().Workload(wl.ComputeDigest()); s == nil || !s.Failed {
			return fmt.Errorf("got %+v, want failed", s)
		}
		return nil
	})
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.do(startEffect(wl, 1))
	if s := w.status().Workload(wl.ComputeDigest()); s.Failed {
		t.Errorf("it is still failed after it was asked for anew: %+v", s)
	}
	w.ready(wl, 1)
}

func TestCrashIsRestarted(t *testing.T) {
	w := newWorld(t)
	wl := w.workload("one")
	w.run(wl, 2)
	victim := w.record().Instances[0].Process.PID
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		s := w.status().Workload(wl.ComputeDigest())
		if s.Restarts != 1 || s.Ready != 2 || s.Failed {
			return fmt.Errorf("got %+v, want 2 ready after 1 restart", s)
		}
		return nil
	})
	if p := w.record().Instances[0].Process; p == nil || p.PID == victim {
		t.Errorf("the record names the process that was killed: %+v", p)
	}
}

// A program that ignores SIGTERM is killed after its grace, with its children,
// also one that left its process group.
func TestStopKills(t *testing.T) {
	w := newWorld(t)
	wl := w.script(`trap "" TERM; setsid sleep 1000 & while :; do sleep 0.05; done`, func(wl *delivery.Workload) {
		wl.Stop = delivery.Stop{Drain: delivery.Duration(time.Millisecond), Grace: delivery.Duration(50 * time.Millisecond)}
	})
	w.do(startEffect(wl, 1))
	var group []int
	eventually(t, func() error {
		i := w.record().Instances
		if len(i) == 0 {
			return errors.New("no instance yet")
		}
		if group = marked(i[0].ID); len(group) < 2 {
			return fmt.Errorf("processes %v, want at least 2", group)
		}
		return nil
	})
	w.do(stopEffect(wl, 0))
	eventually(t, func() error {
		for _, pid := range group {
			if _, ok := identify(pid, time.Now()); ok {
				return fmt.Errorf("process %d still runs", pid)
			}
		}
		return nil
	})
}

func TestRestartAdopts(t *testing.T) {
	w := newWorld(t)
	wl := w.workload("one")
	w.run(wl, 2)
	listen := w.status().Listen
	pids := func() (all []int) {
		for _, i := range w.record().Instances {
			all = append(all, i.Process.PID)
		}
		return all
	}
	before := pids()
	w.stop()
	for range 20 { // traffic goes on without a supervisor
		if _, err := get("http://" + listen + "/"); err != nil {
			t.Fatalf("without a supervisor: %v", err)
		}
	}
	if err := syscall.Kill(before[1], syscall.SIGKILL); err != nil { // one ends meanwhile
		t.Fatal(err)
	}
	eventually(t, func() error {
		if _, ok := identify(before[1], time.Now()); ok {
			return errors.New("still there")
		}
		return nil
	})
	s, err := New(w.options)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Report(t.Context()) // before anything could be looked at
	if got := r.Service(testKey, "web").Workload(wl.ComputeDigest()); err != nil || got.Ready != 1 {
		t.Errorf("got %+v, %v, want only the one that runs to be ready", got, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	w.start()
	eventually(t, func() error {
		if s := w.status().Workload(wl.ComputeDigest()); s.Restarts != 1 || s.Ready != 2 {
			return fmt.Errorf("got %+v, want 2 ready after 1 restart", s)
		}
		return nil
	})
	eventually(t, func() error {
		if w.status().Listen != listen {
			return fmt.Errorf("got address %q, want %q as before", w.status().Listen, listen)
		}
		return nil
	})
	after := pids()
	if after[0] != before[0] || after[1] == before[1] {
		t.Errorf("processes were %v, are %v: the first should be adopted, the second replaced", before, after)
	}
	// An adopted process is watched: its end is seen.
	if err := syscall.Kill(after[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if s := w.status().Workload(wl.ComputeDigest()); s.Restarts != 2 || s.Ready != 2 {
			return fmt.Errorf("got %+v, want 2 restarts", s)
		}
		return nil
	})
}

// A process that was started but never written down is found by its mark; one
// that only has the process id of a former instance is left alone.
func TestAdoptionByMarkAndNotByPID(t *testing.T) {
	w := newWorld(t)
	wl := w.workload("one")
	w.run(wl, 1)
	w.stop()
	r := w.record()
	pid := r.Instances[0].Process.PID
	r.Instances[0].Process = nil
	if err := w.s.states.save(r); err != nil {
		t.Fatal(err)
	}
	w.start()
	eventually(t, func() error {
		if p := w.record().Instances[0].Process; p == nil || p.PID != pid {
			return fmt.Errorf("got %+v, want process %d", p, pid)
		}
		return nil
	})
	w.stop()
	r = w.record()
	r.Instances[0].Process.PID, r.Instances[0].Process.Start = os.Getpid(), 1 // somebody else has the id by now: this test
	if err := w.s.states.save(r); err != nil {
		t.Fatal(err)
	}
	sweepMarked(r.Instances[0].ID)
	w.start()
	eventually(t, func() error {
		if p := w.record().Instances[0].Process; p == nil || p.PID == os.Getpid() || p.PID == pid {
			return fmt.Errorf("got %+v, want a new process", p)
		}
		return nil
	})
}

func TestOneSupervisorPerDirectory(t *testing.T) {
	w := newWorld(t)
	if _, err := New(w.options); delivery.ErrorCode(err) != delivery.CodeConflict {
		t.Errorf("got %v, want a conflict", err)
	}
}

func TestProxyIsRestarted(t *testing.T) {
	w := newWorld(t)
	wl := w.workload("one")
	w.run(wl, 1)
	listen := w.status().Listen
	status, err := w.s.router.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(status.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		now, err := w.s.router.client.Status(t.Context())
		if err != nil || now.PID == status.PID {
			return fmt.Errorf("no new proxy: %v", err)
		}
		_, err = get("http://" + listen + "/")
		return err
	})
	if s := w.status(); s.Workload(wl.ComputeDigest()).Restarts != 0 || s.Listen != listen {
		t.Errorf("got %+v, want the program untouched and the address %s", s, listen)
	}
}

// No secret value is in what the host keeps or says, whatever the program prints.
func TestSecretsStaySecret(t *testing.T) {
	const value = "correct-horse-battery"
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	w := newWorld(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	wl := w.workload("one", func(wl *delivery.Workload) { wl.Secrets = map[string]delivery.Secret{"PASSWORD": {File: secret}} })
	w.run(wl, 1)
	crash := w.script(`echo "can't log in with $PASSWORD"; exit 1`, func(wl *delivery.Workload) { wl.Secrets = map[string]delivery.Secret{"PASSWORD": {File: secret}} })
	w.do(startEffect(crash, 1))
	var s *delivery.WorkloadStatus
	eventually(t, func() error {
		if s = w.status().Workload(crash.ComputeDigest()); s == nil || !strings.Contains(s.Message, "log in with "+redacted) {
			return fmt.Errorf("got %+v, want the last line without the secret", s)
		}
		return nil
	})
	for _, restarted := range []bool{false, true} {
		if restarted {
			if err := os.WriteFile(secret, []byte("rotated-by-now"), 0o600); err != nil { // the process still has the former
				t.Fatal(err)
			}
			w.do(stopEffect(crash, 0))
			w.stop()
			w.start()
			w.ready(wl, 1)
			eventually(t, func() error {
				w.s.mu.Lock()
				defer w.s.mu.Unlock()
				if len(w.s.secrets) == 0 {
					return errors.New("not adopted yet")
				}
				return nil
			})
		}
		lines, err := w.s.Logs(t.Context(), remote.LogQuery{Placement: testKey, Service: "web", Workload: wl.ComputeDigest()})
		if err != nil || len(lines) == 0 || lines[0].Text != "hello from one secret "+redacted {
			t.Errorf("restarted %v: got %+v, %v, want the first line with %s", restarted, lines, err, redacted)
		}
	}
	w.stop()
	err := filepath.WalkDir(w.options.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, ".log") {
			return err // the program's own output, mode 0600, is as it wrote it
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), value) && len(b) < 1<<20 {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), value) {
		t.Errorf("the supervisor's log holds the secret:\n%s", log.String())
	}
}

func TestLogsAreLimited(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.LogLimit = 100 << 10 })
	wl := w.workload("one", func(wl *delivery.Workload) { wl.Env["CHATTER"] = "1" })
	w.run(wl, 1)
	i := w.record().Instances[0]
	path, err := w.s.outputs.path(testKey, "web", wl.ComputeDigest(), i.ID)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		former, err := os.Stat(path + ".1")
		if err != nil {
			return err
		}
		if former.Size() > 2*w.options.LogLimit {
			t.Fatalf("the former file has %d bytes, more than twice the limit", former.Size())
		}
		return nil
	})
	w.do(stopEffect(wl, 0))
}

func TestTasks(t *testing.T) {
	w := newWorld(t)
	run := func(wl delivery.Workload, timeout time.Duration) delivery.Effect {
		return delivery.Effect{Run: &delivery.RunEffect{Task: "migrate", Workload: wl, Timeout: delivery.Duration(timeout)}}
	}
	counter := filepath.Join(openDir(t), "runs")
	if err := os.WriteFile(counter, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(counter, 0o666); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		effect delivery.Effect
		want   delivery.TaskStatus
	}{
		{"it succeeds", run(w.script("echo run >> "+counter+"; echo one; echo two"), time.Minute), delivery.TaskStatus{Done: true, OK: true, Message: "one\ntwo"}},
		{"it fails", run(w.script("echo no table; exit 4"), time.Minute), delivery.TaskStatus{Done: true, Message: "It failed: exit status 4\nno table"}},
		{"it takes too long", run(w.script("echo working; sleep 100"), 50*time.Millisecond), delivery.TaskStatus{Done: true, Message: "It did not end within 50ms and was stopped.\nworking"}},
		{"it can't start", run(w.workload("x", func(wl *delivery.Workload) { wl.Artifact.Digest = delivery.DigestBytes([]byte("y")) }), time.Minute),
			delivery.TaskStatus{Done: true, Message: "It could not be started: there is no artifact " + string(delivery.DigestBytes([]byte("y"))) + "."}},
	}
	status := func(key delivery.EffectKey) (delivery.TaskStatus, error) {
		r, err := w.s.Report(t.Context())
		if err != nil {
			return delivery.TaskStatus{}, err
		}
		for _, task := range r.Tasks {
			if task.Key == key && task.Done {
				return task, nil
			}
		}
		return delivery.TaskStatus{}, fmt.Errorf("not done: %+v", r.Tasks)
	}
	for _, test := range tests {
		e := w.do(test.effect)
		var got delivery.TaskStatus
		eventually(t, func() (err error) { got, err = status(e.Key); return err })
		test.want.Key = e.Key
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
		if r, err := w.s.Do(t.Context(), e); err != nil || !r.Already {
			t.Errorf("%s again: got %+v, %v", test.name, r, err)
		}
	}
	// A task that a dead supervisor began is never run again.
	gate := filepath.Join(openDir(t), "gate")
	e := w.do(run(w.script("echo run >> "+counter+"; while [ ! -e "+gate+" ]; do sleep 0.02; done; echo ended"), time.Minute))
	eventually(t, func() error {
		if b, err := os.ReadFile(counter); err != nil || strings.Count(string(b), "run") != 2 {
			return fmt.Errorf("got %q, %v", b, err)
		}
		return nil
	})
	w.stop()
	w.start()
	if got, err := status(e.Key); err == nil {
		t.Errorf("got %+v while it still runs", got)
	}
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var got delivery.TaskStatus
	eventually(t, func() (err error) { got, err = status(e.Key); return err })
	if got.OK || !strings.Contains(got.Message, "is not known") || !strings.Contains(got.Message, "ended") {
		t.Errorf("got %+v, want an unknown outcome with its output", got)
	}
	if b, err := os.ReadFile(counter); err != nil || strings.Count(string(b), "run") != 2 {
		t.Errorf("got %q, %v, want two runs in all", b, err)
	}
}

// A full disk gives an error and no effect, and the effect is done when there
// is room again.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	wl := w.workload("one")
	dir := w.s.layout.states()
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	e := w.effect(startEffect(wl, 1))
	if r, err := w.s.Do(t.Context(), e); err == nil {
		t.Fatalf("got %+v, want an error", r)
	}
	if s := w.status(); s != nil {
		t.Errorf("got %+v, want nothing done", s)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	if r, err := w.s.Do(t.Context(), e); err != nil || !r.OK || r.Already {
		t.Fatalf("got %+v, %v, want it done", r, err)
	}
	w.ready(wl, 1)
}

// lockedBuffer is a log that several goroutines write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
