package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// follow shows a deployment's events until it ends.
func (d *demo) follow(ctx context.Context, id delivery.ID) (delivery.Deployment, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	from := int64(-1)
	for e, err := range d.ben.Events(ctx, wire.EventQuery{Deployment: id, After: &from}) {
		if err != nil {
			return delivery.Deployment{}, err
		}
		d.show(e)
		if e.Type == delivery.EventDeploymentDenied || e.Type == delivery.EventDeploymentSuperseded ||
			e.Type == delivery.EventDeploymentSucceeded || e.Type == delivery.EventDeploymentRolledBack ||
			e.Type == delivery.EventDeploymentAborted || e.Type == delivery.EventDeploymentFailed {
			return d.ben.Deployment(ctx, id)
		}
	}
	x, err := d.ben.Deployment(context.WithoutCancel(ctx), id)
	if err != nil {
		return x, err
	}
	return x, delivery.Errorf(delivery.CodeUnavailable, "Release %s in %s did not end within %s; it is %s: %s %s", x.Version, x.Key.Environment, patience, x.Phase, x.Message, steps(x))
}

func steps(x delivery.Deployment) string {
	text := ""
	for _, s := range x.Steps {
		text += fmt.Sprintf("[%s %s at %d %%: %s]", s.Name, s.Phase, s.Weight, s.Message)
	}
	return text
}

func (d *demo) show(e wire.Event) {
	if d.o.JSON {
		json.NewEncoder(d.o.Out).Encode(e) // an event that came as JSON
		return
	}
	line := fmt.Sprintf("  %s %-11s %s", e.At.Local().Format("15:04:05"), e.Environment, e.Message)
	if e.Type == delivery.EventStepWeight && d.load.running() {
		var w struct{ Weight int }
		if json.Unmarshal(e.Data, &w) == nil {
			line += "  " + bar(w.Weight)
		}
	}
	fmt.Fprintln(d.o.Out, line)
}

// bar draws a share of 100.
func bar(percent int) string {
	const width = 20
	full := percent * width / 100
	b := make([]rune, width)
	for i := range b {
		b[i] = '·'
		if i < full {
			b[i] = '█'
		}
	}
	return "[" + string(b) + "]"
}

// until asks again and again until done.
func (d *demo) until(ctx context.Context, what string, done func() (bool, error)) error {
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		ok, err := done()
		if err != nil && delivery.ErrorCode(err) != delivery.CodeUnavailable || ok {
			return err
		}
		if err := rest(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return delivery.Errorf(delivery.CodeUnavailable, "The demo waited for %s in vain.", what)
}

func rest(ctx context.Context, span time.Duration) error {
	t := time.NewTimer(span)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return delivery.Wrap(delivery.CodeUnavailable, ctx.Err(), "The demo was interrupted.")
	}
}
