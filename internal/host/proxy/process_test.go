package proxy

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childDir names the variable that makes the test binary a proxy process.
const childDir = "TIDEGATE_PROXY_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err := Run(ctx, Options{Dir: dir, Socket: filepath.Join(dir, "proxy.sock"), Log: quiet(), Limits: Limits{Linger: 300 * time.Millisecond, DrainLimit: 5 * time.Second}})
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// spawn starts a proxy process in dir and returns when that very process
// answers on the admin socket.
func spawn(t *testing.T, dir string) (*exec.Cmd, *process) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	p := &process{t: t, dir: dir, client: Dial(filepath.Join(dir, "proxy.sock"))}
	eventually(t, "the process answers", func() bool {
		s, err := p.client.Status(t.Context())
		return err == nil && s.PID == cmd.Process.Pid
	})
	return cmd, p
}

func TestKilledProcessServesAgainOnItsPorts(t *testing.T) {
	dir := shortDir(t)
	first, p := spawn(t, dir)
	fixed, other := web, web
	fixed.Service, other.Service = "fixed", "other"
	config := Config{Revision: 7, Routes: []Route{
		{ID: web, Groups: []Group{arm("one", 25, says(t, "one")), arm("two", 75, says(t, "two"))}},
		{ID: fixed, Listen: deadAddress(t), Groups: []Group{arm("f", 100, says(t, "f"))}},
		{ID: other, Listen: "127.0.0.1:0", Groups: []Group{arm("o", 100, says(t, "o"))}},
	}}
	p.configure(config)
	before := p.status()
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()

	_, p = spawn(t, dir)
	after := p.status()
	if after.Revision != 7 || after.Epoch == before.Epoch || len(after.Routes) != 3 {
		t.Fatalf("after the restart: %+v", after)
	}
	for i, r := range after.Routes {
		if r.Listen == "" || r.Listen != before.Routes[i].Listen {
			t.Errorf("route %s listens on %q, before on %q", r.ID, r.Listen, before.Routes[i].Listen)
		}
	}
	got := map[string]int{}
	for range 100 {
		_, body := get(newClient(t), p.url(web))
		got[body]++
	}
	if got["one"] != 25 || got["two"] != 75 {
		t.Errorf("the restarted process shares %v, want 25 and 75", got)
	}
}

func TestUnreadableSavedConfiguration(t *testing.T) {
	dir := shortDir(t)
	for _, content := range []string{"", "{", `{"format":99}`, `{"format":1,"config":{"routes":[{}]}}`} {
		if err := os.WriteFile(savedPath(dir), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		p := startIn(t, dir, Limits{})
		if s := p.status(); len(s.Routes) != 0 {
			t.Errorf("%q: %+v", content, s)
		}
		p.configure(oneRoute(arm("one", 100, says(t, "one"))))
		if status, _ := get(newClient(t), p.url(web)); status != 200 {
			t.Errorf("%q: the new configuration is not served: %d", content, status)
		}
		p.stop()
	}
}

func TestDiskThatCannotBeWrittenDoesNotStopARollback(t *testing.T) {
	dir := shortDir(t)
	p := startIn(t, dir, Limits{})
	p.configure(oneRoute(arm("one", 100, says(t, "one"))))
	url := p.url(web)
	if err := os.Rename(dir, dir+"-away"); err != nil { // nothing can be saved where there is no directory
		t.Fatal(err)
	}
	away := Dial(filepath.Join(dir+"-away", "proxy.sock"))
	if err := away.Configure(t.Context(), oneRoute(arm("two", 100, says(t, "two")))); err != nil {
		t.Errorf("Configure: %v", err)
	}
	if _, body := get(newClient(t), url); body != "two" {
		t.Errorf("the weights did not change: %q answers", body)
	}
	if s, err := away.Status(t.Context()); err != nil || !strings.Contains(s.Unsaved, "could not be saved") {
		t.Errorf("the status does not say so: %+v %v", s.Unsaved, err)
	}
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is saved after all", func() bool { return p.status().Unsaved == "" })
}

func TestHandoverUnderLoadLosesNothing(t *testing.T) {
	dir := shortDir(t)
	first, p := spawn(t, dir)
	slowArrived, slowEnds := make(chan struct{}), make(chan struct{})
	one := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			slowArrived <- struct{}{}
			<-slowEnds
		}
		_, _ = w.Write([]byte("one"))
	})
	config := oneRoute(arm("one", 50, one), arm("two", 50, says(t, "two")))
	p.configure(config)
	before := p.status()
	url := p.url(web)

	slow := make(chan string, 2)
	for range 2 { // one of two goes to the backend that is slow
		go func() {
			_, body := get(newClient(t), url+"/slow")
			slow <- body
		}()
	}
	<-slowArrived
	<-slow

	stop := loadUnder(t, url, 6)
	eventually(t, "load comes", func() bool { return p.group(web, digest("one")).Counts.Requests > 200 })
	second, p := spawn(t, dir)
	// The backend that still answers a request of the old process is not drained for the new one either.
	id := config.Routes[0].Groups[0].Backends[0].ID
	p.configure(oneRoute(arm("two", 100, says(t, "two"))))
	if err := p.client.Drain(t.Context(), id, 30*time.Millisecond); err == nil {
		t.Error("a backend with a request under way in the old process counts as drained")
	}
	third, p := spawn(t, dir)
	close(slowEnds)
	if body := <-slow; body != "one" {
		t.Errorf("the request under way in the old process got %q", body)
	}
	if err := p.client.Drain(t.Context(), id, 5*time.Second); err != nil {
		t.Errorf("Drain in the third process: %v", err)
	}
	for _, cmd := range []*exec.Cmd{first, second} {
		if err := cmd.Wait(); err != nil {
			t.Errorf("an old process ended with %v", err)
		}
	}
	total, failures := stop()
	if len(failures) > 0 {
		t.Errorf("%d of %d failed, first: %s", len(failures), total, failures[0])
	}
	after := p.status()
	if after.Epoch != before.Epoch || after.PID != third.Process.Pid {
		t.Errorf("epoch %s → %s, pid %d, want the same epoch in process %d", before.Epoch, after.Epoch, after.PID, third.Process.Pid)
	}
	var counted int64
	defer func() { t.Logf("clients %d + 2, proxies %d", total, counted) }()
	eventually(t, "every request of all three processes is counted", func() bool {
		counted = 0
		for _, g := range p.status().Routes[0].Groups {
			counted += g.Counts.Requests
		}
		return counted == total+2
	})
	if err := third.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := third.Wait(); err != nil {
		t.Errorf("the third process ended with %v", err)
	}
}

func TestSuccessorThatDiesLeavesTheOldOneServing(t *testing.T) {
	p := start(t, Limits{})
	p.configure(oneRoute(arm("one", 100, says(t, "one"))))
	e, err := tryTakeOver(t.Context(), filepath.Join(p.dir, "proxy.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if len(e.listeners) != 1 || e.admin == nil {
		t.Errorf("the estate has %d listeners", len(e.listeners))
	}
	_ = e.conn.Close() // before it said that it serves
	_ = e.admin.Close()
	for _, l := range e.listeners {
		_ = l.Close()
	}
	for range 20 {
		if status, body := get(newClient(t), p.url(web)); status != 200 {
			t.Fatalf("the old process answers %d %s", status, body)
		}
	}
	p.configure(oneRoute(arm("two", 100, says(t, "two"))))
	response, err := p.client.http.Post("http://proxy/handover", "", nil)
	if err != nil || response.StatusCode != http.StatusBadRequest {
		t.Errorf("a handover that is no upgrade: %v %v", response, err)
	}
}
