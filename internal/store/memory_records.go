package store

import (
	"cmp"
	"slices"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// memoryRecords is the rows that no placement is claimed by.
type memoryRecords struct {
	deploymentRows map[delivery.ID]memoryDeployment
	objectRows     map[objectKey]objectRow
	revisionDocs   map[revisionKey][]byte
	releaseRows    []releaseRow // in order of commit
	releaseIndex   map[delivery.Digest]int
	versionIndex   map[versionKey]int
	reportDocs     map[string][]byte
	decisionRows   []memoryDecision // in order of commit
	decisionIndex  map[delivery.ID]int
	inputDocs      map[delivery.Digest][]byte
	inventoryRows  []inventoryRow // in order of commit; seq is the position plus one
	inventoryOpen  map[inventoryKey]int
	tokenDocs      map[delivery.ID][]byte
	tokenHashes    map[string]delivery.ID
	hostDocs       map[string][]byte
	remembers      map[string]idempotencyRow
	auditRows      []AuditEntry
	hashRows       [][32]byte
}

type memoryDeployment struct {
	deploymentRow
	seq int64
}

type memoryDecision struct {
	project string
	doc     []byte
}

type revisionKey struct {
	objectKey
	revision int64
}

type versionKey struct{ project, application, version string }

type inventoryKey struct {
	delivery.PlacementKey
	target, service string
}

func newMemoryRecords() memoryRecords {
	return memoryRecords{
		deploymentRows: map[delivery.ID]memoryDeployment{},
		objectRows:     map[objectKey]objectRow{},
		revisionDocs:   map[revisionKey][]byte{},
		releaseIndex:   map[delivery.Digest]int{},
		versionIndex:   map[versionKey]int{},
		reportDocs:     map[string][]byte{},
		decisionIndex:  map[delivery.ID]int{},
		inputDocs:      map[delivery.Digest][]byte{},
		inventoryOpen:  map[inventoryKey]int{},
		tokenDocs:      map[delivery.ID][]byte{},
		tokenHashes:    map[string]delivery.ID{},
		hostDocs:       map[string][]byte{},
		remembers:      map[string]idempotencyRow{},
	}
}

func (m *memoryTables) putDeployment(r deploymentRow) error {
	before, ok := m.deploymentRows[r.id]
	if !ok {
		before.seq = m.next()
	}
	set(&m.undo, m.deploymentRows, r.id, memoryDeployment{r, before.seq})
	return nil
}

func (m *memoryTables) deployment(id delivery.ID) ([]byte, error) {
	return m.deploymentRows[id].doc, nil
}

func (m *memoryTables) deployments(f DeploymentFilter, before int64, limit int) ([]seqDoc, error) {
	var rows []seqDoc
	for _, r := range m.deploymentRows {
		if r.seq < before && f.selects(r.deploymentRow) {
			rows = append(rows, seqDoc{r.seq, r.doc})
		}
	}
	slices.SortFunc(rows, func(a, b seqDoc) int { return cmp.Compare(b.seq, a.seq) })
	return rows[:min(limit, len(rows))], nil
}

// matches reports whether a filter's value, "" for any, selects value.
func matches[T ~string](filter, value T) bool { return filter == "" || filter == value }

func (f DeploymentFilter) selects(r deploymentRow) bool {
	return matches(f.Project, r.key.Project) && matches(f.Application, r.key.Application) &&
		matches(f.Environment, r.key.Environment) && matches(f.Release, r.release) && !(f.Active && r.terminal)
}

func (m *memoryTables) object(k objectKey) (objectRow, bool, error) {
	r, ok := m.objectRows[k]
	return r, ok, nil
}

func (m *memoryTables) putObject(r objectRow, newRevision bool) error {
	set(&m.undo, m.objectRows, r.objectKey, r)
	if newRevision {
		set(&m.undo, m.revisionDocs, revisionKey{r.objectKey, r.revision}, r.doc)
	}
	return nil
}

func (m *memoryTables) objectAt(k objectKey, revision int64) ([]byte, error) {
	return m.revisionDocs[revisionKey{k, revision}], nil
}

func compareObjects(a, b objectKey) int {
	return cmp.Or(cmp.Compare(a.project, b.project), cmp.Compare(a.name, b.name))
}

func (m *memoryTables) objects(kind delivery.Kind, project string, after objectKey, limit int) ([]objectRow, error) {
	var rows []objectRow
	for k, r := range m.objectRows {
		if k.kind == kind && matches(project, k.project) && !r.deleted && compareObjects(k, after) > 0 {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b objectRow) int { return compareObjects(a.objectKey, b.objectKey) })
	return rows[:min(limit, len(rows))], nil
}

func (m *memoryTables) addRelease(r releaseRow) error {
	set(&m.undo, m.releaseIndex, r.digest, len(m.releaseRows))
	set(&m.undo, m.versionIndex, versionKey{r.project, r.application, r.version}, len(m.releaseRows))
	push(&m.undo, &m.releaseRows, r)
	return nil
}

func (m *memoryTables) release(d delivery.Digest) ([]byte, error) {
	i, ok := m.releaseIndex[d]
	if !ok {
		return nil, nil
	}
	return m.releaseRows[i].doc, nil
}

func (m *memoryTables) releaseByVersion(project, application, version string) (delivery.Digest, []byte, error) {
	i, ok := m.versionIndex[versionKey{project, application, version}]
	if !ok {
		return "", nil, nil
	}
	return m.releaseRows[i].digest, m.releaseRows[i].doc, nil
}

func (m *memoryTables) releases(project, application string, before int64, limit int) ([]seqDoc, error) {
	return backwards(m.releaseRows, before, limit, func(r releaseRow) ([]byte, bool) {
		return r.doc, matches(project, r.project) && matches(application, r.application)
	}), nil
}

// backwards reads a list from its end; a row's sequence is its position plus one.
func backwards[T any](list []T, before int64, limit int, read func(T) ([]byte, bool)) []seqDoc {
	var rows []seqDoc
	for i := min(before-1, int64(len(list))); i > 0 && len(rows) < limit; i-- {
		if doc, ok := read(list[i-1]); ok {
			rows = append(rows, seqDoc{i, doc})
		}
	}
	return rows
}

func (m *memoryTables) putReport(target string, doc []byte) error {
	set(&m.undo, m.reportDocs, target, doc)
	return nil
}

func (m *memoryTables) report(target string) ([]byte, error) { return m.reportDocs[target], nil }

func (m *memoryTables) reports() ([][]byte, error) { return sortedValues(m.reportDocs), nil }

func (m *memoryTables) addDecision(id delivery.ID, project string, _ delivery.Digest, doc []byte) error {
	if _, ok := m.decisionIndex[id]; !ok {
		set(&m.undo, m.decisionIndex, id, len(m.decisionRows))
		push(&m.undo, &m.decisionRows, memoryDecision{project, doc})
	}
	return nil
}

func (m *memoryTables) addInput(d delivery.Digest, doc []byte) error {
	if _, ok := m.inputDocs[d]; !ok {
		set(&m.undo, m.inputDocs, d, slices.Clone(doc))
	}
	return nil
}

func (m *memoryTables) input(d delivery.Digest) ([]byte, error) { return m.inputDocs[d], nil }

func (m *memoryTables) decision(id delivery.ID) ([]byte, error) {
	i, ok := m.decisionIndex[id]
	if !ok {
		return nil, nil
	}
	return m.decisionRows[i].doc, nil
}

func (m *memoryTables) decisions(project string, before int64, limit int) ([]seqDoc, error) {
	return backwards(m.decisionRows, before, limit, func(r memoryDecision) ([]byte, bool) {
		return r.doc, matches(project, r.project)
	}), nil
}

func (m *memoryTables) closeInventory(key delivery.PlacementKey, target, service string, until int64) error {
	k := inventoryKey{key, target, service}
	i, ok := m.inventoryOpen[k]
	if !ok {
		return nil
	}
	unset(&m.undo, m.inventoryOpen, k)
	before := m.inventoryRows[i]
	rows := m.inventoryRows
	m.undo.add(func() { rows[i] = before })
	rows[i].until = max(until, before.since)
	return nil
}

func (m *memoryTables) addInventory(r inventoryRow) error {
	if r.until == never {
		set(&m.undo, m.inventoryOpen, inventoryKey{r.key, r.target, r.service}, len(m.inventoryRows))
	}
	r.seq = int64(len(m.inventoryRows)) + 1
	push(&m.undo, &m.inventoryRows, r)
	return nil
}

func (m *memoryTables) inventory(q inventoryQuery, after int64, limit int) ([]inventoryRow, error) {
	var rows []inventoryRow
	for _, r := range m.inventoryRows[min(max(after, 0), int64(len(m.inventoryRows))):] {
		if len(rows) == limit {
			break
		}
		if q.selects(r) {
			rows = append(rows, r)
		}
	}
	return rows, nil
}

func (q inventoryQuery) selects(r inventoryRow) bool {
	return matches(q.project, r.key.Project) && matches(q.application, r.key.Application) &&
		matches(q.environment, r.key.Environment) && matches(q.artifact, r.artifact) &&
		r.since <= q.at && (q.history || r.until > q.at || r.until == never)
}

func (m *memoryTables) putToken(id delivery.ID, hash string, doc []byte) error {
	set(&m.undo, m.tokenDocs, id, doc)
	set(&m.undo, m.tokenHashes, hash, id)
	return nil
}

func (m *memoryTables) token(id delivery.ID) ([]byte, error) { return m.tokenDocs[id], nil }

func (m *memoryTables) tokenByHash(hash string) ([]byte, error) {
	return m.tokenDocs[m.tokenHashes[hash]], nil
}

func (m *memoryTables) tokens() ([][]byte, error) { return sortedValues(m.tokenDocs), nil }

func (m *memoryTables) putHost(name string, doc []byte) error {
	set(&m.undo, m.hostDocs, name, doc)
	return nil
}

func (m *memoryTables) host(name string) ([]byte, error) { return m.hostDocs[name], nil }

func (m *memoryTables) hosts() ([][]byte, error) { return sortedValues(m.hostDocs), nil }

func (m *memoryTables) remember(r idempotencyRow, forgetBefore int64) error {
	for key, old := range m.remembers {
		if old.at < forgetBefore {
			unset(&m.undo, m.remembers, key)
		}
	}
	set(&m.undo, m.remembers, r.key, r)
	return nil
}

func (m *memoryTables) remembered(key string) (idempotencyRow, bool, error) {
	r, ok := m.remembers[key]
	return r, ok, nil
}
