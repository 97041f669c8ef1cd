package host

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/remote"
)

// Run is a whole host: a supervisor and its connection to the server. It
// enrols first when Dir has no certificate yet, and returns an error when that
// is refused. Afterwards nothing the server says or fails to say ends it:
// programs and traffic are kept until ctx ends, and go on after that.
func Run(ctx context.Context, o Options) error {
	o = o.withDefaults()
	l, err := openLayout(o.Dir, o.User)
	if err != nil {
		return delivery.Wrap(delivery.CodeInternal, err, "The host's data directory %s can't be used (%v).", o.Dir, err)
	}
	client, err := remote.NewClient(remote.ClientOptions{
		Server: o.Server, Name: o.Name, Dir: l.identity(), Token: o.Token, Log: o.Log, Now: o.Now, Tick: o.Tick,
	})
	if err != nil {
		return err
	}
	if o.Artifacts == nil {
		o.Artifacts = client
	}
	s, err := New(o)
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var both sync.WaitGroup
	both.Go(func() { _ = s.Run(ctx) }) // it ends with ctx only
	both.Go(func() { connect(ctx, cancel, client, s, o) })
	both.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// refusedWait is the pause after the server refused an enrolled host.
const refusedWait = 30 * time.Second

// connect keeps the connection to the server.
func connect(ctx context.Context, cancel context.CancelCauseFunc, client *remote.Client, s *Supervisor, o Options) {
	for {
		enrolled, err := client.Enrolled()
		if err == nil {
			err = client.Run(ctx, s)
		}
		if ctx.Err() != nil {
			return
		}
		if now, _ := client.Enrolled(); !enrolled && !now {
			cancel(err)
			return
		}
		o.Log.Error("the server refuses this host; programs and traffic go on", "error", err)
		timer := time.NewTimer(refusedWait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

var (
	_ remote.Machine = (*Supervisor)(nil)
	_ Artifacts      = (*remote.Client)(nil)
)
