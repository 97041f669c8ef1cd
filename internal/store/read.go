package store

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// get reads one document. Absent gives the error for one that is not there.
func get[T any](ctx context.Context, s *core, absent func() error, read func(t tables) ([]byte, error)) (T, error) {
	var value T
	var doc []byte
	err := s.backend.view(ctx, func(t tables) (err error) {
		doc, err = read(t)
		return err
	})
	if err != nil {
		return value, err
	}
	if doc == nil {
		return value, absent()
	}
	if err := json.Unmarshal(doc, &value); err != nil {
		return value, internalError(err, "decoding a %T", value)
	}
	return value, nil
}

// all reads and decodes a list.
func all[T any](ctx context.Context, s *core, read func(t tables) ([][]byte, error)) ([]T, error) {
	var docs [][]byte
	err := s.backend.view(ctx, func(t tables) (err error) {
		docs, err = read(t)
		return err
	})
	if err != nil {
		return nil, err
	}
	return decodeAll[T](docs)
}

func decodeAll[T any](docs [][]byte) ([]T, error) {
	var values []T
	for _, doc := range docs {
		var v T
		if err := json.Unmarshal(doc, &v); err != nil {
			return nil, internalError(err, "decoding a %T", v)
		}
		values = append(values, v)
	}
	return values, nil
}

// newest reads a page of a list that is ordered by its sequence, newest first.
func newest[T any](ctx context.Context, s *core, p Page, read func(t tables, before int64, limit int) ([]seqDoc, error)) ([]T, string, error) {
	before, err := p.sequence(never)
	if err != nil {
		return nil, "", err
	}
	var rows []seqDoc
	err = s.backend.view(ctx, func(t tables) (err error) {
		rows, err = read(t, before, p.limit()+1)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	rows, cursor := turnPage(rows, p.limit(), func(r seqDoc) string { return strconv.FormatInt(r.seq, 10) })
	docs := make([][]byte, len(rows))
	for i, r := range rows {
		docs[i] = r.doc
	}
	values, err := decodeAll[T](docs)
	return values, cursor, err
}

// sequence reads a cursor that is a number; first is that of the first page.
func (p Page) sequence(first int64) (int64, error) {
	if p.After == "" {
		return first, nil
	}
	n, err := strconv.ParseInt(p.After, 10, 64)
	if err != nil {
		return 0, badCursor(p.After)
	}
	return n, nil
}

func badCursor(cursor string) error {
	return delivery.Errorf(delivery.CodeInvalid, "%q is not a cursor of this list: begin again without one.", cursor)
}

// Placement implements [Reader].
func (s *core) Placement(ctx context.Context, key delivery.PlacementKey) (Record, error) {
	var row placementRow
	var found bool
	state := stateRow{key: key}
	var commands, results [][]byte
	var pending []effectRow
	err := s.backend.view(ctx, func(t tables) (err error) {
		if row, found, err = t.placement(key); err != nil || !found {
			return err
		}
		if state.doc, err = t.state(key); err != nil {
			return err
		}
		if commands, err = t.commands(key); err != nil {
			return err
		}
		if results, err = t.results(key); err != nil {
			return err
		}
		pending, err = t.pending(key)
		return err
	})
	if err != nil {
		return Record{}, err
	}
	if !found {
		return Record{}, delivery.Errorf(delivery.CodeNotFound, "Nothing was ever asked for %s; promote a release to it first.", key)
	}
	record := Record{Version: row.version, Token: row.token, Wake: fromMicros(row.wake)}
	if record.Placement, err = state.decode(); err != nil {
		return Record{}, err
	}
	if record.Commands, err = decodeAll[delivery.Command](commands); err != nil {
		return Record{}, err
	}
	if record.Results, err = decodeAll[delivery.Result](results); err != nil {
		return Record{}, err
	}
	record.Pending, err = decodeEffects(pending)
	return record, err
}

// decode returns the placement; one without a turn is empty.
func (r stateRow) decode() (delivery.Placement, error) {
	p := delivery.Placement{Format: delivery.PlacementFormat, Key: r.key}
	if r.doc == nil {
		return p, nil
	}
	p = delivery.Placement{}
	if err := json.Unmarshal(r.doc, &p); err != nil {
		return p, internalError(err, "decoding %s", r.key)
	}
	return p, nil
}

func decodeEffects(rows []effectRow) ([]delivery.Effect, error) {
	var effects []delivery.Effect
	for _, r := range rows {
		var e delivery.Effect
		if err := json.Unmarshal(r.doc, &e); err != nil {
			return nil, internalError(err, "decoding an effect")
		}
		e.Token = r.token
		effects = append(effects, e)
	}
	return effects, nil
}

// Placements implements [Reader]: by key; an empty project lists all.
func (s *core) Placements(ctx context.Context, project string, p Page) ([]delivery.Placement, string, error) {
	var after delivery.PlacementKey
	if p.After != "" {
		var err error
		if after, err = delivery.ParsePlacementKey(p.After); err != nil {
			return nil, "", badCursor(p.After)
		}
	}
	var rows []stateRow
	err := s.backend.view(ctx, func(t tables) (err error) {
		rows, err = t.placements(project, after, p.limit()+1)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	rows, cursor := turnPage(rows, p.limit(), func(r stateRow) string { return r.key.String() })
	var states []delivery.Placement
	for _, r := range rows {
		state, err := r.decode()
		if err != nil {
			return nil, "", err
		}
		states = append(states, state)
	}
	return states, cursor, nil
}

// Plan implements [Reader].
func (s *core) Plan(ctx context.Context, d delivery.Digest) (*delivery.Plan, error) {
	p, err := get[delivery.Plan](ctx, s, func() error {
		return delivery.Errorf(delivery.CodeNotFound, "There is no plan %s.", d.Short())
	}, func(t tables) ([]byte, error) { return t.plan(d) })
	if err != nil {
		return nil, err
	}
	return &p, nil
}

// Deployment implements [Reader].
func (s *core) Deployment(ctx context.Context, id delivery.ID) (delivery.Deployment, error) {
	return get[delivery.Deployment](ctx, s, func() error {
		return delivery.Errorf(delivery.CodeNotFound, "There is no deployment %q.", id)
	}, func(t tables) ([]byte, error) { return t.deployment(id) })
}

// Deployments implements [Reader].
func (s *core) Deployments(ctx context.Context, f DeploymentFilter, p Page) ([]delivery.Deployment, string, error) {
	return newest[delivery.Deployment](ctx, s, p, func(t tables, before int64, limit int) ([]seqDoc, error) {
		return t.deployments(f, before, limit)
	})
}

// Turns implements [Reader].
func (s *core) Turns(ctx context.Context, id delivery.ID) ([]json.RawMessage, error) {
	return all[json.RawMessage](ctx, s, func(t tables) ([][]byte, error) { return t.turns(id) })
}

func noObject(kind delivery.Kind, project, name string) error {
	return delivery.Errorf(delivery.CodeNotFound, "There is no %s %q in project %q.", kind, name, project)
}

// Object implements [Reader].
func (s *core) Object(ctx context.Context, kind delivery.Kind, project, name string) (delivery.Object, error) {
	return get[delivery.Object](ctx, s, func() error { return noObject(kind, project, name) },
		func(t tables) ([]byte, error) {
			row, ok, err := t.object(objectKey{kind, project, name})
			if !ok || row.deleted {
				return nil, err
			}
			return row.doc, err
		})
}

// ObjectAt implements [Reader]. It also finds revisions of deleted objects.
func (s *core) ObjectAt(ctx context.Context, kind delivery.Kind, project, name string, revision int64) (delivery.Object, error) {
	return get[delivery.Object](ctx, s, func() error {
		return delivery.Errorf(delivery.CodeNotFound, "%s %q in project %q never had a revision %d.", kind, name, project, revision)
	}, func(t tables) ([]byte, error) { return t.objectAt(objectKey{kind, project, name}, revision) })
}

// Objects implements [Reader]: by project and name; an empty project lists all.
func (s *core) Objects(ctx context.Context, kind delivery.Kind, project string, p Page) ([]delivery.Object, string, error) {
	var after objectKey
	if p.After != "" {
		var ok bool
		if after.project, after.name, ok = strings.Cut(p.After, "/"); !ok {
			return nil, "", badCursor(p.After)
		}
	}
	var rows []objectRow
	err := s.backend.view(ctx, func(t tables) (err error) {
		rows, err = t.objects(kind, project, after, p.limit()+1)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	rows, cursor := turnPage(rows, p.limit(), func(r objectRow) string { return r.project + "/" + r.name })
	docs := make([][]byte, len(rows))
	for i, r := range rows {
		docs[i] = r.doc
	}
	objects, err := decodeAll[delivery.Object](docs)
	return objects, cursor, err
}

// Release implements [Reader].
func (s *core) Release(ctx context.Context, d delivery.Digest) (delivery.Release, error) {
	return get[delivery.Release](ctx, s, func() error {
		return delivery.Errorf(delivery.CodeNotFound, "There is no release %s.", d.Short())
	}, func(t tables) ([]byte, error) { return t.release(d) })
}

// ReleaseByVersion implements [Reader].
func (s *core) ReleaseByVersion(ctx context.Context, project, application, version string) (delivery.Release, error) {
	return get[delivery.Release](ctx, s, func() error {
		return delivery.Errorf(delivery.CodeNotFound, "There is no release %s@%s in project %q; create it first.", application, version, project)
	}, func(t tables) ([]byte, error) {
		_, doc, err := t.releaseByVersion(project, application, version)
		return doc, err
	})
}

// Releases implements [Reader].
func (s *core) Releases(ctx context.Context, project, application string, p Page) ([]delivery.Release, string, error) {
	return newest[delivery.Release](ctx, s, p, func(t tables, before int64, limit int) ([]seqDoc, error) {
		return t.releases(project, application, before, limit)
	})
}
