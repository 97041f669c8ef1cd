// Command bench measures the proxy against a direct request and against nginx,
// all in one run on one machine: it starts a backend, the proxy and, where it
// is installed, nginx as processes of their own, sends each the same open-loop
// load in turns, and prints the latencies and their ratios. It decides nothing
// and is no part of Tidegate's binary.
//
//	go run ./internal/host/proxy/bench -rate 2000 -rounds 5 -seconds 5
//
// TIDEGATE_BENCH_PROFILE=FILE in the environment writes the proxy's CPU profile.
//
// Start reading at measure in load.go. Latencies count from the instant at
// which a request was due, not from when it could be sent, so that a stall is
// charged to all requests that it held up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/host/proxy"
)

// roleVariable makes the program one of the measured processes.
const roleVariable = "TIDEGATE_BENCH_ROLE"

// profileVariable names a file for the proxy's CPU profile.
const profileVariable = "TIDEGATE_BENCH_PROFILE"

// profile writes a CPU profile until end is called.
func profile(path string) (end func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { pprof.StopCPUProfile(); _ = f.Close() }, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch os.Getenv(roleVariable) {
	case "backend":
		err = runBackend(ctx, os.Args[1], os.Args[2])
	case "proxy":
		var end func()
		if end, err = profile(os.Getenv(profileVariable)); err != nil {
			break
		}
		defer end()
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		err = proxy.Run(ctx, proxy.Options{Dir: os.Args[1], Socket: filepath.Join(os.Args[1], "proxy.sock"), Log: log})
	default:
		err = runBench(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// runBackend answers every request with size bytes.
func runBackend(ctx context.Context, address, size string) error {
	var n int
	if _, err := fmt.Sscan(size, &n); err != nil {
		return err
	}
	body := []byte(strings.Repeat("x", n))
	server := &http.Server{Addr: address, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", size)
		_, _ = w.Write(body)
	})}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type flags struct {
	rate, rounds, conns, size, body int
	seconds                         float64
	only                            string
}

func runBench(ctx context.Context) error {
	var f flags
	flag.IntVar(&f.rate, "rate", 2000, "requests per second")
	flag.IntVar(&f.rounds, "rounds", 5, "rounds; each measures every way once")
	flag.Float64Var(&f.seconds, "seconds", 5, "of each way in a round")
	flag.IntVar(&f.conns, "conns", 64, "kept-alive connections of the load")
	flag.IntVar(&f.size, "size", 1024, "bytes of an answer")
	flag.IntVar(&f.body, "body", 0, "bytes of a request's body; 0 sends GET")
	flag.StringVar(&f.only, "only", "", "measure only this way (direct, nginx, tidegate)")
	flag.Parse()

	dir, err := os.MkdirTemp("", "pxb")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ways, end, err := startAll(ctx, dir, f)
	defer end()
	if err != nil {
		return err
	}
	fmt.Printf("%s, %d CPUs, %d requests/s open loop over %d connections, bodies of %d bytes, answers of %d, %d rounds of %gs\n\n",
		runtime.Version(), runtime.NumCPU(), f.rate, f.conns, f.body, f.size, f.rounds, f.seconds)
	results := make([][]sample, len(ways))
	for i := range ways { // warm every connection up
		if _, err := measure(ctx, ways[i].address, f, time.Second); err != nil {
			return err
		}
	}
	for round := range f.rounds {
		for i := range ways { // another order each round, so that a busy moment does not always meet the same way
			k := (i + round) % len(ways)
			before := ways[k].cpu()
			r, err := measure(ctx, ways[k].address, f, time.Duration(f.seconds*float64(time.Second)))
			if err != nil {
				return err
			}
			results[k] = append(results[k], sample{result: r, cpu: ways[k].cpu() - before})
		}
	}
	report(ways, results)
	return nil
}

// startAll starts the processes. end stops those that were started, with an
// error too.
func startAll(ctx context.Context, dir string, f flags) (ways []way, end func(), err error) {
	var started []*exec.Cmd
	end = func() {
		for _, cmd := range slices.Backward(started) {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		}
	}
	run := func(role string, args ...string) (*exec.Cmd, error) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), roleVariable+"="+role)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		started = append(started, cmd)
		return cmd, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, end, err
	}
	backend, err := freeAddress()
	if err != nil {
		return nil, end, err
	}
	if _, err = run("backend", self, backend, fmt.Sprint(f.size)); err != nil {
		return nil, end, err
	}
	if err := awaitAddress(ctx, backend); err != nil {
		return nil, end, err
	}
	ways = append(ways, way{name: "direct", address: backend})

	if nginx, lookErr := exec.LookPath("nginx"); lookErr != nil {
		fmt.Println("nginx is not installed: measuring without it (apt-get install nginx-light).")
	} else {
		address, config, err := nginxConfig(dir, backend)
		if err != nil {
			return nil, end, err
		}
		cmd, err := run("", nginx, "-c", config, "-p", dir, "-g", "daemon off;")
		if err != nil {
			return nil, end, err
		}
		if err := awaitAddress(ctx, address); err != nil {
			return nil, end, err
		}
		ways = append(ways, way{name: "nginx", address: address, pid: cmd.Process.Pid})
	}
	cmd, err := run("proxy", self, dir)
	if err != nil {
		return nil, end, err
	}
	address, err := configureProxy(ctx, dir, backend)
	if err != nil {
		return nil, end, err
	}
	ways = append(ways, way{name: "tidegate", address: address, pid: cmd.Process.Pid})
	if f.only != "" {
		ways = slices.DeleteFunc(ways, func(w way) bool { return w.name != f.only })
	}
	return ways, end, nil
}

// configureProxy sends all requests to backend, as a canary of 10 percent and
// its stable version that run in one process.
func configureProxy(ctx context.Context, dir, backend string) (address string, err error) {
	client := proxy.Dial(filepath.Join(dir, "proxy.sock"))
	id := proxy.RouteID{Placement: delivery.PlacementKey{Project: "default", Application: "bench", Environment: "dev"}, Service: "web"}
	config := proxy.Config{Routes: []proxy.Route{{ID: id, Groups: []proxy.Group{
		{Workload: delivery.DigestBytes([]byte("1")), Version: "1", Percent: 90, Backends: []proxy.Backend{{ID: "1", Address: backend}}},
		{Workload: delivery.DigestBytes([]byte("2")), Version: "2", Percent: 10, Backends: []proxy.Backend{{ID: "2", Address: backend}}},
	}}}}
	for range 200 {
		if err = client.Configure(ctx, config); err == nil {
			break
		}
		time.Sleep(25 * time.Millisecond)
	}
	if err != nil {
		return "", err
	}
	status, err := client.Status(ctx)
	if err != nil {
		return "", err
	}
	return status.Route(id).Listen, nil
}

// nginxConfig writes a configuration that does what the proxy does and no more:
// weights, kept-alive connections on both sides, forwarded headers, no log.
func nginxConfig(dir, backend string) (address, path string, err error) {
	address, err = freeAddress()
	if err != nil {
		return "", "", err
	}
	text := fmt.Sprintf(`
worker_processes auto;
error_log %[1]s/error.log;
pid %[1]s/nginx.pid;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_buffer_size 1m;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  keepalive_requests 100000000;
  upstream app { server %[2]s; keepalive 256; keepalive_requests 100000000; }
  server {
    listen %[3]s;
    location / {
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
    }
  }
}`, dir, backend, address)
	path = filepath.Join(dir, "nginx.conf")
	return address, path, os.WriteFile(path, []byte(text), 0o600)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func awaitAddress(ctx context.Context, address string) error {
	var last error
	for range 200 {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		last = err
		time.Sleep(25 * time.Millisecond)
	}
	return last
}
