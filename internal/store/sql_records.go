package store

import (
	"database/sql"
	"fmt"
	"strings"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// where builds the condition of a list query: what a filter leaves empty is
// not in it, so that the indexes fit.
type where struct {
	conditions []string
	args       []any
}

// add adds a condition whose %s are the places of args.
func (w *where) add(condition string, args ...any) {
	places := make([]any, len(args))
	for i, a := range args {
		places[i] = w.place(a)
	}
	w.conditions = append(w.conditions, fmt.Sprintf(condition, places...))
}

// equal adds a condition on a column unless value is "".
func (w *where) equal(column, value string) {
	if value != "" {
		w.add(column+" = %s", value)
	}
}

func (w *where) place(arg any) string {
	w.args = append(w.args, arg)
	return fmt.Sprintf("$%d", len(w.args))
}

func (w *where) text() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

func (w *where) limit(n int) string { return " LIMIT " + w.place(n) }

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (t *sqlTables) putDeployment(r deploymentRow) error {
	_, err := t.exec(`INSERT INTO deployment (id, project, application, environment, release, terminal, doc)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (id) DO UPDATE SET project = excluded.project, application = excluded.application,
			environment = excluded.environment, release = excluded.release, terminal = excluded.terminal, doc = excluded.doc`,
		string(r.id), r.key.Project, r.key.Application, r.key.Environment, string(r.release), flag(r.terminal), string(r.doc))
	return err
}

func (t *sqlTables) deployment(id delivery.ID) ([]byte, error) {
	return t.doc(`SELECT doc FROM deployment WHERE id = $1`, string(id))
}

func (t *sqlTables) deployments(f DeploymentFilter, before int64, limit int) ([]seqDoc, error) {
	w := where{}
	w.equal("project", f.Project)
	w.equal("application", f.Application)
	w.equal("environment", f.Environment)
	w.equal("release", string(f.Release))
	if f.Active {
		w.add("terminal = 0")
	}
	w.add("seq < %s", before)
	return t.seqDocs(`SELECT seq, doc FROM deployment`+w.text()+` ORDER BY seq DESC`+w.limit(limit), w.args...)
}

func scanObject(rows *sql.Rows, r *objectRow) error {
	var deleted int64
	err := rows.Scan(&r.kind, &r.project, &r.name, &r.revision, &deleted, &r.doc)
	r.deleted = deleted != 0
	return err
}

func (t *sqlTables) object(k objectKey) (objectRow, bool, error) {
	rows, err := query(t.connection, scanObject,
		`SELECT kind, project, name, revision, deleted, doc FROM object WHERE kind = $1 AND project = $2 AND name = $3`,
		string(k.kind), k.project, k.name)
	if err != nil || len(rows) == 0 {
		return objectRow{}, false, err
	}
	return rows[0], true, nil
}

func (t *sqlTables) putObject(r objectRow, newRevision bool) error {
	_, err := t.exec(`INSERT INTO object (kind, project, name, revision, deleted, doc) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (kind, project, name) DO UPDATE SET revision = excluded.revision, deleted = excluded.deleted, doc = excluded.doc`,
		string(r.kind), r.project, r.name, r.revision, flag(r.deleted), string(r.doc))
	if err != nil || !newRevision {
		return err
	}
	_, err = t.exec(`INSERT INTO object_revision (kind, project, name, revision, doc) VALUES ($1, $2, $3, $4, $5)`,
		string(r.kind), r.project, r.name, r.revision, string(r.doc))
	return err
}

func (t *sqlTables) objectAt(k objectKey, revision int64) ([]byte, error) {
	return t.doc(`SELECT doc FROM object_revision WHERE kind = $1 AND project = $2 AND name = $3 AND revision = $4`,
		string(k.kind), k.project, k.name, revision)
}

func (t *sqlTables) objects(kind delivery.Kind, project string, after objectKey, limit int) ([]objectRow, error) {
	w := where{}
	w.add("kind = %s", string(kind))
	w.equal("project", project)
	w.add("deleted = 0")
	w.add("(project, name) > (%s, %s)", after.project, after.name)
	return query(t.connection, scanObject, `SELECT kind, project, name, revision, deleted, doc FROM object`+
		w.text()+` ORDER BY project, name`+w.limit(limit), w.args...)
}

func (t *sqlTables) addRelease(r releaseRow) error {
	_, err := t.exec(`INSERT INTO release (digest, project, application, version, doc) VALUES ($1, $2, $3, $4, $5)`,
		string(r.digest), r.project, r.application, r.version, string(r.doc))
	return err
}

func (t *sqlTables) release(d delivery.Digest) ([]byte, error) {
	return t.doc(`SELECT doc FROM release WHERE digest = $1`, string(d))
}

func (t *sqlTables) releaseByVersion(project, application, version string) (digest delivery.Digest, doc []byte, err error) {
	_, err = t.row(`SELECT digest, doc FROM release WHERE project = $1 AND application = $2 AND version = $3`,
		[]any{project, application, version}, &digest, &doc)
	return digest, doc, err
}

func (t *sqlTables) releases(project, application string, before int64, limit int) ([]seqDoc, error) {
	w := where{}
	w.equal("project", project)
	w.equal("application", application)
	w.add("seq < %s", before)
	return t.seqDocs(`SELECT seq, doc FROM release`+w.text()+` ORDER BY seq DESC`+w.limit(limit), w.args...)
}

func (t *sqlTables) putReport(target string, doc []byte) error {
	_, err := t.exec(`INSERT INTO report (target, doc) VALUES ($1, $2) ON CONFLICT (target) DO UPDATE SET doc = excluded.doc`,
		target, string(doc))
	return err
}

func (t *sqlTables) report(target string) ([]byte, error) {
	return t.doc(`SELECT doc FROM report WHERE target = $1`, target)
}

func (t *sqlTables) reports() ([][]byte, error) {
	return t.docs(`SELECT doc FROM report ORDER BY target`)
}

func (t *sqlTables) addDecision(id delivery.ID, project string, input delivery.Digest, doc []byte) error {
	_, err := t.exec(`INSERT INTO decision (id, project, input, doc) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING`,
		string(id), project, string(input), string(doc))
	return err
}

func (t *sqlTables) addInput(d delivery.Digest, doc []byte) error {
	_, err := t.exec(`INSERT INTO decision_input (digest, doc) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING`, string(d), string(doc))
	return err
}

func (t *sqlTables) input(d delivery.Digest) ([]byte, error) {
	return t.doc(`SELECT doc FROM decision_input WHERE digest = $1`, string(d))
}

func (t *sqlTables) decision(id delivery.ID) ([]byte, error) {
	return t.doc(`SELECT doc FROM decision WHERE id = $1`, string(id))
}

func (t *sqlTables) decisions(project string, before int64, limit int) ([]seqDoc, error) {
	w := where{}
	w.equal("project", project)
	w.add("seq < %s", before)
	return t.seqDocs(`SELECT seq, doc FROM decision`+w.text()+` ORDER BY seq DESC`+w.limit(limit), w.args...)
}

func (t *sqlTables) closeInventory(key delivery.PlacementKey, target, service string, until int64) error {
	_, err := t.exec(`UPDATE inventory SET until = CASE WHEN since > $1 THEN since ELSE $1 END
		WHERE project = $2 AND application = $3 AND environment = $4 AND target = $5 AND service = $6 AND until = `+unlimited,
		until, key.Project, key.Application, key.Environment, target, service)
	return err
}

func (t *sqlTables) addInventory(r inventoryRow) error {
	_, err := t.exec(`INSERT INTO inventory (project, application, environment, target, service, artifact, since, until, doc)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		r.key.Project, r.key.Application, r.key.Environment, r.target, r.service, string(r.artifact), r.since, r.until, string(r.doc))
	return err
}

func (t *sqlTables) inventory(q inventoryQuery, after int64, limit int) ([]inventoryRow, error) {
	w := where{}
	w.equal("project", q.project)
	w.equal("application", q.application)
	w.equal("environment", q.environment)
	w.equal("artifact", string(q.artifact))
	switch {
	case q.at == never && !q.history:
		w.add("until = " + unlimited)
	case q.at != never && q.history:
		w.add("since <= %s", q.at)
	case q.at != never:
		w.add("since <= %s AND until > %s", q.at, q.at)
	}
	w.add("seq > %s", after)
	return query(t.connection, func(rows *sql.Rows, r *inventoryRow) error {
		return rows.Scan(&r.seq, &r.since, &r.until, &r.doc)
	}, `SELECT seq, since, until, doc FROM inventory`+w.text()+` ORDER BY seq`+w.limit(limit), w.args...)
}

func (t *sqlTables) putToken(id delivery.ID, hash string, doc []byte) error {
	_, err := t.exec(`INSERT INTO token (id, hash, doc) VALUES ($1, $2, $3)
		ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, doc = excluded.doc`, string(id), hash, string(doc))
	return err
}

func (t *sqlTables) token(id delivery.ID) ([]byte, error) {
	return t.doc(`SELECT doc FROM token WHERE id = $1`, string(id))
}

func (t *sqlTables) tokenByHash(hash string) ([]byte, error) {
	return t.doc(`SELECT doc FROM token WHERE hash = $1`, hash)
}

func (t *sqlTables) tokens() ([][]byte, error) { return t.docs(`SELECT doc FROM token ORDER BY id`) }

func (t *sqlTables) putHost(name string, doc []byte) error {
	_, err := t.exec(`INSERT INTO host (name, doc) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET doc = excluded.doc`, name, string(doc))
	return err
}

func (t *sqlTables) host(name string) ([]byte, error) {
	return t.doc(`SELECT doc FROM host WHERE name = $1`, name)
}

func (t *sqlTables) hosts() ([][]byte, error) { return t.docs(`SELECT doc FROM host ORDER BY name`) }

func (t *sqlTables) remember(r idempotencyRow, forgetBefore int64) error {
	if _, err := t.exec(`DELETE FROM idempotency WHERE at < $1`, forgetBefore); err != nil {
		return err
	}
	_, err := t.exec(`INSERT INTO idempotency (key, request, response, at) VALUES ($1, $2, $3, $4)`,
		r.key, string(r.request), string(r.response), r.at)
	return err
}

func (t *sqlTables) remembered(key string) (idempotencyRow, bool, error) {
	r := idempotencyRow{key: key}
	found, err := t.row(`SELECT request, response, at FROM idempotency WHERE key = $1`, []any{key}, &r.request, &r.response, &r.at)
	return r, found, err
}
