package client

import (
	"context"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Promote asks that a release goes to an environment. Denied, with the
// verdicts, when a policy, a pin, a hold or a quarantine refuses it at once.
func (c *Client) Promote(ctx context.Context, key delivery.PlacementKey, p wire.Promote) (wire.Requested, error) {
	return post[wire.Requested](ctx, c, pathOf(key, "promote"), p)
}

// Rollback asks to go back.
func (c *Client) Rollback(ctx context.Context, key delivery.PlacementKey, r wire.Rollback) (wire.Requested, error) {
	return post[wire.Requested](ctx, c, pathOf(key, "rollback"), r)
}

// Abort ends the active deployment and returns to the stable version, or
// cancels a queued one.
func (c *Client) Abort(ctx context.Context, key delivery.PlacementKey, a wire.Act) (wire.Accepted, error) {
	return post[wire.Accepted](ctx, c, pathOf(key, "abort"), a)
}

// Pause stops further moves of the active deployment.
func (c *Client) Pause(ctx context.Context, key delivery.PlacementKey, a wire.Act) (wire.Accepted, error) {
	return post[wire.Accepted](ctx, c, pathOf(key, "pause"), a)
}

// Resume ends a pause.
func (c *Client) Resume(ctx context.Context, key delivery.PlacementKey, a wire.Act) (wire.Accepted, error) {
	return post[wire.Accepted](ctx, c, pathOf(key, "resume"), a)
}

// Complete promotes the active deployment fully, without further looks.
func (c *Client) Complete(ctx context.Context, key delivery.PlacementKey, a wire.Act) (wire.Accepted, error) {
	return post[wire.Accepted](ctx, c, pathOf(key, "complete"), a)
}

// Retry tries the failed step of a deployment that needs a person again.
func (c *Client) Retry(ctx context.Context, key delivery.PlacementKey, a wire.Act) (wire.Accepted, error) {
	return post[wire.Accepted](ctx, c, pathOf(key, "retry"), a)
}

// Confirm says that a manual task is done; the reason is its note.
func (c *Client) Confirm(ctx context.Context, key delivery.PlacementKey, a wire.Act) (wire.Accepted, error) {
	return post[wire.Accepted](ctx, c, pathOf(key, "confirm"), a)
}

// Approve approves exactly one plan.
func (c *Client) Approve(ctx context.Context, key delivery.PlacementKey, a wire.Approve) (wire.Accepted, error) {
	return post[wire.Accepted](ctx, c, pathOf(key, "approve"), a)
}

// Reject rejects exactly one plan.
func (c *Client) Reject(ctx context.Context, key delivery.PlacementKey, a wire.Approve) (wire.Accepted, error) {
	return post[wire.Accepted](ctx, c, pathOf(key, "reject"), a)
}

// Pin keeps a placement on a release.
func (c *Client) Pin(ctx context.Context, key delivery.PlacementKey, p wire.Pin) (wire.Accepted, error) {
	return post[wire.Accepted](ctx, c, pathOf(key, "pin"), p)
}

// Unpin lets go of a pin.
func (c *Client) Unpin(ctx context.Context, key delivery.PlacementKey, a wire.Act) (wire.Accepted, error) {
	return post[wire.Accepted](ctx, c, pathOf(key, "unpin"), a)
}

// Hold stops promotions to a placement.
func (c *Client) Hold(ctx context.Context, key delivery.PlacementKey, h wire.Hold) (wire.Accepted, error) {
	return post[wire.Accepted](ctx, c, pathOf(key, "hold"), h)
}

// Unhold lets promotions go on.
func (c *Client) Unhold(ctx context.Context, key delivery.PlacementKey, a wire.Act) (wire.Accepted, error) {
	return post[wire.Accepted](ctx, c, pathOf(key, "unhold"), a)
}

// Quarantine refuses a release in one environment or, with key.Environment
// empty, in every environment of the application's path.
func (c *Client) Quarantine(ctx context.Context, key delivery.PlacementKey, q wire.Quarantine) (wire.Accepted, error) {
	return post[wire.Accepted](ctx, c, quarantinePath(key, "quarantine"), q)
}

// Lift ends the quarantine of a release, where Quarantine sets it.
func (c *Client) Lift(ctx context.Context, key delivery.PlacementKey, q wire.Quarantine) (wire.Accepted, error) {
	return post[wire.Accepted](ctx, c, quarantinePath(key, "lift"), q)
}

func quarantinePath(key delivery.PlacementKey, verb string) string {
	if key.Environment == "" {
		return path("projects", key.Project, "applications", key.Application, verb)
	}
	return pathOf(key, verb)
}
