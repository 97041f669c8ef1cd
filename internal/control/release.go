package control

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// UploadArtifact stores an artifact.
func (c *Control) UploadArtifact(ctx context.Context, actor delivery.Actor, r io.Reader, want delivery.Digest) (delivery.Artifact, error) {
	if err := c.may(ctx, actor, OpRelease); err != nil {
		return delivery.Artifact{}, err
	}
	return c.o.Artifacts.Put(ctx, r, want, 0)
}

// Artifact says what is stored under a digest.
func (c *Control) Artifact(ctx context.Context, actor delivery.Actor, d delivery.Digest) (delivery.Artifact, error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return delivery.Artifact{}, err
	}
	return c.o.Artifacts.Stat(d)
}

// CreateRelease makes a release of the application's document as it is now.
func (c *Control) CreateRelease(ctx context.Context, actor delivery.Actor, project, application string, n wire.NewRelease) (delivery.Release, error) {
	if err := c.may(ctx, actor, OpRelease); err != nil {
		return delivery.Release{}, err
	}
	if n.Version == "" || len(n.Version) > 100 || strings.ContainsAny(n.Version, " @/#?\t\r\n") || strings.HasPrefix(n.Version, "sha256:") {
		return delivery.Release{}, delivery.Errorf(delivery.CodeInvalid, "The version %q is not valid: use up to 100 characters without spaces, @, /, # and ?.", n.Version)
	}
	o, err := c.o.Store.Object(ctx, delivery.KindApplication, project, application)
	if err != nil {
		return delivery.Release{}, err
	}
	var app delivery.Application
	if err := json.Unmarshal(o.Spec, &app); err != nil {
		return delivery.Release{}, delivery.Wrap(delivery.CodeInternal, err, "The application %s can't be read.", application)
	}
	r := delivery.Release{
		Project: project, Application: application, Version: n.Version, Before: app.Before, After: app.After,
		Ordered: app.Ordered, OnFailure: app.OnFailure, Source: n.Source, Labels: n.Labels,
	}
	slices.Sort(r.Source.Authors)
	for i, s := range app.Services {
		a, err := c.artifactOf(ctx, s.Name, n)
		if err != nil {
			return delivery.Release{}, err
		}
		rs := delivery.ReleaseService{Service: s, Artifact: a}
		if app.Ordered {
			rs.Order = i
		}
		r.Services = append(r.Services, rs)
	}
	for name := range n.Artifacts {
		if name != "" && !slices.ContainsFunc(app.Services, func(s delivery.Service) bool { return s.Name == name }) {
			return delivery.Release{}, delivery.Errorf(delivery.CodeInvalid, "Application %s has no service %q.", application, name)
		}
	}
	slices.SortFunc(r.Services, func(a, b delivery.ReleaseService) int { return strings.Compare(a.Name, b.Name) })
	r.Digest = r.ComputeDigest()
	return c.storeRelease(ctx, actor, r)
}

func (c *Control) storeRelease(ctx context.Context, actor delivery.Actor, r delivery.Release) (delivery.Release, error) {
	if old, err := c.o.Store.Release(ctx, r.Digest); err == nil {
		return old, nil
	}
	if old, err := c.o.Store.ReleaseByVersion(ctx, r.Project, r.Application, r.Version); err == nil {
		return r, delivery.Errorf(delivery.CodeConflict, "Version %s of %s is release %s already, with other content: releases are immutable; choose another version.", r.Version, r.Application, old.Digest.Short())
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return r, err
	}
	r.CreatedAt, r.CreatedBy = now, actor
	e := c.event(delivery.EventReleaseCreated, delivery.PlacementKey{Project: r.Project, Application: r.Application}, actor, now, "Release %s is %s.", r.Reference(), r.Digest.Short())
	e.Release, e.Version = r.Digest, r.Version
	_, err = c.o.Store.Commit(ctx, store.Change{Releases: []delivery.Release{r}, Events: []delivery.Event{e}})
	return r, err
}

func (c *Control) artifactOf(ctx context.Context, service string, n wire.NewRelease) (delivery.Artifact, error) {
	a, ok := n.Artifacts[service]
	if !ok {
		a, ok = n.Artifacts[""]
	}
	if !ok {
		return delivery.Artifact{}, delivery.Errorf(delivery.CodeInvalid, "Service %s has no artifact: add --artifact %s=FILE.", service, service)
	}
	if a.URL != "" {
		return c.o.Artifacts.Fetch(ctx, a.URL, a.Digest)
	}
	return c.o.Artifacts.Stat(a.Digest)
}

// Releases lists an application's releases, newest first.
func (c *Control) Releases(ctx context.Context, actor delivery.Actor, project, application string, p wire.Page) (wire.List[delivery.Release], error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return wire.List[delivery.Release]{}, err
	}
	items, next, err := c.o.Store.Releases(ctx, project, application, page(p))
	return wire.List[delivery.Release]{Items: items, Next: next}, err
}

// Release finds a release by version, digest or the beginning of one.
func (c *Control) Release(ctx context.Context, actor delivery.Actor, project, application, reference string) (delivery.Release, error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return delivery.Release{}, err
	}
	return c.release(ctx, project, application, reference)
}
