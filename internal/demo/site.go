package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tidegate-cd/tidegate/internal/client"
	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/host"
)

// site is where the demo happens: a directory, the processes in it, and the
// builds of the sample application.
type site struct {
	dir         string
	temporary   bool
	self        string
	api, remote string
	errors3     float64

	mu     sync.Mutex
	server *exec.Cmd
	host   *exec.Cmd
	builds map[string]chan error // by version; closed when it is built
}

func newSite(ctx context.Context, o Options, say func(string, ...any)) (*site, error) {
	s := &site{dir: o.Dir, self: o.Self, errors3: o.Errors3, builds: map[string]chan error{}}
	if s.errors3 == 0 {
		s.errors3 = 5
	}
	if o.Healthy3 {
		s.errors3 = 0
	}
	var err error
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "tidegate-demo-"); err != nil {
			return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The demo has no temporary directory: %v.", err)
		}
		s.temporary = true
		if err := os.Chmod(s.dir, 0o711); err != nil { // releases run as another user where we are root
			return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The demo's directory %s can't be used: %v.", s.dir, err)
		}
	}
	for _, d := range []string{"config", "source"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o755); err != nil {
			return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The demo's directory %s can't be used: %v.", s.dir, err)
		}
	}
	if err := s.build(ctx, say); err != nil {
		return nil, err
	}
	for _, at := range []*string{&s.api, &s.remote} {
		if *at, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	s.api, s.remote = "http://"+s.api, "https://"+s.remote
	return s, nil
}

// build builds the sample application in the background, a program a release.
func (s *site) build(ctx context.Context, say func(string, ...any)) error {
	if _, err := exec.LookPath("go"); err != nil {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The demo builds its sample application with Go, which is not on the path: install Go.")
	}
	dir := filepath.Join(s.dir, "source")
	for name, content := range map[string][]byte{"main.go": source, "go.mod": []byte("module shop\n\ngo 1.26\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return delivery.Wrap(delivery.CodeUnavailable, err, "The sample application can't be written: %v.", err)
		}
	}
	say("Building the sample application (the first build on a machine takes a while) ...")
	versions := []string{"1", "2", "3", "4"}
	for _, v := range versions {
		s.builds[v] = make(chan error, 1)
	}
	go func() { // each release waits for its own build; see built
		for _, v := range versions {
			s.builds[v] <- s.buildOne(ctx, dir, v)
		}
	}()
	return nil
}

func (s *site) buildOne(ctx context.Context, dir, version string) error {
	percent := "0"
	if version == "3" {
		percent = strconv.FormatFloat(s.errors3, 'g', -1, 64)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(s.dir, "shop-"+version), "-ldflags", fmt.Sprintf("-s -w -X main.version=%s -X main.errorPercent=%s", version, percent), ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The sample application does not build: %s", bytes.TrimSpace(out))
	}
	return nil
}

// built waits for a version's program.
func (s *site) built(version string) error { return <-s.builds[version] }

// freeAddress finds a loopback port that is free now; the server must keep it
// over a restart, so it can't choose by itself.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", delivery.Wrap(delivery.CodeUnavailable, err, "No port is free: %v.", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// start starts a process of the demo with its log in a file.
func (s *site) start(name string, env []string, args ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The log of the %s can't be written: %v.", name, err)
	}
	defer log.Close()
	cmd := exec.Command(s.self, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo, which ends them in order
	if err := cmd.Start(); err != nil {
		return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The %s can't be started: %v.", name, err)
	}
	return cmd, nil
}

func (s *site) startServer(ctx context.Context) error {
	cmd, err := s.start("server", nil, "server", "--dir", filepath.Join(s.dir, "server"),
		"--listen", strings.TrimPrefix(s.api, "http://"), "--remote-listen", strings.TrimPrefix(s.remote, "https://"))
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.server = cmd
	s.mu.Unlock()
	c, err := client.New(client.Options{Address: s.api})
	if err != nil {
		return err
	}
	deadline := time.Now().Add(patience)
	for {
		if h, err := c.Ready(ctx); err == nil && h.Status == "ok" {
			return nil
		}
		if time.Now().After(deadline) {
			return delivery.Errorf(delivery.CodeUnavailable, "The server does not answer; its log ends:\n%s", s.tail("server"))
		}
		if err := rest(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// restartServer kills the server with -9 and starts it again.
func (s *site) restartServer(ctx context.Context) error {
	s.mu.Lock()
	old := s.server
	s.mu.Unlock()
	if err := old.Process.Kill(); err != nil {
		return delivery.Wrap(delivery.CodeInternal, err, "The server can't be killed: %v.", err)
	}
	old.Wait() // killed: its error says only that
	if err := rest(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	return s.startServer(ctx)
}

// client returns a client with the administrator's token.
func (s *site) client(string) (*client.Client, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, "server", "admin.token"))
	if err != nil {
		return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The administrator's token can't be read: %v.", err)
	}
	return client.New(client.Options{Address: s.api, Token: strings.TrimSpace(string(b)), Channel: delivery.ChannelCLI})
}

func (s *site) startHost(ctx context.Context, admin *client.Client) error {
	t, err := admin.CreateEnrolment(ctx, wire.NewEnrolment{Host: delivery.TargetLocal})
	if err != nil {
		return err
	}
	s.host, err = s.start("host", []string{"TIDEGATE_ENROL=" + t.Secret}, "host", "--dir", filepath.Join(s.dir, "host"), "--connect", s.remote, "--name", delivery.TargetLocal)
	return err
}

func (s *site) tail(name string) string {
	f, err := os.Open(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 2000 {
		f.Seek(-2000, io.SeekEnd)
	}
	b, _ := io.ReadAll(f) // a log's end is for a person; less of it is no error
	return string(b)
}

// close ends everything that the demo started. What a host runs outlives it on
// purpose, so it is told to shut down.
func (s *site) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, cmd := range []*exec.Cmd{s.server, s.host} {
		if cmd != nil && cmd.Process != nil {
			cmd.Process.Signal(syscall.SIGTERM)
			done := make(chan struct{})
			go func() { cmd.Wait(); close(done) }() // ends with the process, which the timer makes sure of
			select {
			case <-done:
			case <-time.After(5 * time.Second):
				cmd.Process.Kill()
				<-done
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if s.host != nil {
		if err := host.Shutdown(ctx, host.Options{Dir: filepath.Join(s.dir, "host")}); err != nil {
			fmt.Fprintln(os.Stderr, "tidegate demo: not everything could be ended:", err)
		}
	}
	if s.temporary {
		os.RemoveAll(s.dir)
	}
}

// debugOn adds DEBUG to the environment of the document's service.
func debugOn(text string) string {
	return strings.Replace(text, "    - name: web\n", "    - name: web\n      env: {DEBUG: \"true\"}\n", 1)
}

// tamper changes one byte in the middle of a file.
func tamper(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	at := info.Size() / 2
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b, at)
	return err
}
