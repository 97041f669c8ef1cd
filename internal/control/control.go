// Package control is the only front door: every request, from whatever edge,
// is authorised, validated, recorded and put into the queue here, and every
// question is answered here. What is changed is a command that engine.Step
// consumes, or a record; nothing else writes.
//
// It must not know HTTP. Start reading at [Control] and the table in operation.go.
package control

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tidegate-cd/tidegate/internal/audit"
	"github.com/tidegate-cd/tidegate/internal/auth"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/facts"
	"github.com/tidegate-cd/tidegate/internal/remote"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// File is a file of configuration.
type File struct {
	Name    string
	Content []byte
}

// Artifacts keeps the files of releases; see internal/artifact.
type Artifacts interface {
	Put(ctx context.Context, r io.Reader, want delivery.Digest, limit int64) (delivery.Artifact, error)
	Stat(d delivery.Digest) (delivery.Artifact, error)
	Fetch(ctx context.Context, url string, want delivery.Digest) (delivery.Artifact, error)
}

// Hosts are what control asks of the machines' server half; see internal/remote.
type Hosts interface {
	Fingerprint() string
	Logs(ctx context.Context, host string, q remote.LogQuery) ([]remote.LogLine, error)
}

// Options says what control works with; all of it is required but Hosts.
type Options struct {
	Store     store.Store
	Facts     *facts.Facts
	Artifacts Artifacts
	Audit     *audit.Log
	Hosts     Hosts
	Tokens    *auth.Tokens
	// Parse checks documents and returns the objects that they are; exists
	// tells of what is stored already.
	Parse func(ctx context.Context, files []File, exists func(kind delivery.Kind, project, name string) bool) ([]delivery.Object, error)
	NewID func() delivery.ID
	Log   *slog.Logger
}

// Control answers for one server. It is safe for concurrent use.
type Control struct{ o Options }

// New returns the front door.
func New(o Options) *Control { return &Control{o} }

// Authenticate returns who acts with a bearer token.
func (c *Control) Authenticate(ctx context.Context, token string) (delivery.Actor, error) {
	return c.o.Tokens.Authenticate(ctx, token)
}

// event makes an event of this moment.
func (c *Control) event(t delivery.EventType, key delivery.PlacementKey, actor delivery.Actor, at time.Time, format string, args ...any) delivery.Event {
	return delivery.Event{
		ID: c.o.NewID(), Type: t, Project: key.Project, Application: key.Application, Environment: key.Environment,
		Actor: actor, At: at, Message: fmt.Sprintf(format, args...),
	}
}

var hexadecimal = regexp.MustCompile(`^[0-9a-f]{8,64}$`)

// release finds a release by version, digest or the beginning of a digest.
func (c *Control) release(ctx context.Context, project, application, reference string) (delivery.Release, error) {
	if delivery.Digest(reference).Valid() {
		r, err := c.o.Store.Release(ctx, delivery.Digest(reference))
		if err == nil && (r.Project != project || r.Application != application) {
			return r, delivery.Errorf(delivery.CodeNotFound, "Application %s has no release %s.", application, reference)
		}
		return r, err
	}
	r, err := c.o.Store.ReleaseByVersion(ctx, project, application, reference)
	if delivery.ErrorCode(err) != delivery.CodeNotFound {
		return r, err
	}
	if hexadecimal.MatchString(reference) {
		list, _, err := c.o.Store.Releases(ctx, project, application, store.Page{Limit: 1000})
		if err != nil {
			return r, err
		}
		var found []delivery.Release
		for _, candidate := range list {
			if strings.HasPrefix(candidate.Digest.Hex(), reference) {
				found = append(found, candidate)
			}
		}
		if len(found) == 1 {
			return found[0], nil
		}
	}
	return r, delivery.Errorf(delivery.CodeNotFound, "Application %s has no release %q: 'tidegate release list %s' shows what there is.", application, reference, application)
}

// placement reads a placement; one that nothing ever came for is empty.
func (c *Control) placement(ctx context.Context, key delivery.PlacementKey) (delivery.Placement, error) {
	rec, err := c.o.Store.Placement(ctx, key)
	if delivery.ErrorCode(err) == delivery.CodeNotFound {
		return delivery.Placement{Key: key}, nil
	}
	rec.Placement.Key = key
	return rec.Placement, err
}

// onPath makes sure that an application has an environment on its path.
func (c *Control) onPath(ctx context.Context, key delivery.PlacementKey) (delivery.Application, delivery.PathStep, error) {
	app, err := c.o.Facts.Application(ctx, key.Project, key.Application)
	if err != nil {
		return app, delivery.PathStep{}, err
	}
	step, ok := app.Step(key.Environment)
	if !ok {
		var names []string
		for _, s := range app.Path {
			names = append(names, s.Environment)
		}
		return app, step, delivery.Errorf(delivery.CodeNotFound, "Application %s does not go to environment %q; its path is %s.", key.Application, key.Environment, strings.Join(names, ", "))
	}
	return app, step, nil
}

// may refuses and records what the table of operations does not allow.
func (c *Control) may(ctx context.Context, actor delivery.Actor, op Operation) error {
	groups := operations[op]
	if actor.Subject == "" {
		return delivery.Errorf(delivery.CodeDenied, "Nobody is signed in: give a token.")
	}
	if op == OpRead || op == OpApprove && len(actor.Groups) > 0 || actor.In(delivery.GroupAdministrators) || slices.ContainsFunc(groups, actor.In) {
		return nil
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return err
	}
	e := c.event(delivery.EventAuthorisationDenied, delivery.PlacementKey{Project: delivery.DefaultProject}, actor, now, "%s may not %s.", actor.Subject, op)
	if _, err := c.o.Store.Commit(ctx, store.Change{Events: []delivery.Event{e}}); err != nil {
		return err
	}
	return delivery.Errorf(delivery.CodeDenied, "%s may not %s: that is for %s.", actor.Subject, op, strings.Join(append(slices.Clone(groups), delivery.GroupAdministrators), ", "))
}
