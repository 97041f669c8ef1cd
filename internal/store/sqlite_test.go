package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// open gives the store and its insides.
func open(t testing.TB, path string) (*core, *sqliteBackend) {
	t.Helper()
	s, err := OpenSQLite(t.Context(), path, Options{})
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	c, ok := s.(*core)
	if !ok {
		t.Fatalf("got a %T", s)
	}
	b, ok := c.backend.(*sqliteBackend)
	if !ok {
		t.Fatalf("got a %T", c.backend)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c, b
}

func command(id string) Change {
	return Change{
		Commands: []delivery.Command{{ID: delivery.ID(id), Key: delivery.PlacementKey{Project: "p", Application: "a", Environment: "e"}}},
		Events:   []delivery.Event{{ID: delivery.ID(id), Type: "test.done", Message: strings.Repeat("x", 1000)}},
	}
}

// ids returns the commands and the number of audit entries that are stored.
func ids(t testing.TB, s Store) (map[string]bool, int64) {
	t.Helper()
	size, err := s.AuditSize(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	r, err := s.Placement(context.Background(), delivery.PlacementKey{Project: "p", Application: "a", Environment: "e"})
	if err != nil && delivery.ErrorCode(err) != delivery.CodeNotFound {
		t.Fatal(err)
	}
	for _, c := range r.Commands {
		got[string(c.ID)] = true
	}
	return got, size
}

func TestSQLiteReopens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c#d%41.db")
	for i := range 3 {
		s, _ := open(t, path)
		if got, size := ids(t, s); len(got) != i || size != int64(i) {
			t.Fatalf("after %d commits: %d commands, %d entries", i, len(got), size)
		}
		if _, err := s.Commit(t.Context(), command(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 1 {
		t.Fatalf("got files %v (%v), want only the database", files, err)
	}
	info, err := files[0].Info()
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v (%v), want 0600", info.Mode(), err)
	}
}

func TestSQLiteAfterClose(t *testing.T) {
	s, _ := open(t, filepath.Join(t.TempDir(), "x.db"))
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Commit(t.Context(), command("x"))
	if delivery.ErrorCode(err) != delivery.CodeUnavailable {
		t.Errorf("commit: got error %v, want unavailable", err)
	}
	if _, err := s.AuditSize(t.Context()); delivery.ErrorCode(err) != delivery.CodeUnavailable {
		t.Errorf("read: got error %v, want unavailable", err)
	}
}

func TestSQLiteRefusesToOpen(t *testing.T) {
	dir := t.TempDir()
	noDatabase := filepath.Join(dir, "text.db")
	if err := os.WriteFile(noDatabase, []byte(strings.Repeat("This is no database.\n", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	s, b := open(t, newer)
	if _, err := b.writer.connection.exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)`); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		code delivery.Code
		want string
	}{
		{filepath.Join(dir, "no", "such", "dir.db"), delivery.CodeUnavailable, "directory exists"},
		{dir, delivery.CodeUnavailable, "can't be opened"},
		{noDatabase, delivery.CodeInternal, "no tidegate database"},
		{newer, delivery.CodeInvalid, "newer tidegate"},
	} {
		s, err := OpenSQLite(t.Context(), tt.path, Options{})
		if err == nil {
			t.Errorf("%s was opened", tt.path)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		if delivery.ErrorCode(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v of code %s, want %s with %q", tt.path, err, delivery.ErrorCode(err), tt.code, tt.want)
		}
	}
}

// pragma sets a limit on the writer for the time of a test step.
func pragma(t *testing.T, b *sqliteBackend, text string) {
	t.Helper()
	if _, err := b.writer.connection.row("PRAGMA "+text, nil, new(any)); err != nil {
		t.Fatal(err)
	}
}

func TestSQLiteFullDisk(t *testing.T) {
	s, b := open(t, filepath.Join(t.TempDir(), "x.db"))
	if _, err := s.Commit(t.Context(), command("first")); err != nil {
		t.Fatal(err)
	}
	var pages int64
	if _, err := b.writer.connection.row("PRAGMA page_count", nil, &pages); err != nil {
		t.Fatal(err)
	}
	pragma(t, b, fmt.Sprintf("max_page_count = %d", pages+10))
	fill(t, s)
	pragma(t, b, "max_page_count = 1000000")
	if _, err := s.Commit(t.Context(), command("after")); err != nil {
		t.Fatalf("with room again: %v", err)
	}
}

// fill commits until the disk is full, and checks that what was refused left
// nothing, that reads go on and that small changes still may succeed.
func fill(t *testing.T, s Store) {
	t.Helper()
	for i := range 10000 {
		before, size := ids(t, s)
		_, err := s.Commit(t.Context(), command(fmt.Sprint("fill-", i)))
		if err == nil {
			continue
		}
		if delivery.ErrorCode(err) != delivery.CodeUnavailable || !strings.Contains(err.Error(), "full") {
			t.Fatalf("got error %v, want one that says that the disk is full", err)
		}
		if after, sizeAfter := ids(t, s); len(after) != len(before) || sizeAfter != size {
			t.Fatalf("the refused change left %d commands and %d entries of %d and %d", len(after), sizeAfter, len(before), size)
		}
		return
	}
	t.Fatal("the disk did not get full")
}

func TestSQLiteFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("a file system of limited size needs the right to mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := open(t, filepath.Join(dir, "x.db"))
	fill(t, s)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), command("after")); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, _ := open(t, filepath.Join(dir, "x.db"))
	if got, _ := ids(t, again); !got["after"] {
		t.Error("what was committed after the full disk is gone")
	}
}

func TestSQLiteReadOnly(t *testing.T) {
	s, b := open(t, filepath.Join(t.TempDir(), "x.db"))
	if _, err := b.writer.connection.exec("PRAGMA query_only = 1"); err != nil {
		t.Fatal(err)
	}
	_, err := s.Commit(t.Context(), command("x"))
	if delivery.ErrorCode(err) != delivery.CodeUnavailable || !strings.Contains(err.Error(), "can't be written") {
		t.Errorf("got error %v, want one that says that it can't be written", err)
	}
	if _, err := b.writer.connection.exec("PRAGMA query_only = 0"); err != nil {
		t.Fatal(err)
	}
	if got, _ := ids(t, s); len(got) != 0 {
		t.Errorf("the refused change left %v", got)
	}
	if _, err := s.Commit(t.Context(), command("x")); err != nil {
		t.Errorf("when it may be written again: %v", err)
	}
}

// queue starts updates while the writer is busy, so that they share a transaction.
func queue(t *testing.T, w *writer, updates ...func() error) []error {
	t.Helper()
	w.turn <- struct{}{} // the disk is being waited for
	release := sync.OnceFunc(func() { <-w.turn })
	defer release()
	errs := make([]error, len(updates))
	var group sync.WaitGroup
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i, update := range updates {
		group.Go(func() { errs[i] = update() })
		for queued := 0; queued <= i; { // in this order
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("update %d was not queued", i)
			}
			w.mu.Lock()
			queued = len(w.queue)
			w.mu.Unlock()
		}
	}
	release()
	group.Wait()
	return errs
}

func TestSQLiteGroupCommit(t *testing.T) {
	s, b := open(t, filepath.Join(t.TempDir(), "x.db"))
	commit := func(c Change) func() error {
		return func() error { _, err := s.Commit(context.Background(), c); return err }
	}
	wrong := errors.New("wrong")
	bad := command("bad")
	bad.Expect = []Expectation{{Kind: "Target", Name: "x", Revision: 1}}
	errs := queue(t, b.writer,
		commit(command("one")), commit(bad), commit(command("two")),
		func() error {
			return s.backend.update(context.Background(), func(t tables) error {
				if err := t.putHost("h", []byte(`{"name":"h"}`)); err != nil {
					return err
				}
				return wrong
			})
		},
		func() error {
			return s.backend.update(context.Background(), func(tables) error { panic("a mistake") })
		},
		commit(command("three")),
	)
	for i, want := range []delivery.Code{"", delivery.CodeConflict, "", delivery.CodeInternal, delivery.CodeInternal, ""} {
		if got := delivery.ErrorCode(errs[i]); got != want {
			t.Errorf("update %d: got error %v, want code %q", i, errs[i], want)
		}
	}
	if !errors.Is(errs[3], wrong) {
		t.Errorf("got error %v, want the operation's own", errs[3])
	}
	got, size := ids(t, s)
	if len(got) != 3 || !got["one"] || !got["two"] || !got["three"] || size != 3 {
		t.Errorf("got %v and %d entries, want one, two, three", got, size)
	}
	if _, err := s.Host(t.Context(), "h"); delivery.ErrorCode(err) != delivery.CodeNotFound {
		t.Errorf("the failed operation's write stayed: %v", err)
	}
}

// When a shared transaction is refused, what fits alone is still done.
func TestSQLiteGroupCommitOnFullDisk(t *testing.T) {
	s, b := open(t, filepath.Join(t.TempDir(), "x.db"))
	if _, err := s.Commit(t.Context(), command("first")); err != nil {
		t.Fatal(err)
	}
	var pages int64
	if _, err := b.writer.connection.row("PRAGMA page_count", nil, &pages); err != nil {
		t.Fatal(err)
	}
	pragma(t, b, fmt.Sprintf("max_page_count = %d", pages+8))
	big := Change{Plans: []delivery.Plan{{Digest: delivery.Digest(strings.Repeat("x", 1<<20))}}}
	small := Change{Hosts: []Host{{Name: "h"}}}
	commit := func(c Change) func() error {
		return func() error { _, err := s.Commit(context.Background(), c); return err }
	}
	errs := queue(t, b.writer, commit(small), commit(big), commit(small))
	for i, want := range []delivery.Code{"", delivery.CodeUnavailable, ""} {
		if got := delivery.ErrorCode(errs[i]); got != want {
			t.Errorf("update %d: got error %v, want code %q", i, errs[i], want)
		}
	}
}

func TestSQLiteEndedContext(t *testing.T) {
	s, b := open(t, filepath.Join(t.TempDir(), "x.db"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.writer.turn <- struct{}{} // the disk is being waited for
	failed := make(chan error)
	go func() {
		_, err := s.Commit(ctx, command("two"))
		failed <- err
	}()
	cancel()
	err := <-failed // without waiting for the disk
	<-b.writer.turn
	if delivery.ErrorCode(err) != delivery.CodeUnavailable || !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want unavailable", err)
	}
	if _, err := s.Commit(t.Context(), command("one")); err != nil {
		t.Fatal(err)
	}
	if got, _ := ids(t, s); len(got) != 1 || !got["one"] {
		t.Errorf("got %v, want only one", got)
	}
	if _, err := s.AuditSize(ctx); delivery.ErrorCode(err) != delivery.CodeUnavailable {
		t.Errorf("a read with an ended context: got error %v", err)
	}
}

// A copy of the files at any moment is what a crash leaves.
func TestSQLiteCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	s, _ := open(t, path)
	for i := range 20 {
		if _, err := s.Commit(t.Context(), command(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	crashed := filepath.Join(t.TempDir(), "x.db")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(crashed+suffix, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again, _ := open(t, crashed)
	if got, size := ids(t, again); len(got) != 20 || size != 20 {
		t.Errorf("got %d commands and %d entries of 20", len(got), size)
	}
}

// TestSQLiteKilled kills a process that commits as fast as it can: all that it
// said was committed is there, and nothing half.
func TestSQLiteKilled(t *testing.T) {
	if path := os.Getenv("TIDEGATE_STORE_VICTIM"); path != "" {
		victim(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "x.db")
	total := 0
	for round := range 3 {
		child := exec.Command(os.Args[0], "-test.run=^TestSQLiteKilled$", "-test.v")
		child.Env = append(os.Environ(), "TIDEGATE_STORE_VICTIM="+path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		said := map[string]bool{}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if id, ok := strings.CutPrefix(lines.Text(), "committed "); ok {
				said[id] = true
			}
			if len(said) == 40*(round+1) {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = child.Wait() // it was killed
		if len(said) < 40 {
			t.Fatalf("the process ended by itself after %d commits", len(said))
		}
		total += len(said)
		s, _ := open(t, path)
		got, size := ids(t, s)
		for id := range said {
			if !got[id] {
				t.Errorf("%s was committed and is gone", id)
			}
		}
		if size != int64(len(got)) || len(got) < total {
			t.Errorf("got %d commands with %d audit entries, want equal numbers of at least %d", len(got), size, total)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func victim(t *testing.T, path string) {
	s, _ := open(t, path)
	var out sync.Mutex
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for j := range 100_000 {
				id := fmt.Sprintf("%d-%d-%d", os.Getpid(), i, j)
				if _, err := s.Commit(t.Context(), command(id)); err != nil {
					t.Error(err)
					return
				}
				out.Lock()
				fmt.Printf("committed %s\n", id)
				out.Unlock()
			}
		})
	}
	group.Wait()
}
