package store

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/tidegate-cd/tidegate/internal/audit"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// tokenKindEnrol is the kind of a token that can be spent once.
const tokenKindEnrol = "enrol"

// current is the revision that a condition compares: 0 for what does not exist.
func (r objectRow) current(found bool) int64 {
	if !found || r.deleted {
		return 0
	}
	return r.revision
}

func (a *applier) putPlans() error {
	for i, p := range a.change.Plans {
		if err := a.addPlan(p.Digest, a.change.plans[i], a.change.planTargets[i]); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) putObjects() error {
	for _, w := range a.change.Objects {
		o, err := a.writeObject(w)
		if err != nil {
			return err
		}
		a.committed.Objects = append(a.committed.Objects, o)
	}
	return nil
}

func (a *applier) writeObject(w ObjectWrite) (delivery.Object, error) {
	o := w.Object
	row, found, err := a.object(objectKey{o.Kind, o.Project, o.Name})
	if err != nil {
		return o, err
	}
	exists := found && !row.deleted
	if w.IfRevision != nil && *w.IfRevision != row.current(found) {
		return o, delivery.Errorf(delivery.CodeConflict, "%s %q is at revision %d, not %d: read it again and repeat the change.", o.Kind, o.Name, row.current(found), *w.IfRevision)
	}
	if w.Delete {
		if !exists {
			return o, noObject(o.Kind, o.Project, o.Name)
		}
		row.deleted = true
		return delivery.Object{Kind: o.Kind, Project: o.Project, Name: o.Name, UpdatedAt: o.UpdatedAt, UpdatedBy: o.UpdatedBy}, a.putObject(row, false)
	}
	if exists {
		var before delivery.Object
		if err := json.Unmarshal(row.doc, &before); err != nil {
			return o, internalError(err, "%s %q", o.Kind, o.Name)
		}
		if equalJSON(before.Spec, o.Spec) {
			return before, nil
		}
	}
	o.Revision = row.revision + 1 // a row that was not found has 0
	doc, err := json.Marshal(o)
	if err != nil {
		return o, delivery.Wrap(delivery.CodeInvalid, err, "The spec of %s %q is not JSON.", o.Kind, o.Name)
	}
	row = objectRow{objectKey: objectKey{o.Kind, o.Project, o.Name}, revision: o.Revision, doc: doc}
	return o, a.putObject(row, true)
}

// equalJSON compares values, not their text.
func equalJSON(x, y json.RawMessage) bool {
	if bytes.Equal(x, y) {
		return true
	}
	canonicalX, errX := audit.Canonical(x)
	canonicalY, errY := audit.Canonical(y)
	return errX == nil && errY == nil && bytes.Equal(canonicalX, canonicalY)
}

func (a *applier) addReleases() error {
	for i, r := range a.change.Releases {
		have, err := a.release(r.Digest)
		if err != nil {
			return err
		}
		if have != nil {
			continue
		}
		digest, _, err := a.releaseByVersion(r.Project, r.Application, r.Version)
		if err != nil {
			return err
		}
		if digest != "" {
			return delivery.Errorf(delivery.CodeConflict, "Version %s of %s exists with other content (%s): releases never change, so give this one a new version.", r.Version, r.Application, digest.Short())
		}
		if err := a.addRelease(releaseRow{r.Digest, r.Project, r.Application, r.Version, a.change.releases[i]}); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) addDecisions() error {
	for i, d := range a.change.Decisions {
		if len(d.Input) > 0 {
			if err := a.addInput(d.InputDigest, d.Input); err != nil {
				return err
			}
		}
		if err := a.addDecision(d.ID, d.Placement.Project, d.InputDigest, a.change.decisions[i]); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) putAccess() error {
	for i, t := range a.change.Tokens {
		if err := a.checkSpent(t); err != nil {
			return err
		}
		if err := a.putToken(t.ID, t.Hash, a.change.tokens[i]); err != nil {
			return err
		}
	}
	for i, h := range a.change.Hosts {
		if err := a.putHost(h.Name, a.change.hosts[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkSpent lets only one of two who spend an enrolment token at once through.
func (a *applier) checkSpent(t Token) error {
	if t.Kind != tokenKindEnrol || t.UsedAt.IsZero() || t.Revoked {
		return nil
	}
	doc, err := a.token(t.ID)
	if err != nil || doc == nil {
		return err
	}
	var before Token
	if err := json.Unmarshal(doc, &before); err != nil {
		return internalError(err, "token %s", t.ID)
	}
	if !before.UsedAt.IsZero() || before.Revoked {
		return delivery.Errorf(delivery.CodeConflict, "Enrolment token %q was already used or revoked; create a new one.", t.Name)
	}
	return nil
}

func (a *applier) putDeployments() error {
	for i, d := range a.change.Deployments {
		row := deploymentRow{id: d.ID, key: d.Key, release: d.Release, terminal: d.Phase.Terminal(), doc: a.change.deployments[i]}
		if err := a.putDeployment(row); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) putInventory() error {
	for i, e := range a.change.Inventory {
		since := e.Since.UnixMicro()
		if err := a.closeInventory(e.Key, e.Target, e.Service, since); err != nil {
			return err
		}
		if e.Workload == "" {
			continue
		}
		err := a.addInventory(inventoryRow{
			key: e.Key, target: e.Target, service: e.Service, artifact: e.Artifact,
			since: since, until: micros(e.Until), doc: a.change.inventory[i],
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pageBounds returns the limit of a page.
func (p Page) limit() int {
	if p.Limit <= 0 {
		return 100
	}
	return min(p.Limit, 1000)
}

// turnPage cuts rows that were read with one more than the limit, and returns
// the cursor of the last that stays.
func turnPage[T any](rows []T, limit int, cursor func(T) string) ([]T, string) {
	if len(rows) <= limit {
		return rows, ""
	}
	rows = slices.Clip(rows[:limit])
	return rows, cursor(rows[limit-1])
}
