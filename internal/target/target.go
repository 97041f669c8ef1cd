// Package target is the port through which effects reach a target that this
// process can reach itself. Targets with an agent of their own (hosts) do not
// implement it on the server: they fetch their effects through
// internal/remote, and this package's conformance suite (targettest) runs
// against the host's side.
//
// Start reading at [Target].
package target

import (
	"context"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Target does effects and says what is there.
type Target interface {
	// Do performs one effect within 30 s and returns its result. It is
	// idempotent by the effect's key: a key that was done before is answered
	// with the first result and Already set, and nothing is changed. A token
	// lower than one seen for the placement is answered with a terminal
	// failure and nothing is changed. An error means that it is not known
	// whether the effect was done; the caller repeats it with the same key.
	Do(ctx context.Context, e delivery.Effect) (delivery.Result, error)

	// Report says all that runs on the target for Tidegate.
	Report(ctx context.Context) (delivery.Report, error)
}
