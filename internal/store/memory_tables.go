package store

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// memoryTables is tables in maps. A transaction's writes are undone when it fails.
type memoryTables struct {
	undo undo
	seq  int64 // of everything that has an order

	placementRows map[delivery.PlacementKey]placementRow
	dueKeys       map[delivery.PlacementKey]bool // of rows that are due at some time
	stateDocs     map[delivery.PlacementKey][]byte
	commandIDs    map[delivery.ID]bool
	commandRows   map[delivery.PlacementKey][]memoryCommand // not consumed
	effectRows    map[delivery.EffectKey]memoryEffect
	openEffects   map[delivery.PlacementKey][]delivery.EffectKey // without a consumed result, in order of commit
	turnDocs      map[delivery.ID][][]byte

	planDocs    map[delivery.Digest][]byte
	planTargets map[delivery.Digest][]string
	memoryRecords
}

type memoryCommand struct {
	id  delivery.ID
	doc []byte
}

type memoryEffect struct {
	seq       int64
	key       delivery.PlacementKey
	target    string
	doc       []byte
	result    []byte // nil while pending
	resultSeq int64
	consumed  bool
}

func newMemoryTables() *memoryTables {
	return &memoryTables{
		placementRows: map[delivery.PlacementKey]placementRow{},
		dueKeys:       map[delivery.PlacementKey]bool{},
		stateDocs:     map[delivery.PlacementKey][]byte{},
		commandIDs:    map[delivery.ID]bool{},
		commandRows:   map[delivery.PlacementKey][]memoryCommand{},
		effectRows:    map[delivery.EffectKey]memoryEffect{},
		openEffects:   map[delivery.PlacementKey][]delivery.EffectKey{},
		turnDocs:      map[delivery.ID][][]byte{},
		planDocs:      map[delivery.Digest][]byte{},
		planTargets:   map[delivery.Digest][]string{},
		memoryRecords: newMemoryRecords(),
	}
}

// next numbers what is ordered. A number that a failed transaction took is not used again.
func (m *memoryTables) next() int64 {
	m.seq++
	return m.seq
}

func (m *memoryTables) placement(key delivery.PlacementKey) (placementRow, bool, error) {
	r, ok := m.placementRows[key]
	return r, ok, nil
}

func (m *memoryTables) putPlacement(r placementRow) error {
	set(&m.undo, m.placementRows, r.key, r)
	if r.due != never {
		set(&m.undo, m.dueKeys, r.key, true)
	} else {
		unset(&m.undo, m.dueKeys, r.key)
	}
	return nil
}

func (m *memoryTables) state(key delivery.PlacementKey) ([]byte, error) {
	return m.stateDocs[key], nil
}

func (m *memoryTables) putState(key delivery.PlacementKey, doc []byte) error {
	set(&m.undo, m.stateDocs, key, doc)
	return nil
}

func compareKeys(a, b delivery.PlacementKey) int {
	return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Application, b.Application), cmp.Compare(a.Environment, b.Environment))
}

func (m *memoryTables) placements(project string, after delivery.PlacementKey, limit int) ([]stateRow, error) {
	var rows []stateRow
	for key := range m.placementRows {
		if (project == "" || key.Project == project) && compareKeys(key, after) > 0 {
			rows = append(rows, stateRow{key, m.stateDocs[key]})
		}
	}
	slices.SortFunc(rows, func(a, b stateRow) int { return compareKeys(a.key, b.key) })
	return rows[:min(limit, len(rows))], nil
}

func (m *memoryTables) duePlacements(now, format int64, limit int) ([]placementRow, error) {
	var rows []placementRow
	for key := range m.dueKeys {
		r := m.placementRows[key]
		if r.due <= now && r.expires <= now && r.format <= format {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b placementRow) int {
		return cmp.Or(cmp.Compare(a.due, b.due), compareKeys(a.key, b.key))
	})
	return rows[:min(limit, len(rows))], nil
}

func (m *memoryTables) nextDue(format int64) (int64, error) {
	next := int64(never)
	for key := range m.dueKeys {
		if r := m.placementRows[key]; r.format <= format {
			next = min(next, max(r.due, r.expires))
		}
	}
	return next, nil
}

func (m *memoryTables) arriveOnTarget(target string, now int64) (bool, error) {
	arrived := false
	for _, r := range m.placementRows {
		if !r.heedsReport(now) {
			continue
		}
		if slices.Contains(m.planTargets[r.activePlan], target) || slices.Contains(m.planTargets[r.fromPlan], target) {
			r.arrive(now)
			if err := m.putPlacement(r); err != nil {
				return false, err
			}
			arrived = true
		}
	}
	return arrived, nil
}

func (m *memoryTables) waiting(key delivery.PlacementKey) (bool, error) {
	for _, k := range m.openEffects[key] {
		if m.effectRows[k].result != nil {
			return true, nil
		}
	}
	return len(m.commandRows[key]) > 0, nil
}

func (m *memoryTables) addCommand(id delivery.ID, key delivery.PlacementKey, doc []byte) (bool, error) {
	if m.commandIDs[id] {
		return false, nil
	}
	set(&m.undo, m.commandIDs, id, true)
	set(&m.undo, m.commandRows, key, append(slices.Clip(m.commandRows[key]), memoryCommand{id, doc}))
	return true, nil
}

func (m *memoryTables) commands(key delivery.PlacementKey) ([][]byte, error) {
	var docs [][]byte
	for _, c := range m.commandRows[key] {
		docs = append(docs, c.doc)
	}
	return docs, nil
}

func (m *memoryTables) consumeCommand(id delivery.ID, key delivery.PlacementKey) error {
	rest := slices.DeleteFunc(slices.Clone(m.commandRows[key]), func(c memoryCommand) bool { return c.id == id })
	set(&m.undo, m.commandRows, key, rest)
	return nil
}

func (m *memoryTables) addEffect(k delivery.EffectKey, key delivery.PlacementKey, target string, doc []byte) (bool, error) {
	if _, ok := m.effectRows[k]; ok {
		return false, nil
	}
	set(&m.undo, m.effectRows, k, memoryEffect{seq: m.next(), key: key, target: target, doc: doc})
	set(&m.undo, m.openEffects, key, append(slices.Clip(m.openEffects[key]), k))
	return true, nil
}

func (m *memoryTables) setResult(k delivery.EffectKey, doc []byte) (delivery.PlacementKey, bool, error) {
	e, ok := m.effectRows[k]
	if !ok || e.result != nil {
		return e.key, false, nil
	}
	e.result, e.resultSeq = doc, m.next()
	set(&m.undo, m.effectRows, k, e)
	return e.key, true, nil
}

func (m *memoryTables) consumeResult(k delivery.EffectKey, key delivery.PlacementKey) error {
	e, ok := m.effectRows[k]
	if !ok || e.result == nil || e.key != key {
		return nil
	}
	e.consumed = true
	set(&m.undo, m.effectRows, k, e)
	rest := slices.DeleteFunc(slices.Clone(m.openEffects[key]), func(other delivery.EffectKey) bool { return other == k })
	set(&m.undo, m.openEffects, key, rest)
	return nil
}

func (m *memoryTables) results(key delivery.PlacementKey) ([][]byte, error) {
	var open []memoryEffect
	for _, k := range m.openEffects[key] {
		if e := m.effectRows[k]; e.result != nil {
			open = append(open, e)
		}
	}
	slices.SortFunc(open, func(a, b memoryEffect) int { return cmp.Compare(a.resultSeq, b.resultSeq) })
	var docs [][]byte
	for _, e := range open {
		docs = append(docs, e.result)
	}
	return docs, nil
}

func (m *memoryTables) pending(key delivery.PlacementKey) ([]effectRow, error) {
	var rows []effectRow
	for _, k := range m.openEffects[key] {
		if e := m.effectRows[k]; e.result == nil {
			rows = append(rows, effectRow{e.doc, m.placementRows[key].token})
		}
	}
	return rows, nil
}

func (m *memoryTables) pendingOnTarget(target string) ([]effectRow, error) {
	var open []memoryEffect
	for _, keys := range m.openEffects {
		for _, k := range keys {
			if e := m.effectRows[k]; e.result == nil && e.target == target {
				open = append(open, e)
			}
		}
	}
	slices.SortFunc(open, func(a, b memoryEffect) int { return cmp.Compare(a.seq, b.seq) })
	var rows []effectRow
	for _, e := range open {
		rows = append(rows, effectRow{e.doc, m.placementRows[e.key].token})
	}
	return rows, nil
}

func (m *memoryTables) addTurn(deployments []delivery.ID, doc []byte) error {
	for _, id := range deployments {
		set(&m.undo, m.turnDocs, id, append(m.turnDocs[id], doc))
	}
	return nil
}

func (m *memoryTables) turns(id delivery.ID) ([][]byte, error) { return m.turnDocs[id], nil }

func (m *memoryTables) addPlan(d delivery.Digest, doc []byte, targets []string) error {
	if _, ok := m.planDocs[d]; !ok {
		set(&m.undo, m.planDocs, d, doc)
		set(&m.undo, m.planTargets, d, targets)
	}
	return nil
}

func (m *memoryTables) plan(d delivery.Digest) ([]byte, error) { return m.planDocs[d], nil }

func (m *memoryTables) auditSize() (int64, error) { return int64(len(m.auditRows)), nil }

func (m *memoryTables) addAudit(e AuditEntry) error {
	push(&m.undo, &m.auditRows, e)
	return nil
}

func (m *memoryTables) auditEntries(from int64, limit int) ([]AuditEntry, error) {
	size := int64(len(m.auditRows))
	from = min(from, size)
	return slices.Clone(m.auditRows[from:min(from+int64(limit), size)]), nil
}

func (m *memoryTables) addHashes(first int64, hashes [][32]byte) error {
	if first != int64(len(m.hashRows)) {
		return internalError(fmt.Errorf("%d hashes are stored", len(m.hashRows)), "hashes at %d", first)
	}
	push(&m.undo, &m.hashRows, hashes...)
	return nil
}

func (m *memoryTables) hashes(indexes []int64) ([][32]byte, error) {
	hashes := make([][32]byte, 0, len(indexes))
	for _, i := range indexes {
		if i < 0 || i >= int64(len(m.hashRows)) {
			return nil, noHash(i)
		}
		hashes = append(hashes, m.hashRows[i])
	}
	return hashes, nil
}

func noHash(index int64) error {
	return delivery.Errorf(delivery.CodeNotFound, "The audit tree has no hash %d yet.", index)
}

// sortedValues returns a map's values by key.
func sortedValues[K cmp.Ordered, V any](m map[K]V) []V {
	values := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		values = append(values, m[k])
	}
	return values
}
