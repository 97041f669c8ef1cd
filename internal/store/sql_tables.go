package store

import (
	"database/sql"
	"encoding/base64"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// sqlTables is tables in a database, in SQL that SQLite and PostgreSQL share.
type sqlTables struct{ *connection }

// unlimited is the text of never, for the partial indexes that name it.
const unlimited = "9223372036854775807"

const placementColumns = `project, application, environment, format, version, token, holder, expires, wake, due, arrivals, seen, active_plan, from_plan`

func scanPlacement(rows interface{ Scan(...any) error }, r *placementRow) error {
	return rows.Scan(&r.key.Project, &r.key.Application, &r.key.Environment, &r.format, &r.version, &r.token, &r.holder,
		&r.expires, &r.wake, &r.due, &r.arrivals, &r.seen, &r.activePlan, &r.fromPlan)
}

func (t *sqlTables) placement(key delivery.PlacementKey) (placementRow, bool, error) {
	rows, err := query(t.connection, func(rows *sql.Rows, r *placementRow) error { return scanPlacement(rows, r) },
		`SELECT `+placementColumns+` FROM placement WHERE project = $1 AND application = $2 AND environment = $3`,
		key.Project, key.Application, key.Environment)
	if err != nil || len(rows) == 0 {
		return placementRow{}, false, err
	}
	return rows[0], true, nil
}

func (t *sqlTables) putPlacement(r placementRow) error {
	_, err := t.exec(`INSERT INTO placement (`+placementColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
		ON CONFLICT (project, application, environment) DO UPDATE SET
			format = excluded.format, version = excluded.version, token = excluded.token, holder = excluded.holder,
			expires = excluded.expires, wake = excluded.wake, due = excluded.due, arrivals = excluded.arrivals,
			seen = excluded.seen, active_plan = excluded.active_plan, from_plan = excluded.from_plan`,
		r.key.Project, r.key.Application, r.key.Environment, r.format, r.version, r.token, r.holder,
		r.expires, r.wake, r.due, r.arrivals, r.seen, string(r.activePlan), string(r.fromPlan))
	return err
}

func (t *sqlTables) state(key delivery.PlacementKey) ([]byte, error) {
	return t.doc(`SELECT doc FROM placement_state WHERE project = $1 AND application = $2 AND environment = $3`,
		key.Project, key.Application, key.Environment)
}

func (t *sqlTables) putState(key delivery.PlacementKey, doc []byte) error {
	_, err := t.exec(`INSERT INTO placement_state (project, application, environment, doc) VALUES ($1, $2, $3, $4)
		ON CONFLICT (project, application, environment) DO UPDATE SET doc = excluded.doc`,
		key.Project, key.Application, key.Environment, string(doc))
	return err
}

func (t *sqlTables) placements(project string, after delivery.PlacementKey, limit int) ([]stateRow, error) {
	w := where{}
	w.equal("p.project", project)
	w.add("(p.project, p.application, p.environment) > (%s, %s, %s)", after.Project, after.Application, after.Environment)
	return query(t.connection, func(rows *sql.Rows, r *stateRow) error {
		return rows.Scan(&r.key.Project, &r.key.Application, &r.key.Environment, &r.doc)
	}, `SELECT p.project, p.application, p.environment, s.doc FROM placement p
		LEFT JOIN placement_state s ON s.project = p.project AND s.application = p.application AND s.environment = p.environment`+
		w.text()+` ORDER BY p.project, p.application, p.environment`+w.limit(limit), w.args...)
}

func (t *sqlTables) duePlacements(now, format int64, limit int) ([]placementRow, error) {
	return query(t.connection, func(rows *sql.Rows, r *placementRow) error { return scanPlacement(rows, r) },
		`SELECT `+placementColumns+` FROM placement WHERE due <= $1 AND expires <= $1 AND format <= $2
		ORDER BY due, project, application, environment LIMIT $3`, now, format, limit)
}

func (t *sqlTables) nextDue(format int64) (int64, error) {
	next := int64(never)
	var found sql.NullInt64
	_, err := t.row(`SELECT MIN(CASE WHEN due > expires THEN due ELSE expires END) FROM placement
		WHERE due < `+unlimited+` AND format <= $1`, []any{format}, &found)
	if found.Valid {
		next = found.Int64
	}
	return next, err
}

func (t *sqlTables) arriveOnTarget(target string, now int64) (bool, error) {
	n, err := t.exec(`UPDATE placement SET arrivals = arrivals + 1, due = CASE WHEN due > $1 THEN $1 ELSE due END
		WHERE active_plan <> '' AND (due > $1 OR arrivals = seen)
		AND EXISTS (SELECT 1 FROM plan_target t WHERE t.plan IN (active_plan, from_plan) AND t.target = $2)`, now, target)
	return n > 0, err
}

func (t *sqlTables) waiting(key delivery.PlacementKey) (bool, error) {
	return t.row(`SELECT 1 WHERE
		EXISTS (SELECT 1 FROM command WHERE project = $1 AND application = $2 AND environment = $3 AND consumed = 0) OR
		EXISTS (SELECT 1 FROM result WHERE project = $1 AND application = $2 AND environment = $3 AND consumed = 0)`,
		[]any{key.Project, key.Application, key.Environment}, new(int64))
}

func (t *sqlTables) addCommand(id delivery.ID, key delivery.PlacementKey, doc []byte) (bool, error) {
	n, err := t.exec(`INSERT INTO command (id, project, application, environment, doc) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (id) DO NOTHING`, string(id), key.Project, key.Application, key.Environment, string(doc))
	return n > 0, err
}

func (t *sqlTables) commands(key delivery.PlacementKey) ([][]byte, error) {
	return t.docs(`SELECT doc FROM command WHERE project = $1 AND application = $2 AND environment = $3 AND consumed = 0 ORDER BY seq`,
		key.Project, key.Application, key.Environment)
}

func (t *sqlTables) consumeCommand(id delivery.ID, key delivery.PlacementKey) error {
	_, err := t.exec(`UPDATE command SET consumed = 1 WHERE id = $1 AND project = $2 AND application = $3 AND environment = $4`,
		string(id), key.Project, key.Application, key.Environment)
	return err
}

func (t *sqlTables) addEffect(k delivery.EffectKey, key delivery.PlacementKey, target string, doc []byte) (bool, error) {
	n, err := t.exec(`INSERT INTO effect (deployment, sequence, project, application, environment, target, doc)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (deployment, sequence) DO NOTHING`,
		string(k.Deployment), k.Sequence, key.Project, key.Application, key.Environment, target, string(doc))
	return n > 0, err
}

func (t *sqlTables) setResult(k delivery.EffectKey, doc []byte) (key delivery.PlacementKey, set bool, err error) {
	set, err = t.row(`UPDATE effect SET done = 1 WHERE deployment = $1 AND sequence = $2 AND done = 0
		RETURNING project, application, environment`,
		[]any{string(k.Deployment), k.Sequence}, &key.Project, &key.Application, &key.Environment)
	if err != nil || !set {
		return key, false, err
	}
	_, err = t.exec(`INSERT INTO result (deployment, sequence, project, application, environment, doc) VALUES ($1, $2, $3, $4, $5, $6)`,
		string(k.Deployment), k.Sequence, key.Project, key.Application, key.Environment, string(doc))
	return key, true, err
}

func (t *sqlTables) consumeResult(k delivery.EffectKey, key delivery.PlacementKey) error {
	_, err := t.exec(`UPDATE result SET consumed = 1
		WHERE deployment = $1 AND sequence = $2 AND project = $3 AND application = $4 AND environment = $5`,
		string(k.Deployment), k.Sequence, key.Project, key.Application, key.Environment)
	return err
}

func (t *sqlTables) results(key delivery.PlacementKey) ([][]byte, error) {
	return t.docs(`SELECT doc FROM result WHERE project = $1 AND application = $2 AND environment = $3 AND consumed = 0 ORDER BY seq`,
		key.Project, key.Application, key.Environment)
}

const pendingEffects = `SELECT e.doc, p.token FROM effect e JOIN placement p
	ON p.project = e.project AND p.application = e.application AND p.environment = e.environment WHERE e.done = 0`

func scanEffect(rows *sql.Rows, r *effectRow) error { return rows.Scan(&r.doc, &r.token) }

func (t *sqlTables) pending(key delivery.PlacementKey) ([]effectRow, error) {
	return query(t.connection, scanEffect, pendingEffects+` AND e.project = $1 AND e.application = $2 AND e.environment = $3 ORDER BY e.seq`,
		key.Project, key.Application, key.Environment)
}

func (t *sqlTables) pendingOnTarget(target string) ([]effectRow, error) {
	return query(t.connection, scanEffect, pendingEffects+` AND e.target = $1 ORDER BY e.seq`, target)
}

func (t *sqlTables) addTurn(deployments []delivery.ID, doc []byte) error {
	if len(deployments) == 0 {
		return nil
	}
	var seq int64
	if _, err := t.row(`INSERT INTO turn (doc) VALUES ($1) RETURNING seq`, []any{string(doc)}, &seq); err != nil {
		return err
	}
	for _, id := range deployments {
		if _, err := t.exec(`INSERT INTO turn_deployment (deployment, turn) VALUES ($1, $2)`, string(id), seq); err != nil {
			return err
		}
	}
	return nil
}

func (t *sqlTables) turns(id delivery.ID) ([][]byte, error) {
	return t.docs(`SELECT t.doc FROM turn_deployment d JOIN turn t ON t.seq = d.turn WHERE d.deployment = $1 ORDER BY t.seq`, string(id))
}

func (t *sqlTables) addPlan(d delivery.Digest, doc []byte, targets []string) error {
	n, err := t.exec(`INSERT INTO plan (digest, doc) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING`, string(d), string(doc))
	if err != nil || n == 0 {
		return err
	}
	for _, target := range targets {
		if _, err := t.exec(`INSERT INTO plan_target (plan, target) VALUES ($1, $2)`, string(d), target); err != nil {
			return err
		}
	}
	return nil
}

func (t *sqlTables) plan(d delivery.Digest) ([]byte, error) {
	return t.doc(`SELECT doc FROM plan WHERE digest = $1`, string(d))
}

func (t *sqlTables) auditSize() (int64, error) {
	var n int64
	_, err := t.row(`SELECT COALESCE(MAX(seq) + 1, 0) FROM audit_entry`, nil, &n)
	return n, err
}

func (t *sqlTables) addAudit(e AuditEntry) error {
	_, err := t.exec(`INSERT INTO audit_entry (seq, leaf, payload, salt) VALUES ($1, $2, $3, $4)`,
		e.Index, string(e.Leaf), string(e.Payload), base64.StdEncoding.EncodeToString(e.Salt))
	return err
}

func (t *sqlTables) auditEntries(from int64, limit int) ([]AuditEntry, error) {
	return query(t.connection, func(rows *sql.Rows, e *AuditEntry) error {
		var payload, salt sql.NullString
		if err := rows.Scan(&e.Index, &e.Leaf, &payload, &salt); err != nil || !payload.Valid {
			return err
		}
		e.Payload = []byte(payload.String)
		var err error
		e.Salt, err = base64.StdEncoding.DecodeString(salt.String)
		return err
	}, `SELECT seq, leaf, payload, salt FROM audit_entry WHERE seq >= $1 ORDER BY seq LIMIT $2`, from, limit)
}

func (t *sqlTables) addHashes(first int64, hashes [][32]byte) error {
	for i, h := range hashes {
		_, err := t.exec(`INSERT INTO audit_hash (seq, hash) VALUES ($1, $2)`, first+int64(i), base64.StdEncoding.EncodeToString(h[:]))
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *sqlTables) hashes(indexes []int64) ([][32]byte, error) {
	hashes := make([][32]byte, len(indexes))
	for i, index := range indexes {
		text, err := t.doc(`SELECT hash FROM audit_hash WHERE seq = $1`, index)
		if err != nil {
			return nil, err
		}
		if text == nil {
			return nil, noHash(index)
		}
		var hash [33]byte // a correct text leaves the last byte free
		if n, err := base64.StdEncoding.Decode(hash[:], text); err != nil || n != 32 {
			return nil, internalError(err, "audit hash %d of %d bytes", index, n)
		}
		hashes[i] = [32]byte(hash[:32])
	}
	return hashes, nil
}
