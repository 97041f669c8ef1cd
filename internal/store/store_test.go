package store_test

import (
	"path/filepath"
	"testing"

	"github.com/tidegate-cd/tidegate/internal/store"
	"github.com/tidegate-cd/tidegate/internal/store/storetest"
)

func openMemory(_ testing.TB, o store.Options) store.Store { return store.NewMemory(o) }

func openSQLite(t testing.TB, o store.Options) store.Store {
	return openFile(t, filepath.Join(t.TempDir(), "tidegate.db"), o)
}

func openFile(t testing.TB, path string, o store.Options) store.Store {
	t.Helper()
	s, err := store.OpenSQLite(t.Context(), path, o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return s
}

func TestMemory(t *testing.T) { storetest.Exercise(t, openMemory) }

func TestSQLite(t *testing.T) { storetest.Exercise(t, openSQLite) }
