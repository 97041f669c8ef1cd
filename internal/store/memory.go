package store

import (
	"context"
	"sync"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// NewMemory returns a store that forgets everything when the process ends: for
// scenarios, simulations and tests. It keeps the same documents as the SQLite
// store, so what is read from it shares nothing with what was written.
func NewMemory(o Options) Store {
	return newCore(&memory{tables: newMemoryTables()}, o)
}

// memory is the backend of [NewMemory].
type memory struct {
	mu     sync.RWMutex
	tables *memoryTables
}

func (m *memory) view(ctx context.Context, fn func(t tables) error) error {
	if err := ctx.Err(); err != nil {
		return ended(err)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return fn(m.tables)
}

func (m *memory) update(ctx context.Context, fn func(t tables) error) error {
	if err := ctx.Err(); err != nil {
		return ended(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	done := false
	defer func() {
		if !done {
			m.tables.undo.roll()
		}
		m.tables.undo = nil
	}()
	if err := fn(m.tables); err != nil {
		return err
	}
	done = true
	return nil
}

func (m *memory) close() error { return nil }

// ended is the error of a call whose context is done.
func ended(cause error) error {
	return delivery.Wrap(delivery.CodeUnavailable, cause, "The request was ended before the store could answer; try again.")
}

// undo takes back what a failed transaction wrote.
type undo []func()

func (u *undo) add(f func()) { *u = append(*u, f) }

func (u undo) roll() {
	for i := len(u) - 1; i >= 0; i-- {
		u[i]()
	}
}

// set writes m[k] so that it can be undone.
func set[K comparable, V any](u *undo, m map[K]V, k K, v V) {
	before, had := m[k]
	u.add(func() {
		if had {
			m[k] = before
		} else {
			delete(m, k)
		}
	})
	m[k] = v
}

// unset deletes m[k] so that it can be undone.
func unset[K comparable, V any](u *undo, m map[K]V, k K) {
	if before, had := m[k]; had {
		u.add(func() { m[k] = before })
		delete(m, k)
	}
}

// push appends so that it can be undone.
func push[T any](u *undo, list *[]T, values ...T) {
	before := *list
	u.add(func() { *list = before })
	*list = append(*list, values...)
}
