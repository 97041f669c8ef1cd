package proxy

import (
	"bufio"
	"context"
	"errors"
	"math"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Idle connections end before the five seconds after which common servers
	// close them, so that a request seldom meets a connection that is just
	// being closed.
	upstreamIdle     = 4 * time.Second
	maxIdleUpstreams = 1024
	maxAnswerHead    = 256 << 10 // bytes of an answer's head
	upstreamBuffer   = 8 << 10
)

var errAnswerHead = errors.New("the answer's head is larger than 256 KiB")

// upstream is a kept-alive connection to a backend for requests that take the
// short way. The request's own goroutine writes and reads it, which spares the
// goroutine switches of http.Transport: at thousands of requests per second
// these are most of a proxy's latency.
type upstream struct {
	conn     *net.TCPConn
	raw      syscall.RawConn
	reader   *bufio.Reader
	request  []byte // is put together here
	left     int64  // bytes that may be read
	deadline time.Time
	idle     time.Time // since when
	used     bool      // had a request before
	peek     func(fd uintptr)
	peeked   error
}

// upstreams keeps a backend's idle connections. The last one used is the first
// one used again.
type upstreams struct {
	mu     sync.Mutex
	idle   []*upstream
	closed bool
}

// take returns an idle connection that the backend has not closed, nil if
// there is none.
func (p *upstreams) take(now time.Time) *upstream {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		u := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if now.Sub(u.idle) < upstreamIdle && u.alive() {
			return u
		}
		_ = u.conn.Close()
	}
}

// put keeps a connection for another request.
func (p *upstreams) put(u *upstream) {
	u.idle, u.used = time.Now(), true
	p.mu.Lock()
	keep := !p.closed && len(p.idle) < maxIdleUpstreams
	if keep {
		p.idle = append(p.idle, u)
	}
	p.mu.Unlock()
	if !keep {
		_ = u.conn.Close()
	}
}

// prune closes the connections that have been idle for too long. With all it
// closes every one and keeps none from now on.
func (p *upstreams) prune(now time.Time, all bool) {
	p.mu.Lock()
	p.closed = p.closed || all
	n := 0
	for n < len(p.idle) && (all || now.Sub(p.idle[n].idle) >= upstreamIdle) {
		n++
	}
	old := append([]*upstream(nil), p.idle[:n]...)
	p.idle = append(p.idle[:0], p.idle[n:]...)
	clear(p.idle[len(p.idle):cap(p.idle)])
	p.mu.Unlock()
	for _, u := range old {
		_ = u.conn.Close()
	}
}

// dial connects to a backend. Every error is a [dialError].
func dial(ctx context.Context, address string, limit time.Duration) (*upstream, error) {
	dialer := net.Dialer{Timeout: limit, KeepAlive: 15 * time.Second}
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, &dialError{err}
	}
	conn := c.(*net.TCPConn)
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(&dialError{err}, conn.Close())
	}
	u := &upstream{conn: conn, raw: raw, left: math.MaxInt64}
	u.reader = bufio.NewReaderSize(u, upstreamBuffer)
	u.peek = func(fd uintptr) {
		var b [1]byte
		if _, _, u.peeked = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT); u.peeked == nil {
			u.peeked = net.ErrClosed // an end, or an answer that nobody asked for
		}
	}
	return u, nil
}

// alive reports whether the connection is open and quiet.
func (u *upstream) alive() bool {
	return u.raw.Control(u.peek) == nil && errors.Is(u.peeked, unix.EAGAIN)
}

// Read reads from the connection within what is left of the limit.
func (u *upstream) Read(b []byte) (int, error) {
	if u.left <= 0 {
		return 0, errAnswerHead
	}
	if int64(len(b)) > u.left {
		b = b[:u.left]
	}
	n, err := u.conn.Read(b)
	u.left -= int64(n)
	return n, err
}

// await limits the time until an answer begins, and its head's size. The
// deadline is moved only when a good part of it has passed.
func (u *upstream) await(now time.Time, limit time.Duration) error {
	u.left = maxAnswerHead
	if u.deadline.Sub(now) > limit-limit/8 {
		return nil
	}
	u.deadline = now.Add(limit)
	return u.conn.SetDeadline(u.deadline)
}

// begun lifts the limits: the answer's body may take as long as it takes.
func (u *upstream) begun(buffered bool) error {
	u.left = math.MaxInt64
	if buffered {
		return nil
	}
	u.deadline = time.Time{}
	return u.conn.SetDeadline(u.deadline)
}
