package proxy

import (
	"log/slog"
	"net/netip"
	"time"
)

// Options says how a proxy process runs. Dir, Socket and Log are required;
// everything else has a default.
type Options struct {
	Dir    string       // the last configuration is kept here, for a restart; made with mode 0700
	Socket string       // path of the admin socket, made with mode 0600; at most 100 bytes
	Log    *slog.Logger // never gets request contents
	Limits Limits
	// TrustedProxies are the peers whose X-Forwarded-For, -Host and -Proto are
	// kept and extended; those of others are dropped. Default: loopback, where
	// a TLS terminator of the same machine is.
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
	Linger         time.Duration // how long a process that handed over keeps idle connections, whose next request it still answers; default 5s
	Gone           time.Duration // how long the counts of a workload are kept after it left the configuration; default 15m
}
