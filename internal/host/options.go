package host

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/host/proxy"
)

// Options says how a host runs. Dir is required; everything else has a default.
type Options struct {
	Dir  string // data directory, made if missing; one supervisor at a time may use it
	Name string // under which the host enrolls; default "local"

	Server string // base URL of the server's remote listener, https://host:port
	Token  string // enrolment token; needed once, until Dir has a certificate

	Targets []string // names that the host answers for until the server says otherwise; default [Name]

	// ProxyCommand is the command line that starts the proxy process; nothing
	// is appended. It must end in proxy.Run with [ProxyDir] and [ProxySocket] of
	// Dir. Without it the proxy is somebody else's to run.
	ProxyCommand []string
	ProxyEnv     []string // the proxy's environment beside PATH, "NAME=value"
	Router       Router   // default: the proxy on ProxySocket

	User      string // system user that releases run as when the supervisor is root; default nobody; "root" must be said
	Ports     Ports
	LogLimit  int64         // bytes of an instance's log file before it is rotated; two are kept; default 10 MiB
	Tick      time.Duration // how often counters are read and reports are considered; default 500ms
	BackOff   BackOff
	Now       func() time.Time // default time.Now
	Log       *slog.Logger     // default: nothing is logged
	Artifacts Artifacts        // default: from the server
}

// Router shares requests among instances: the proxy's admin interface.
type Router interface {
	Configure(ctx context.Context, c proxy.Config) error
	Status(ctx context.Context) (proxy.Status, error)
	Drain(ctx context.Context, backend string, limit time.Duration) error
}

// Ports is the range from which loopback ports are allotted, both ends
// included. The default, 20000 to 29999, lies below the ports that Linux gives
// to outgoing connections.
type Ports struct{ First, Last int }

// BackOff is how long the supervisor waits before it starts a program that
// ended again: First, doubled each time up to Max, and First again after the
// program was ready for Reset.
type BackOff struct{ First, Max, Reset time.Duration }

// Artifacts is where the host gets artifacts that it does not have yet.
type Artifacts interface {
	// Artifact opens an artifact at an offset in bytes; not_found if there is
	// none. The host checks the digest of what it reads.
	Artifact(ctx context.Context, d delivery.Digest, offset int64) (io.ReadCloser, error)
}
