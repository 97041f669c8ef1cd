package proxy

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// door is a listening socket with the HTTP server behind it. It belongs to one
// route for all its life.
type door struct {
	route     *route
	requested string // the Route.Listen it was opened for
	address   string
	listener  *net.TCPListener
	http      *http.Server
	closing   atomic.Bool // answers tell clients to connect anew
	conns     atomic.Int64
	closedAt  time.Time // when it stopped accepting; guarded by server.mu
}

// Allotted ports lie below the range from which systems take the ports of
// outgoing connections (Linux: from 32768), so that none of these takes a
// port while the proxy restarts.
const (
	allotFirst = 20000
	allotCount = 10000
)

// openDoor listens for a route. An address without a port, or with port 0,
// gets the port it had before, or a free one that follows from the route's name.
func openDoor(ctx context.Context, id RouteID, requested, before string) (*net.TCPListener, error) {
	host, port, err := net.SplitHostPort(requested)
	if requested == "" {
		host, port, err = "127.0.0.1", "0", nil
	}
	if err != nil {
		return nil, err
	}
	if port != "0" {
		return listen(ctx, requested)
	}
	if beforeHost, _, err := net.SplitHostPort(before); err == nil && beforeHost == host {
		if l, err := listen(ctx, before); err == nil {
			return l, nil
		}
	}
	hash := fnv.New32a()
	fmt.Fprint(hash, id.String())
	var last error
	for i := range uint32(200) {
		port := allotFirst + (hash.Sum32()+i*i)%allotCount
		l, err := listen(ctx, net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err == nil {
			return l, nil
		}
		last = err
	}
	return nil, last
}

func listen(ctx context.Context, address string) (*net.TCPListener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// listenReason says in a sentence why an address cannot be had.
func listenReason(address string, err error) string {
	if address == "" {
		address = "a port on 127.0.0.1"
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("It cannot listen on %s because another program or route uses it: free it, or choose another address.", address)
	case errors.Is(err, syscall.EACCES):
		return fmt.Sprintf("It cannot listen on %s because that needs a privilege that the proxy does not have: choose a port from 1024 on.", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf("It cannot listen on %s because this machine has no such address: choose one that it has.", address)
	}
	return fmt.Sprintf("It cannot listen on %s (%v).", address, err)
}

// newDoor serves a listener for a route from now on.
func (s *server) newDoor(r *route, requested string, l *net.TCPListener) *door {
	d := &door{route: r, requested: requested, address: l.Addr().String(), listener: l}
	d.http = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			if (d.closing.Load() || s.leaving.Load()) && request.Header.Get("Upgrade") == "" {
				w.Header().Set("Connection", "close")
			}
			s.forward(w, request, r)
		}),
		ReadHeaderTimeout:            s.limits.HeaderTimeout,
		IdleTimeout:                  s.limits.IdleTimeout,
		MaxHeaderBytes:               s.limits.HeaderBytes,
		DisableGeneralOptionsHandler: true, // OPTIONS * is the application's to answer
		ErrorLog:                     s.errorLog,
		BaseContext:                  func(net.Listener) context.Context { return s.life },
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				d.conns.Add(1)
			case http.StateClosed, http.StateHijacked:
				d.conns.Add(-1)
			}
		},
	}
	s.serving.Go(func() {
		err := d.http.Serve(stallListener{l, s.limits.StallTimeout})
		if !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.log.Error("A route stopped accepting requests.", "route", r.id.String(), "address", d.address, "error", err)
		}
	})
	return d
}

// shut stops accepting; requests under way and kept-alive connections go on.
func (d *door) shut(now time.Time) {
	if d.closing.CompareAndSwap(false, true) {
		d.closedAt = now
		_ = d.listener.Close()
	}
}

// closeIdle ends the connections that have no request under way.
func (d *door) closeIdle() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // Shutdown looks once and does not wait
	_ = d.http.Shutdown(ctx)
}

// stallListener gives every write to a client a limited time.
type stallListener struct {
	*net.TCPListener
	stall time.Duration
}

func (l stallListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	_ = c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 9})
	return &stallConn{TCPConn: c, stall: l.stall}, nil
}

// stallConn ends a write that makes no progress for the stall time. The
// deadline is moved only when a good part of it has passed, which spares most
// writes the call.
type stallConn struct {
	*net.TCPConn
	stall time.Duration
	set   atomic.Int64 // Unix nanoseconds of the last move
}

func (c *stallConn) Write(b []byte) (int, error) {
	now := time.Now()
	if now.UnixNano()-c.set.Load() > int64(c.stall/8) {
		c.set.Store(now.UnixNano())
		if err := c.TCPConn.SetWriteDeadline(now.Add(c.stall)); err != nil {
			return 0, err
		}
	}
	return c.TCPConn.Write(b)
}

// SetDeadline is what the HTTP server calls on hijacking; the next write sets
// its own deadline again.
func (c *stallConn) SetDeadline(t time.Time) error {
	c.set.Store(0)
	return c.TCPConn.SetDeadline(t)
}

// listenAdmin opens the admin socket, which only this user can reach from its
// first instant on: bind takes the mode that the socket has.
func listenAdmin(ctx context.Context, path string) (*net.UnixListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmod error
		if err := c.Control(func(fd uintptr) { chmod = unix.Fchmod(int(fd), 0o600) }); err != nil {
			return err
		}
		return chmod
	}}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false) // a successor may have it
	return u, nil
}
