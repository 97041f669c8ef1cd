package store_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tidegate-cd/tidegate/internal/audit"
	"github.com/tidegate-cd/tidegate/internal/delivery"
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

// What a store has written, the audit log can sign, prove and export.
func TestAuditLogOfAStore(t *testing.T) {
	dir, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	key, err := audit.OpenKey(dir, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]storetest.Open{"memory": openMemory, "sqlite": openSQLite} {
		s := open(t, store.Options{})
		for i := range 21 {
			c := store.Change{}
			for j := range i % 4 {
				c.Events = append(c.Events, delivery.Event{ID: delivery.ID(fmt.Sprint(i, "-", j)), Type: delivery.EventStepDone, Message: "<Done> & 'well'."})
			}
			if _, err := s.Commit(ctx, c); err != nil {
				t.Fatal(err)
			}
		}
		log := audit.NewLog(s, key)
		var text bytes.Buffer
		if err := log.Export(ctx, &text); err != nil {
			t.Fatal(err)
		}
		if summary, err := audit.Verify(&text, log.Verifier(), ""); err != nil || summary.EntryCount != 30 {
			t.Errorf("%s: got %+v, %v; want 30 verified entries", name, summary, err)
		}
		proof, err := log.InclusionProof(ctx, 17)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := audit.VerifyProof(proof, log.Verifier()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
