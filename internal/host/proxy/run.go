package proxy

import (
	"context"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Run serves until ctx ends or a new process has taken over. It starts with
// the configuration saved in Dir, so that it serves at once after a crash; when
// another proxy answers on Socket, it takes over that one's sockets,
// configuration and counts instead. It returns nil after an orderly end.
func Run(ctx context.Context, o Options) error {
	return delivery.Errorf(delivery.CodeInternal, "The proxy is not built yet.")
}
