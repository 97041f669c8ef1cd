package client

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Apply makes all documents the configuration, or none.
func (c *Client) Apply(ctx context.Context, project string, a wire.Apply) (wire.Applied, error) {
	return post[wire.Applied](ctx, c, path("projects", project, "apply"), a)
}

// Objects lists the objects of a kind by name.
func (c *Client) Objects(ctx context.Context, project string, kind delivery.Kind, p wire.Page) (wire.List[delivery.Object], error) {
	return get[wire.List[delivery.Object]](ctx, c, path("projects", project, "objects", string(kind)), withPage(values(), p))
}

// Object returns an object; revision 0 is the present one.
func (c *Client) Object(ctx context.Context, project string, kind delivery.Kind, name string, revision int64) (delivery.Object, error) {
	q := values()
	if revision != 0 {
		q.Set("revision", fmt.Sprint(revision))
	}
	return get[delivery.Object](ctx, c, path("projects", project, "objects", string(kind), name), q)
}

// DeleteObject deletes an object that nothing refers to; with revision not 0
// only if it is at that revision, otherwise it is a conflict.
func (c *Client) DeleteObject(ctx context.Context, project string, kind delivery.Kind, name string, revision int64) error {
	r := request{method: http.MethodDelete, path: path("projects", project, "objects", string(kind), name), header: http.Header{}}
	if revision != 0 {
		r.header.Set("If-Match", fmt.Sprintf("%q", fmt.Sprint(revision)))
	}
	return c.call(ctx, r, nil)
}

// UploadArtifact stores a file on the server. Size in bytes, -1 if it is not
// known; want "" accepts any digest. The same file again is no error.
func (c *Client) UploadArtifact(ctx context.Context, r io.Reader, size int64, want delivery.Digest) (delivery.Artifact, error) {
	var out delivery.Artifact
	err := c.call(ctx, request{method: http.MethodPost, path: "/artifacts", query: values("digest", string(want)), stream: io.NopCloser(r), size: size}, &out)
	return out, err
}

// HasArtifact reports whether the server has a file, so that it need not be sent.
func (c *Client) HasArtifact(ctx context.Context, d delivery.Digest) (bool, error) {
	err := c.call(ctx, request{method: http.MethodGet, path: path("artifacts", string(d))}, nil)
	if delivery.ErrorCode(err) == delivery.CodeNotFound {
		return false, nil
	}
	return err == nil, err
}

// CreateRelease creates a release, or returns the one of the same content.
func (c *Client) CreateRelease(ctx context.Context, project, application string, n wire.NewRelease) (delivery.Release, error) {
	return post[delivery.Release](ctx, c, path("projects", project, "applications", application, "releases"), n)
}

// Releases lists the releases of an application, newest first.
func (c *Client) Releases(ctx context.Context, project, application string, p wire.Page) (wire.List[delivery.Release], error) {
	return get[wire.List[delivery.Release]](ctx, c, path("projects", project, "applications", application, "releases"), withPage(values(), p))
}

// Release returns a release by version, digest or the beginning of one.
func (c *Client) Release(ctx context.Context, project, application, reference string) (delivery.Release, error) {
	return get[delivery.Release](ctx, c, path("projects", project, "applications", application, "releases", reference), nil)
}
