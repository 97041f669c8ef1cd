package api

import (
	"context"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/control"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// post makes a route under an environment whose body is a T.
func post[T, A any](verb, summary string, do func(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, v T) (A, error)) Route {
	return Route{Method: "POST", Pattern: environment + "/" + verb, Access: ByToken, Summary: summary, do: func(q request) (any, error) {
		v, err := decode[T](q)
		if err != nil {
			return nil, err
		}
		return do(q.Context(), q.actor, q.key(), v)
	}}
}

func (a *API) placementRoutes(c *control.Control) []Route {
	act := func(kind delivery.CommandKind, summary string) Route {
		return post(string(kind), summary, func(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, v wire.Act) (wire.Accepted, error) {
			return c.Act(ctx, actor, kind, key, v)
		})
	}
	decideOn := func(verb, summary string, reject bool) Route {
		return post(verb, summary, func(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, v wire.Approve) (wire.Accepted, error) {
			return c.Approve(ctx, actor, key, v, reject)
		})
	}
	quarantine := func(pattern, verb, summary string, lift bool) Route {
		r := post(verb, summary, func(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, v wire.Quarantine) (wire.Accepted, error) {
			return c.Quarantine(ctx, actor, key, v, lift)
		})
		r.Pattern = pattern + "/" + verb
		return r
	}
	return []Route{
		post("promote", "Ask that a release goes there", c.Promote),
		post("rollback", "Go back", c.Rollback),
		act(delivery.CommandAbort, "End the deployment and return to the stable version"),
		act(delivery.CommandPause, "Make no further move"),
		act(delivery.CommandResume, "End a pause"),
		act(delivery.CommandComplete, "Promote fully now"),
		act(delivery.CommandRetry, "Try again what needs a person"),
		act(delivery.CommandConfirm, "A manual task is done"),
		act(delivery.CommandUnpin, "Lift a pin"),
		act(delivery.CommandUnhold, "Lift a hold"),
		decideOn("approve", "Approve a plan", false),
		decideOn("reject", "Reject a plan", true),
		post("pin", "Keep it on a release", c.Pin),
		post("hold", "Stop promotions", c.Hold),
		quarantine(environment, "quarantine", "Refuse a release there", false),
		quarantine(environment, "lift", "End a quarantine there", true),
		quarantine(application, "quarantine", "Refuse a release everywhere", false),
		quarantine(application, "lift", "End a quarantine everywhere", true),
	}
}

// get makes a route under an environment that answers a question about a release.
func get[A any](verb, summary string, do func(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey, release string) (A, error)) Route {
	return Route{Method: "GET", Pattern: environment + "/" + verb, Access: ByToken, Summary: summary, do: func(q request) (any, error) {
		return do(q.Context(), q.actor, q.key(), q.URL.Query().Get("release"))
	}}
}

func (a *API) queryRoutes(c *control.Control) []Route {
	return []Route{
		get("why", "Every gate's verdict", c.Why),
		get("when", "The earliest time at which it could start", c.When),
		get("plan", "What a promotion would do", c.DryRun),
		{Method: "GET", Pattern: environment + "/diff", Access: ByToken, Summary: "Compare what runs", do: func(q request) (any, error) {
			return c.Diff(q.Context(), q.actor, q.key(), wire.DiffQuery{Release: q.URL.Query().Get("release"), With: q.URL.Query().Get("with")})
		}},
		{Method: "GET", Pattern: environment + "/status", Access: ByToken, Summary: "One environment of an application", do: func(q request) (any, error) { return c.Placement(q.Context(), q.actor, q.key()) }},
		{Method: "GET", Pattern: environment + "/logs", Access: ByToken, Summary: "Last lines of its instances", do: func(q request) (any, error) {
			lines, err := number(q, "lines")
			if err != nil {
				return nil, err
			}
			v := q.URL.Query()
			return c.Logs(q.Context(), q.actor, q.key(), wire.LogQuery{Service: v.Get("service"), Target: v.Get("target"), Release: v.Get("release"), Lines: int(lines)})
		}},
		{Method: "GET", Pattern: application + "/status", Access: ByToken, Summary: "Every environment of an application", do: func(q request) (any, error) {
			return c.Overview(q.Context(), q.actor, q.PathValue("project"), q.PathValue("application"), q.URL.Query().Get("forecast") != "")
		}},
		{Method: "GET", Pattern: project + "/status", Access: ByToken, Summary: "Every application", do: func(q request) (any, error) {
			p, err := pageOf(q)
			if err != nil {
				return nil, err
			}
			return c.Overviews(q.Context(), q.actor, q.PathValue("project"), p)
		}},
		{Method: "GET", Pattern: application + "/forecast", Access: ByToken, Summary: "What every environment would say of a release", do: func(q request) (any, error) {
			return c.Forecast(q.Context(), q.actor, q.PathValue("project"), q.PathValue("application"), q.URL.Query().Get("release"))
		}},
		{Method: "GET", Pattern: v1 + "/deployments", Access: ByToken, Summary: "List deployments", do: func(q request) (any, error) {
			p, err := pageOf(q)
			if err != nil {
				return nil, err
			}
			v := q.URL.Query()
			return c.Deployments(q.Context(), q.actor, wire.DeploymentQuery{Project: v.Get("project"), Application: v.Get("application"), Environment: v.Get("environment"), Release: delivery.Digest(v.Get("release")), Active: v.Get("active") == "true"}, p)
		}},
		{Method: "GET", Pattern: v1 + "/deployments/{id}", Access: ByToken, Summary: "One deployment", do: func(q request) (any, error) {
			return c.Deployment(q.Context(), q.actor, delivery.ID(q.PathValue("id")))
		}},
		{Method: "GET", Pattern: v1 + "/deployments/{id}/turns", Access: ByToken, Summary: "Recorded turns of a deployment", do: func(q request) (any, error) { return c.Turns(q.Context(), q.actor, delivery.ID(q.PathValue("id"))) }},
		{Method: "GET", Pattern: v1 + "/plans/{digest}", Access: ByToken, Summary: "One plan", do: func(q request) (any, error) {
			return c.Plan(q.Context(), q.actor, delivery.Digest(q.PathValue("digest")))
		}},
		{Method: "GET", Pattern: v1 + "/inventory", Access: ByToken, Summary: "What runs where, as of when", do: func(q request) (any, error) {
			p, err := pageOf(q)
			at, err2 := moment(q, "at")
			if err := first(err, err2); err != nil {
				return nil, err
			}
			v := q.URL.Query()
			return c.Inventory(q.Context(), q.actor, wire.InventoryQuery{Project: v.Get("project"), Application: v.Get("application"), Environment: v.Get("environment"), Artifact: delivery.Digest(v.Get("artifact")), At: at, History: v.Get("history") == "true"}, p)
		}},
		{Method: "GET", Pattern: project + "/decisions", Access: ByToken, Summary: "Policy decisions", do: func(q request) (any, error) {
			p, err := pageOf(q)
			if err != nil {
				return nil, err
			}
			return c.Decisions(q.Context(), q.actor, q.PathValue("project"), p)
		}},
		{Method: "GET", Pattern: v1 + "/decisions/{id}", Access: ByToken, Summary: "One policy decision with its input", do: func(q request) (any, error) {
			return c.Decision(q.Context(), q.actor, delivery.ID(q.PathValue("id")))
		}},
	}
}
