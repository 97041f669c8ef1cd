package proxy

import (
	"cmp"
	"log/slog"
	"net/netip"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Options says how a proxy process runs. Dir, Socket and Log are required;
// everything else has a default.
type Options struct {
	Dir    string       // the last configuration is kept here, for a restart; made with mode 0700
	Socket string       // path of the admin socket, made with mode 0600; at most 100 bytes, in a directory that is there
	Log    *slog.Logger // never gets requests' contents
	Limits Limits
	// TrustedProxies are the peers whose X-Forwarded-For, -Host and -Proto are
	// kept and extended; those of others are dropped. Nil: loopback, where a
	// TLS terminator of the same machine is.
	TrustedProxies []netip.Prefix
}

// Limits bounds what one client or one backend can take. Zero values mean the
// defaults.
type Limits struct {
	HeaderBytes    int           // of a request's head; default 64 KiB, answered with 431
	BodyBytes      int64         // of a request's body; default 1 GiB, answered with 413
	HeaderTimeout  time.Duration // for a request's head to be read; default 10s
	StallTimeout   time.Duration // without progress in a request's body or an answer's bytes to the client; default 60s
	IdleTimeout    time.Duration // of a kept-alive connection; default 2m
	ConnectTimeout time.Duration // to a backend; default 5s
	AnswerTimeout  time.Duration // until a backend's answer begins; default 2m, answered with 504
	DrainLimit     time.Duration // for requests under way when a process hands over or ends; default 30s
	Linger         time.Duration // how long a door that was closed keeps idle connections, whose next request it still answers; default 5s
	Gone           time.Duration // how long the counts of a workload are kept after it left the configuration; default 15m
}

func (l Limits) withDefaults() Limits {
	l.HeaderBytes = cmp.Or(l.HeaderBytes, 64<<10)
	l.BodyBytes = cmp.Or(l.BodyBytes, 1<<30)
	l.HeaderTimeout = cmp.Or(l.HeaderTimeout, 10*time.Second)
	l.StallTimeout = cmp.Or(l.StallTimeout, 60*time.Second)
	l.IdleTimeout = cmp.Or(l.IdleTimeout, 2*time.Minute)
	l.ConnectTimeout = cmp.Or(l.ConnectTimeout, 5*time.Second)
	l.AnswerTimeout = cmp.Or(l.AnswerTimeout, 2*time.Minute)
	l.DrainLimit = cmp.Or(l.DrainLimit, 30*time.Second)
	l.Linger = cmp.Or(l.Linger, 5*time.Second)
	l.Gone = cmp.Or(l.Gone, 15*time.Minute)
	return l
}

// maxSocketPath is what fits into a socket address on every system.
const maxSocketPath = 100

func (o Options) check() error {
	switch {
	case o.Dir == "":
		return delivery.Errorf(delivery.CodeInvalid, "The proxy has no directory: name one with --dir.")
	case o.Socket == "":
		return delivery.Errorf(delivery.CodeInvalid, "The proxy has no admin socket: give it a path.")
	case len(o.Socket) > maxSocketPath:
		return delivery.Errorf(delivery.CodeInvalid, "The path of the proxy's admin socket, %s, is longer than %d bytes: choose a shorter directory.", o.Socket, maxSocketPath)
	case o.Log == nil:
		return delivery.Errorf(delivery.CodeInternal, "The proxy has no log.")
	}
	return nil
}
