package remote

import (
	"context"
	"io"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Backend is what the server half needs of the server: [StoreBackend] is the
// one over internal/store. Methods are called concurrently. Host names have
// been authenticated before any method but Enrol and Known is called. Errors
// are [delivery.Error]; unavailable makes the machine try again later.
type Backend interface {
	// Targets returns the names of the targets that the host answers for.
	Targets(ctx context.Context, host string) ([]string, error)
	// Effects returns the pending effects of the host's own targets, with
	// current fencing tokens, in the order in which they were committed.
	Effects(ctx context.Context, host string) ([]delivery.Effect, error)
	// Deliver records results and reports. Results of effects that are not
	// pending on this host, and what a report says of targets or placements
	// that are not the host's, are dropped without an error: the machine must
	// not send them for ever.
	Deliver(ctx context.Context, host string, results []delivery.Result, reports []delivery.Report) error
	// Artifact opens an artifact and returns its size in bytes; not_found if there is none.
	Artifact(ctx context.Context, d delivery.Digest) (io.ReadSeekCloser, int64, error)
	// Enrol spends an enrolment token and records the host, both or neither.
	// The same token with the same key again is the same enrolment (its answer
	// was lost); with another key it is denied.
	Enrol(ctx context.Context, e Enrolment) error
	// Known reports whether that is the host's current certificate (hexadecimal
	// SHA-256 of its DER). A host that was removed has none.
	Known(ctx context.Context, host, certificate string) (bool, error)
	// Replace makes next the host's certificate if previous is; conflict otherwise.
	Replace(ctx context.Context, host, previous, next string) error
	// Changed returns a channel that gets a value or is closed when there may
	// be new effects for some host; the same one for calls with one ctx. It may
	// miss some: the server looks again every second.
	Changed(ctx context.Context) <-chan struct{}
}

// Enrolment is a machine's request to become a host.
type Enrolment struct {
	TokenHash   string // as [HashToken] makes it
	Name        string // of the host; a DNS label
	Key         string // hexadecimal SHA-256 of its public key
	Certificate string // hexadecimal SHA-256 of the certificate it will get
}

// Machine is what the client half needs of the machine it runs on.
type Machine interface {
	// Do performs one effect as [target.Target] says: idempotent by key,
	// within 30 s; an error means that it is not known whether it was done.
	Do(ctx context.Context, e delivery.Effect) (delivery.Result, error)
	// SetTargets tells the names that the machine answers for.
	SetTargets(names []string)
	// Reports returns the present report of every target.
	Reports(ctx context.Context) ([]delivery.Report, error)
	// Changed returns a channel that is closed at the next change that the
	// server should hear of at once (readiness, weights, a task's end).
	Changed() <-chan struct{}
	// Logs reads the output of instances.
	Logs(ctx context.Context, q LogQuery) ([]LogLine, error)
}
