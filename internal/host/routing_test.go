package host

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/host/proxy"
)

// Only ready instances get requests.
func TestUnreadyGetsNoTraffic(t *testing.T) {
	w := newWorld(t)
	wl := w.workload("one", func(wl *delivery.Workload) { wl.Readiness.HTTP = "/nothing" })
	w.do(startEffect(wl, 1))
	w.do(shiftEffect(delivery.Weight{Workload: wl.ComputeDigest(), Percent: 100}))
	w.weight(wl, 100)
	eventually(t, func() error {
		if s := w.status().Workload(wl.ComputeDigest()); !strings.Contains(s.Message, "404") {
			return fmt.Errorf("not probed yet: %+v", s)
		}
		return nil
	})
	if got, err := w.get("/"); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("got %q, %v, want 503", got, err)
	}
}

// Whatever else configured the proxy, the supervisor sets it right.
func TestRouterIsSetRight(t *testing.T) {
	w := newWorld(t)
	wl := w.workload("one")
	w.run(wl, 1)
	if err := w.s.router.client.Configure(t.Context(), proxy.Config{Revision: 1}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		s, err := w.s.router.client.Status(t.Context())
		if err != nil || len(s.Routes) != 1 {
			return fmt.Errorf("got %+v, %v, want the route", s, err)
		}
		return nil
	})
}

// An address that is taken is said, weights are not confirmed on it, and it
// is used once it is free.
func TestAddressTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var later atomic.Int64
	w := newWorld(t, func(o *Options) { o.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) } })
	wl := w.workload("one")
	e := startEffect(wl, 1)
	e.Start.Listen = l.Addr().String()
	w.do(e)
	w.ready(wl, 1)
	w.do(shiftEffect(delivery.Weight{Workload: wl.ComputeDigest(), Percent: 100}))
	eventually(t, func() error {
		w.s.router.mu.Lock()
		defer w.s.router.mu.Unlock()
		if len(w.s.router.down) == 0 {
			return errors.New("not noticed yet")
		}
		return nil
	})
	if percent, ok := w.status().Percent(wl.ComputeDigest()); ok {
		t.Errorf("%d %% are confirmed on an address that is taken", percent)
	}
	later.Store(int64(routeDown))
	eventually(t, func() error {
		if s := w.status().Workload(wl.ComputeDigest()); !s.Failed || !strings.Contains(s.Message, "Its address "+l.Addr().String()+" can't be listened on") {
			return fmt.Errorf("got %+v, want failed for the address", s)
		}
		return nil
	})
	l.Close()
	eventually(t, func() error {
		if percent, _ := w.status().Percent(wl.ComputeDigest()); percent != 100 || w.status().Workload(wl.ComputeDigest()).Failed {
			return fmt.Errorf("got %+v, want 100 %%", w.status())
		}
		return nil
	})
}

// A release that moves the service's address does so when it takes over, and
// gives it back.
func TestAddressMovesWithTheTraffic(t *testing.T) {
	one := &workloadRecord{Digest: "one", Listen: "a"}
	two := &workloadRecord{Digest: "two", Listen: "b"}
	tests := []struct {
		name    string
		weights []delivery.Weight
		want    string
	}{
		{"without traffic", nil, "b"},
		{"a canary", []delivery.Weight{{Workload: "two", Percent: 30}, {Workload: "one", Percent: 70}}, "a"},
		{"most", []delivery.Weight{{Workload: "two", Percent: 60}, {Workload: "one", Percent: 40}}, "b"},
		{"back", []delivery.Weight{{Workload: "two", Percent: 0}, {Workload: "one", Percent: 100}}, "a"},
	}
	for _, test := range tests {
		svc := &serviceRecord{Workloads: []*workloadRecord{one, two}, Weights: test.weights}
		if got := svc.listen(); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// A supervisor of another version exchanges the proxy without losing a request.
func TestProxyIsExchanged(t *testing.T) {
	w := newWorld(t)
	wl := w.workload("one")
	w.run(wl, 1)
	listen := w.status().Listen
	before, err := w.s.router.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := get("http://" + listen + "/"); err != nil {
					t.Errorf("a request failed: %v", err)
				}
			}
		}
	}()
	w.stop()
	next := filepath.Join(t.TempDir(), "next")
	if err := os.WriteFile(next, applicationArtifact(), 0o755); err != nil {
		t.Fatal(err)
	}
	w.options.ProxyCommand = []string{next}
	w.start()
	eventually(t, func() error {
		now, err := w.s.router.client.Status(t.Context())
		if err != nil || now.PID == before.PID || now.Epoch != before.Epoch {
			return fmt.Errorf("got process %d and epoch %s, %v, want another process with the counts of %d", now.PID, now.Epoch, err, before.PID)
		}
		return nil
	})
	w.weight(wl, 100)
	close(stop)
	<-stopped
	if err := syscall.Kill(before.PID, 0); err == nil {
		eventually(t, func() error {
			if _, ok := identify(before.PID, time.Now()); ok {
				return errors.New("the former proxy still runs")
			}
			return nil
		})
	}
}

func TestShutdown(t *testing.T) {
	w := newWorld(t)
	wl := w.workload("one")
	w.run(wl, 2)
	if err := Shutdown(t.Context(), w.options); delivery.ErrorCode(err) != delivery.CodeConflict {
		t.Errorf("beside a supervisor: got %v, want a conflict", err)
	}
	w.stop()
	status, err := w.s.router.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := Shutdown(t.Context(), w.options); err != nil {
		t.Fatal(err)
	}
	if _, ok := identify(status.PID, time.Now()); ok {
		t.Error("the proxy still runs")
	}
	if left := leaders(t, w.options.Dir); len(left) > 0 {
		t.Errorf("processes %v still run", left)
	}
	w.start() // what is wanted comes back
	w.ready(wl, 2)
	w.weight(wl, 100)
}

// A data directory that the user of releases can't come through to, such as
// one below /root, works all the same.
func TestUnreachableDirectory(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: only then releases run as another user")
	}
	private := t.TempDir()
	if err := os.Chmod(private, 0o700); err != nil {
		t.Fatal(err)
	}
	work := ""
	t.Cleanup(func() { os.RemoveAll(work) })
	w := newWorld(t, func(o *Options) {
		o.Dir = filepath.Join(private, "host")
		o.ProxyCommand, o.ProxyEnv = proxyCommand(o.Dir)
	})
	wl := w.workload("one")
	w.run(wl, 1)
	work = w.s.layout.work
	if strings.HasPrefix(work, private) {
		t.Errorf("programs are in %s, where their user can't come", work)
	}
	w.stop()
	w.start()
	w.ready(wl, 1)
	if w.s.layout.work != work || w.status().Workload(wl.ComputeDigest()).Restarts != 0 {
		t.Errorf("programs moved to %s", w.s.layout.work)
	}
	w.stop()
	if err := Shutdown(t.Context(), w.options); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(work); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left behind: %v", work, err)
	}
	w.start()
	w.ready(wl, 1)
	work = w.s.layout.work
}
