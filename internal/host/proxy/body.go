package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// download notes when the backend breaks off in its answer.
type download struct {
	io.ReadCloser
	x *exchange
}

func (d *download) Read(b []byte) (int, error) {
	n, err := d.ReadCloser.Read(b)
	if err != nil && err != io.EOF && d.x.request.Context().Err() == nil {
		d.x.broken = true
	}
	return n, err
}

// upload is a request's body: it notes why it ended early, and gives the client
// a limited time for each piece.
type upload struct {
	inner io.ReadCloser
	conn  *http.ResponseController
	stall time.Duration
	read  atomic.Bool
	err   atomic.Pointer[error]
}

func (u *upload) Read(b []byte) (int, error) {
	u.read.Store(true)
	_ = u.conn.SetReadDeadline(time.Now().Add(u.stall))
	n, err := u.inner.Read(b)
	switch err {
	case nil:
	case io.EOF: // the connection's next read waits for the client to leave, however long the answer takes
		_ = u.conn.SetReadDeadline(time.Time{})
	default:
		u.err.Store(&err)
	}
	return n, err
}

// Close leaves an untouched body open, so that the request can be tried again;
// the HTTP server closes it in the end.
func (u *upload) Close() error {
	if !u.read.Load() {
		return nil
	}
	return u.inner.Close()
}

func (u *upload) touched() bool { return u != nil && u.read.Load() }

func (u *upload) failure() error {
	if u == nil {
		return nil
	}
	if err := u.err.Load(); err != nil {
		return *err
	}
	return nil
}

// dialError is a connection that could not be made: nothing was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// newTransport returns the connections to one backend for requests that are
// not plain.
func newTransport(limits Limits) *http.Transport {
	dialer := &net.Dialer{Timeout: limits.ConnectTimeout, KeepAlive: 15 * time.Second}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, &dialError{err}
			}
			return c, nil
		},
		DisableCompression:     true,
		MaxIdleConns:           0,
		MaxIdleConnsPerHost:    maxIdleUpstreams,
		IdleConnTimeout:        upstreamIdle,
		ResponseHeaderTimeout:  limits.AnswerTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxAnswerHead,
		ForceAttemptHTTP2:      false,
	}
}

// bufferPool keeps copy buffers without an allocation for each use.
type bufferPool struct{ pool sync.Pool }

const copyBufferBytes = 32 << 10

var copyBuffers bufferPool

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[copyBufferBytes]byte); ok {
		return b[:]
	}
	return make([]byte, copyBufferBytes)
}

func (p *bufferPool) Put(b []byte) { p.pool.Put((*[copyBufferBytes]byte)(b)) }
