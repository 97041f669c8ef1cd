package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/tidegate-cd/tidegate/internal/client"
	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// watch follows a deployment until it ends: its events as they come, as text
// or as JSON lines. The error is errUnsuccessful unless it succeeded.
func (e *Env) watch(ctx context.Context, c *client.Client, id delivery.ID) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	from := int64(-1)
	for event, err := range c.Events(ctx, wire.EventQuery{Deployment: id, After: &from}) {
		if err != nil {
			return err
		}
		if err := e.print(event, func(w io.Writer) { printEvent(w, event.Event) }); err != nil {
			return err
		}
		if phase, ended := endOf(event.Type); ended {
			if phase == delivery.PhaseSucceeded {
				return nil
			}
			return errUnsuccessful
		}
	}
	return delivery.Wrap(delivery.CodeUnavailable, ctx.Err(), "Watching was given up; the deployment goes on. See 'tidegate history'.")
}

// endOf returns the phase in which an event ends a deployment.
func endOf(t delivery.EventType) (delivery.Phase, bool) {
	switch t {
	case delivery.EventDeploymentSucceeded:
		return delivery.PhaseSucceeded, true
	case delivery.EventDeploymentRolledBack:
		return delivery.PhaseRolledBack, true
	case delivery.EventDeploymentAborted:
		return delivery.PhaseAborted, true
	case delivery.EventDeploymentFailed:
		return delivery.PhaseFailed, true
	case delivery.EventDeploymentDenied:
		return delivery.PhaseDenied, true
	case delivery.EventDeploymentSuperseded:
		return delivery.PhaseSuperseded, true
	}
	return "", false
}

func printEvent(w io.Writer, event delivery.Event) {
	fmt.Fprintf(w, "%s  %-12s %s\n", event.At.Local().Format(time.TimeOnly), event.Environment, event.Message)
}
