package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"golang.org/x/sys/unix"
)

// housekeeping is how often what failed is tried again.
const housekeeping = time.Second

// gcPercent lets the heap, which is a few MB, grow to five times its size
// between collections: that costs some MB and spares a tenth of the processor
// time (bench, 2,000 requests/s).
const gcPercent = 400

// Run serves until ctx ends or a new process has taken over. It starts with
// the configuration saved in Dir, so that it serves at once after a crash; when
// another proxy answers on Socket, it takes over that one's sockets,
// configuration and counts instead. When ctx ends it stops accepting and
// finishes the requests under way within Limits.DrainLimit. It returns nil
// after an orderly end.
func Run(ctx context.Context, o Options) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The proxy's directory %s cannot be made: see its parent's permissions.", o.Dir)
	}
	if os.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	}
	s := newServer(o)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	admin, err := s.begin(ctx, o, &helpers)
	if err != nil {
		return err
	}
	tick := time.NewTicker(housekeeping)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.keepHouse(ctx)
		case <-s.handed:
			s.log.Info("Handed over to a new process; finishing the requests under way.")
			s.leave(s.limits.Linger)
			_ = admin.Close()
			s.serving.Wait()
			return nil
		case <-ctx.Done():
			s.stopAccepting()
			s.leave(0)
			_ = admin.Close()
			s.serving.Wait()
			if err := os.Remove(o.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
				s.log.Warn("The admin socket could not be removed.", "error", err)
			}
			return nil
		}
	}
}

// begin takes over from a running process or starts from what was saved, and
// opens the admin socket. A lock keeps two processes from beginning at once.
func (s *server) begin(ctx context.Context, o Options, helpers *sync.WaitGroup) (*http.Server, error) {
	unlock, err := lock(ctx, filepath.Join(o.Dir, "proxy.lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	e, err := takeOver(ctx, o.Socket)
	switch {
	case err == nil:
		s.inherit(ctx, e)
		s.socket = e.admin
	case errors.Is(err, errNobody):
		if err := s.resume(ctx, o.Socket); err != nil {
			return nil, err
		}
	default:
		return nil, delivery.Wrap(delivery.CodeUnavailable, err, "Another proxy answers on %s but does not hand over (%v): end it, then start this one again.", o.Socket, err)
	}
	admin := &http.Server{Handler: s.admin(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: s.errorLog}
	s.serving.Go(func() {
		if err := admin.Serve(s.socket); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.log.Error("The admin socket stopped.", "error", err)
		}
	})
	if e != nil {
		if _, err := e.conn.Write([]byte{handoverAccepted}); err != nil {
			s.log.Warn("The earlier process ended during the handover.", "error", err)
		}
		s.heir.Store(true)
		helpers.Go(func() { s.follow(e.conn) })
		context.AfterFunc(ctx, func() { _ = e.conn.Close() })
		s.log.Info("Took over from a running proxy.", "routes", len(e.Config.Routes))
	}
	return admin, nil
}

// resume serves what was saved. What cannot be read is left out: the
// supervisor sends it anew.
func (s *server) resume(ctx context.Context, socket string) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The old admin socket %s cannot be removed: see the directory's permissions.", socket)
	}
	var err error
	if s.socket, err = listenAdmin(ctx, socket); err != nil {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The admin socket %s cannot be opened (%v): see that its directory is there and may be written.", socket, err)
	}
	before, err := load(s.dir)
	if err != nil {
		s.log.Error("The saved configuration cannot be read; waiting for the supervisor's.", "error", err)
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range before.Ports {
		s.ports[p.ID] = p.Listen
	}
	s.apply(ctx, before.Config, nil)
	s.log.Info("Serving.", "routes", len(before.Config.Routes), "revision", before.Config.Revision)
	return nil
}

// lock holds a file lock until the returned function is called.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The proxy's lock %s cannot be opened: see the directory's permissions.", path)
	}
	deadline := time.Now().Add(2 * handoverTimeout)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if time.Now().After(deadline) {
			_ = f.Close()
			return nil, delivery.Wrap(delivery.CodeUnavailable, err, "Another proxy has been starting in %s for long: see whether it hangs.", filepath.Dir(path))
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stopAccepting closes every door and the admin socket.
func (s *server) stopAccepting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving.Swap(true) {
		return
	}
	for _, r := range s.order {
		if r.door != nil {
			r.door.shut(time.Now())
			s.retired = append(s.retired, r.door)
		}
	}
	_ = s.socket.Close()
}

// leave finishes the requests under way. Idle connections stay for linger,
// since closing one can cross with its next request; what is left after
// Limits.DrainLimit is cut off.
func (s *server) leave(linger time.Duration) {
	s.mu.Lock()
	doors := s.retired
	s.mu.Unlock()
	begun, told := time.Now(), time.Time{}
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		_, under := s.underWay()
		open := under
		if s.heir.Load() && s.successor != nil {
			open++ // what the predecessor still counts must be passed on
		}
		for _, d := range doors {
			if time.Since(begun) >= linger {
				d.closeIdle()
			}
			open += d.conns.Load()
		}
		over := time.Since(begun) >= s.limits.DrainLimit
		if over && under > 0 {
			s.log.Warn("Requests are cut off because they did not end in time.", "requests", under)
		}
		if open == 0 || over {
			break
		}
		if time.Since(told) >= progressEvery {
			s.tell()
			told = time.Now()
		}
		<-look.C
	}
	s.cut()
	for _, d := range doors {
		_ = d.http.Close()
	}
	s.tell()
	if s.successor != nil {
		_ = s.successor.Close()
	}
}
