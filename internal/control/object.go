package control

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// Apply makes all documents of files the configuration, or none. A document
// that equals what is stored changes nothing.
func (c *Control) Apply(ctx context.Context, actor delivery.Actor, project string, a wire.Apply) (wire.Applied, error) {
	if err := c.may(ctx, actor, OpConfigure); err != nil {
		return wire.Applied{}, err
	}
	var files []File
	for _, f := range a.Files {
		files = append(files, File{f.Name, []byte(f.Content)})
	}
	var failed error
	objects, err := c.o.Parse(ctx, files, func(kind delivery.Kind, project, name string) bool {
		_, err := c.o.Store.Object(ctx, kind, project, name)
		if err != nil && delivery.ErrorCode(err) != delivery.CodeNotFound {
			failed = err
		}
		return err == nil
	})
	if failed != nil {
		return wire.Applied{}, failed
	}
	if err != nil {
		return wire.Applied{}, err
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return wire.Applied{}, err
	}
	change := store.Change{}
	done := wire.Applied{DryRun: a.DryRun}
	for _, o := range objects {
		if o.Project == delivery.DefaultProject {
			o.Project = project
		}
		o.UpdatedAt, o.UpdatedBy = now, actor
		one, err := c.compare(ctx, o)
		if err != nil {
			return wire.Applied{}, err
		}
		done.Documents = append(done.Documents, one)
		w := store.ObjectWrite{Object: o}
		if revision, ok := a.Expect[string(o.Kind)+"/"+o.Name]; ok {
			w.IfRevision = &revision
		}
		change.Objects = append(change.Objects, w)
		if one.Action != wire.ActionUnchanged {
			e := c.event(delivery.EventObjectApplied, delivery.PlacementKey{Project: o.Project}, actor, now, "%s %s was %s (revision %d).", o.Kind, o.Name, one.Action, one.Revision)
			if o.Kind == delivery.KindApplication {
				e.Application = o.Name
			}
			change.Events = append(change.Events, e)
		}
	}
	if a.DryRun {
		return done, nil
	}
	_, err = c.o.Store.Commit(ctx, change)
	return done, err
}

// compare says what writing an object would do.
func (c *Control) compare(ctx context.Context, o delivery.Object) (wire.AppliedObject, error) {
	one := wire.AppliedObject{Kind: o.Kind, Project: o.Project, Name: o.Name, Action: wire.ActionCreated, Revision: 1}
	old, err := c.o.Store.Object(ctx, o.Kind, o.Project, o.Name)
	switch {
	case delivery.ErrorCode(err) == delivery.CodeNotFound:
		return one, nil
	case err != nil:
		return one, err
	}
	one.Action, one.Revision = wire.ActionChanged, old.Revision+1
	if sameJSON(old.Spec, o.Spec) {
		one.Action, one.Revision = wire.ActionUnchanged, old.Revision
	}
	return one, nil
}

func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, _ := json.Marshal(x) // what was just unmarshalled can be marshalled
	q, _ := json.Marshal(y)
	return string(p) == string(q)
}

// Objects lists the objects of a kind.
func (c *Control) Objects(ctx context.Context, actor delivery.Actor, project string, kind delivery.Kind, p wire.Page) (wire.List[delivery.Object], error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return wire.List[delivery.Object]{}, err
	}
	kind, err := kindOf(kind)
	if err != nil {
		return wire.List[delivery.Object]{}, err
	}
	items, next, err := c.o.Store.Objects(ctx, kind, project, page(p))
	return wire.List[delivery.Object]{Items: items, Next: next}, err
}

// Object reads an object, as it is (revision 0) or was.
func (c *Control) Object(ctx context.Context, actor delivery.Actor, project string, kind delivery.Kind, name string, revision int64) (delivery.Object, error) {
	if err := c.may(ctx, actor, OpRead); err != nil {
		return delivery.Object{}, err
	}
	kind, err := kindOf(kind)
	if err != nil {
		return delivery.Object{}, err
	}
	if revision > 0 {
		return c.o.Store.ObjectAt(ctx, kind, project, name, revision)
	}
	return c.o.Store.Object(ctx, kind, project, name)
}

// DeleteObject removes an object that nothing refers to. Revision 0 takes any.
func (c *Control) DeleteObject(ctx context.Context, actor delivery.Actor, project string, kind delivery.Kind, name string, revision int64) error {
	if err := c.may(ctx, actor, OpConfigure); err != nil {
		return err
	}
	kind, err := kindOf(kind)
	if err != nil {
		return err
	}
	o, err := c.o.Store.Object(ctx, kind, project, name)
	if err != nil {
		return err
	}
	if user, err := c.user(ctx, o); err != nil || user != "" {
		if err != nil {
			return err
		}
		return delivery.Errorf(delivery.CodeConflict, "The %s %s can't be deleted: %s uses it.", kind, name, user)
	}
	now, err := c.o.Store.Now(ctx)
	if err != nil {
		return err
	}
	w := store.ObjectWrite{Object: o, Delete: true}
	if revision > 0 {
		w.IfRevision = &revision
	}
	e := c.event(delivery.EventObjectDeleted, delivery.PlacementKey{Project: project}, actor, now, "%s %s was deleted.", kind, name)
	_, err = c.o.Store.Commit(ctx, store.Change{Objects: []store.ObjectWrite{w}, Events: []delivery.Event{e}})
	return err
}

// user names something that refers to an object, "" if nothing does.
func (c *Control) user(ctx context.Context, o delivery.Object) (string, error) {
	for _, kind := range []delivery.Kind{delivery.KindApplication, delivery.KindEnvironment} {
		objects, _, err := c.o.Store.Objects(ctx, kind, o.Project, store.Page{Limit: 1000})
		if err != nil {
			return "", err
		}
		for _, other := range objects {
			if refers(other, o) {
				return fmt.Sprintf("%s %s", other.Kind, other.Name), nil
			}
		}
	}
	if o.Kind == delivery.KindApplication {
		placements, _, err := c.o.Store.Placements(ctx, o.Project, store.Page{Limit: 1000})
		if err != nil {
			return "", err
		}
		for _, p := range placements {
			if p.Key.Application == o.Name && (p.Active != nil || len(p.Queue) > 0 || len(p.Running) > 0) {
				return "what runs in " + p.Key.Environment, nil
			}
		}
	}
	return "", nil
}

func refers(from, to delivery.Object) bool {
	if from.Kind == to.Kind && from.Name == to.Name {
		return false
	}
	switch from.Kind {
	case delivery.KindApplication:
		var a delivery.Application
		if json.Unmarshal(from.Spec, &a) != nil {
			return false
		}
		return slices.ContainsFunc(a.Path, func(s delivery.PathStep) bool {
			return to.Kind == delivery.KindEnvironment && s.Environment == to.Name || to.Kind == delivery.KindCalendar && s.Calendar == to.Name
		})
	case delivery.KindEnvironment:
		var e delivery.Environment
		if json.Unmarshal(from.Spec, &e) != nil {
			return false
		}
		return to.Kind == delivery.KindCalendar && e.Calendar == to.Name || to.Kind == delivery.KindTarget && slices.Contains(e.Targets, to.Name)
	}
	return false
}

// kindOf accepts a kind in any case and in the plural.
func kindOf(k delivery.Kind) (delivery.Kind, error) {
	for _, known := range delivery.Kinds() {
		if s := strings.ToLower(string(known)); strings.ToLower(string(k)) == s || strings.ToLower(string(k)) == s+"s" {
			return known, nil
		}
	}
	return "", delivery.Errorf(delivery.CodeInvalid, "The kind %q is not known: use %v.", k, delivery.Kinds())
}

func page(p wire.Page) store.Page { return store.Page{After: p.Cursor, Limit: p.Limit} }
