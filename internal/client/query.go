package client

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Overview returns an application at this moment; with forecast also what its
// newest release that is under way has to expect.
func (c *Client) Overview(ctx context.Context, project, application string, forecast bool) (wire.Overview, error) {
	q := values()
	if forecast {
		q.Set("forecast", "true")
	}
	return get[wire.Overview](ctx, c, path("projects", project, "applications", application, "status"), q)
}

// Overviews returns every application of a project, by name.
func (c *Client) Overviews(ctx context.Context, project string, p wire.Page) (wire.List[wire.Overview], error) {
	return get[wire.List[wire.Overview]](ctx, c, path("projects", project, "status"), withPage(values(), p))
}

// Placement returns an application in one environment at this moment.
func (c *Client) Placement(ctx context.Context, key delivery.PlacementKey) (wire.PlacementStatus, error) {
	return get[wire.PlacementStatus](ctx, c, pathOf(key, "status"), nil)
}

// Deployments lists deployments, newest first.
func (c *Client) Deployments(ctx context.Context, q wire.DeploymentQuery, p wire.Page) (wire.List[delivery.Deployment], error) {
	v := values("project", q.Project, "application", q.Application, "environment", q.Environment, "release", string(q.Release))
	if q.Active {
		v.Set("active", "true")
	}
	return get[wire.List[delivery.Deployment]](ctx, c, "/deployments", withPage(v, p))
}

// Deployment returns a deployment as it is now.
func (c *Client) Deployment(ctx context.Context, id delivery.ID) (delivery.Deployment, error) {
	return get[delivery.Deployment](ctx, c, path("deployments", string(id)), nil)
}

// Turns returns the recorded turns of a deployment, oldest first.
func (c *Client) Turns(ctx context.Context, id delivery.ID) (wire.List[json.RawMessage], error) {
	return get[wire.List[json.RawMessage]](ctx, c, path("deployments", string(id), "turns"), nil)
}

// Plan returns a plan by its digest.
func (c *Client) Plan(ctx context.Context, d delivery.Digest) (delivery.Plan, error) {
	return get[delivery.Plan](ctx, c, path("plans", string(d)), nil)
}

// Why returns every gate's verdict on a release, or with release "" on the
// deployment that waits or runs.
func (c *Client) Why(ctx context.Context, key delivery.PlacementKey, release string) (wire.Why, error) {
	return get[wire.Why](ctx, c, pathOf(key, "why"), values("release", release))
}

// When returns the earliest time at which a release, or with release "" the
// deployment that waits, could start.
func (c *Client) When(ctx context.Context, key delivery.PlacementKey, release string) (wire.When, error) {
	return get[wire.When](ctx, c, pathOf(key, "when"), values("release", release))
}

// Forecast returns what every environment of the path would say of a release;
// "" is the newest one.
func (c *Client) Forecast(ctx context.Context, project, application, release string) (wire.ForecastOfRelease, error) {
	return get[wire.ForecastOfRelease](ctx, c, path("projects", project, "applications", application, "forecast"), values("release", release))
}

// DryRun returns what promoting a release would do.
func (c *Client) DryRun(ctx context.Context, key delivery.PlacementKey, release string) (wire.DryRun, error) {
	return get[wire.DryRun](ctx, c, pathOf(key, "plan"), values("release", release))
}

// Diff compares what runs in an environment with something else.
func (c *Client) Diff(ctx context.Context, key delivery.PlacementKey, q wire.DiffQuery) (wire.Diff, error) {
	return get[wire.Diff](ctx, c, pathOf(key, "diff"), values("release", q.Release, "with", q.With))
}

// Logs returns the last lines of a placement's instances.
func (c *Client) Logs(ctx context.Context, key delivery.PlacementKey, q wire.LogQuery) (wire.List[wire.LogLine], error) {
	v := values("service", q.Service, "target", q.Target, "release", q.Release)
	if q.Lines != 0 {
		v.Set("lines", fmt.Sprint(q.Lines))
	}
	return get[wire.List[wire.LogLine]](ctx, c, pathOf(key, "logs"), v)
}

// Inventory returns what runs where, now or at a past moment.
func (c *Client) Inventory(ctx context.Context, q wire.InventoryQuery, p wire.Page) (wire.List[delivery.InventoryEntry], error) {
	v := values("project", q.Project, "application", q.Application, "environment", q.Environment, "artifact", string(q.Artifact))
	if !q.At.IsZero() {
		v.Set("at", q.At.Format(time.RFC3339Nano))
	}
	if q.History {
		v.Set("history", "true")
	}
	return get[wire.List[delivery.InventoryEntry]](ctx, c, "/inventory", withPage(v, p))
}

// Decisions lists the recorded policy decisions of a project, newest first,
// without their inputs.
func (c *Client) Decisions(ctx context.Context, project string, p wire.Page) (wire.List[delivery.Decision], error) {
	return get[wire.List[delivery.Decision]](ctx, c, path("projects", project, "decisions"), withPage(values(), p))
}

// Decision returns a recorded policy decision with its input.
func (c *Client) Decision(ctx context.Context, id delivery.ID) (delivery.Decision, error) {
	return get[delivery.Decision](ctx, c, path("decisions", string(id)), nil)
}
