// Command tidegate is the whole of Tidegate: server, host, command line and demo.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/tidegate-cd/tidegate/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
