package control

import (
	"context"
	"encoding/json"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// Overview says what an application is like in every environment of its path.
// With a forecast it also says what they would say of the newest release.
func (c *Control) Overview(ctx context.Context, actor delivery.Actor, project, application string, forecast bool) (wire.Overview, error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return wire.Overview{}, err
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return wire.Overview{}, err
	}
	object, err := c.o.Store.Object(ctx, delivery.KindApplication, project, application)
	if err != nil {
		return wire.Overview{}, err
	}
	app, err := c.o.Facts.Application(ctx, project, application)
	if err != nil {
		return wire.Overview{}, err
	}
	o := wire.Overview{Project: project, Application: application, Description: app.Description, Revision: object.Revision, At: now}
	reports, err := c.o.Store.Reports(ctx)
	if err != nil {
		return o, err
	}
	for _, step := range app.Path {
		one, err := c.placementStatus(ctx, delivery.PlacementKey{Project: project, Application: application, Environment: step.Environment}, step, reports)
		if err != nil {
			return o, err
		}
		o.Environments = append(o.Environments, one)
	}
	releases, _, err := c.o.Store.Releases(ctx, project, application, store.Page{Limit: 1})
	if err != nil || len(releases) == 0 {
		return o, err
	}
	r := releases[0]
	o.Latest = &wire.ReleaseName{Digest: r.Digest, Version: r.Version, CreatedAt: r.CreatedAt}
	if forecast {
		f, err := c.forecast(ctx, actor, r)
		if err != nil {
			return o, err
		}
		o.Forecast = &f
	}
	return o, nil
}

// Overviews lists the applications of a project.
func (c *Control) Overviews(ctx context.Context, actor delivery.Actor, project string, p wire.Page) (wire.List[wire.Overview], error) {
	list := wire.List[wire.Overview]{Items: []wire.Overview{}}
	objects, err := c.Objects(ctx, actor, project, delivery.KindApplication, p)
	if err != nil {
		return list, err
	}
	list.Next = objects.Next
	for _, o := range objects.Items {
		one, err := c.Overview(ctx, actor, project, o.Name, false)
		if err != nil {
			return list, err
		}
		list.Items = append(list.Items, one)
	}
	return list, nil
}

// Placement says what an application is like in one environment.
func (c *Control) Placement(ctx context.Context, actor delivery.Actor, key delivery.PlacementKey) (wire.PlacementStatus, error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return wire.PlacementStatus{}, err
	}
	_, step, err := c.onPath(ctx, key)
	if err != nil {
		return wire.PlacementStatus{}, err
	}
	reports, err := c.o.Store.Reports(ctx)
	if err != nil {
		return wire.PlacementStatus{}, err
	}
	return c.placementStatus(ctx, key, step, reports)
}

func (c *Control) placementStatus(ctx context.Context, key delivery.PlacementKey, step delivery.PathStep, reports []delivery.Report) (wire.PlacementStatus, error) {
	p, err := c.placement(ctx, key)
	if err != nil {
		return wire.PlacementStatus{}, err
	}
	e, err := c.o.Facts.Environment(ctx, key.Project, key.Environment)
	if err != nil {
		return wire.PlacementStatus{}, err
	}
	s := wire.PlacementStatus{
		Environment: key.Environment, Class: e.Class, After: step.After, Promotion: step.Promotion, Targets: e.Targets,
		Stable: p.Stable, Earlier: p.Earlier, Active: p.Active, Queue: p.Queue, Pin: p.Pin, Hold: p.Hold, Quarantine: p.Quarantine,
	}
	for _, r := range reports {
		for _, status := range r.Services {
			if status.Placement == key {
				s.Services = append(s.Services, serviceStatus(r, status))
			}
		}
	}
	last, _, err := c.o.Store.Deployments(ctx, store.DeploymentFilter{Project: key.Project, Application: key.Application, Environment: key.Environment}, store.Page{Limit: 5})
	for i := range last {
		if last[i].Phase.Terminal() {
			s.Last = &last[i]
			break
		}
	}
	return s, err
}

func serviceStatus(r delivery.Report, status delivery.ServiceStatus) wire.ServiceStatus {
	one := wire.ServiceStatus{Service: status.Service, Target: r.Target, Address: status.Listen, At: r.At}
	for _, w := range status.Workloads {
		percent, _ := status.Percent(w.Workload)
		one.Workloads = append(one.Workloads, wire.WorkloadStatus{WorkloadStatus: w, Percent: percent})
	}
	return one
}

// hostOf names the host that answers for a target.
func (c *Control) hostOf(ctx context.Context, project, target string) (string, error) {
	o, err := c.o.Store.Object(ctx, delivery.KindTarget, project, target)
	if delivery.ErrorCode(err) == delivery.CodeNotFound {
		return delivery.Target{}.WithDefaults(target).Host, nil
	}
	if err != nil {
		return "", err
	}
	var t delivery.Target
	if err := json.Unmarshal(o.Spec, &t); err != nil {
		return "", delivery.Wrap(delivery.CodeInternal, err, "The target %s can't be read.", target)
	}
	return t.WithDefaults(target).Host, nil
}
