package audit

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// list is a log in memory.
type list struct {
	entries []Entry
	hashes  [][32]byte
}

func (l *list) AuditSize(context.Context) (int64, error) { return int64(len(l.entries)), nil }

func (l *list) AuditEntries(_ context.Context, from int64, limit int) ([]Entry, error) {
	return l.entries[from:min(from+int64(limit), int64(len(l.entries)))], nil
}

func (l *list) AuditHashes(_ context.Context, indexes []int64) ([][32]byte, error) {
	var hashes [][32]byte
	for _, i := range indexes {
		hashes = append(hashes, l.hashes[i])
	}
	return hashes, nil
}

func (l *list) read(indexes []int64) ([]tlog.Hash, error) {
	var hashes []tlog.Hash
	for _, i := range indexes {
		hashes = append(hashes, l.hashes[i])
	}
	return hashes, nil
}

func (l *list) add(t testing.TB, e Entry) {
	t.Helper()
	hashes, err := Hashes(int64(len(l.entries)), e.Leaf, tlog.HashReaderFunc(l.read))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hashes {
		l.hashes = append(l.hashes, h)
	}
	l.entries = append(l.entries, e)
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func entry(t testing.TB, index int64, message string) Entry {
	t.Helper()
	payload, err := Payload(delivery.Event{
		ID: delivery.ID(fmt.Sprintf("e%d", index)), Type: delivery.EventReleaseCreated, Project: "default",
		Actor: delivery.Actor{Subject: "ana", Issuer: "tidegate", Channel: delivery.ChannelCLI},
		At:    start.Add(time.Duration(index) * time.Second), Message: message, Data: json.RawMessage(`{"z": 1.50, "a": "<&>"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	salt := make([]byte, SaltSize)
	if _, err := rand.Read(salt); err != nil {
		t.Fatal(err)
	}
	e, err := NewEntry(index, payload, salt)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func newKey(t testing.TB, name string) *Key {
	t.Helper()
	dir, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	k, err := OpenKey(dir, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newLog(t testing.TB, k *Key, n int) (*Log, *list) {
	t.Helper()
	l := &list{}
	for i := range n {
		l.add(t, entry(t, int64(i), fmt.Sprintf("Release %d was created.", i)))
	}
	return NewLog(l, k), l
}

func export(t testing.TB, l *Log) string {
	t.Helper()
	var b bytes.Buffer
	if err := l.Export(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func verify(text, key, older string) (Summary, error) {
	return Verify(strings.NewReader(text), key, older)
}

func TestVerifyAcceptsWhatIsTrue(t *testing.T) {
	k := newKey(t, "example.org/log")
	for _, n := range []int{0, 1, 2, 3, 7, 8, 9, 600} {
		log, l := newLog(t, k, n)
		for i := range l.entries {
			if i%5 == 2 {
				l.entries[i].Payload, l.entries[i].Salt = nil, nil
			}
		}
		s, err := verify(export(t, log), log.Verifier(), "")
		if err != nil {
			t.Fatalf("%d entries: %v", n, err)
		}
		signed, err := log.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		root, err := tlog.TreeHash(int64(n), tlog.HashReaderFunc(l.read))
		if err != nil {
			t.Fatal(err)
		}
		want := Summary{
			Checkpoint: Checkpoint{Origin: "example.org/log", Size: int64(n), Root: root}, Verifier: log.Verifier(),
			Erased: int64((n + 2) / 5), EntryCount: int64(n), Signed: signed,
		}
		if s != want {
			t.Errorf("%d entries: got %+v, want %+v", n, s, want)
		}
		s, err = verify(export(t, log), "", "")
		if err != nil || !s.OwnKey {
			t.Errorf("with its own key: got %+v, %v", s, err)
		}
	}
}

func TestVerifyAgainstOlder(t *testing.T) {
	k := newKey(t, "log")
	log, l := newLog(t, k, 0)
	var older []string
	for i := range 20 {
		signed, err := log.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		older = append(older, signed)
		l.add(t, entry(t, int64(i), "m"))
	}
	text := export(t, log)
	for size, signed := range older {
		s, err := verify(text, log.Verifier(), signed)
		if err != nil || s.OlderSize != int64(size) {
			t.Errorf("older of %d: got %+v, %v", size, s, err)
		}
	}
}

// lineEdit changes the lines of an export; line 0 is the header.
type lineEdit func(lines []string) []string

// forgery is something that [Verify] must find.
type forgery struct {
	name  string
	edit  lineEdit
	text  string // instead of edit
	key   string // default the log's
	older string
	want  string
}

// fixture is a log of ten entries with what a forger has.
type fixture struct {
	t               testing.TB
	key             *Key
	log             *Log
	list            *list
	older           string // checkpoint of the first six entries
	other, stranger *Key   // of the same name, and of another log
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{t: t, key: newKey(t, "log"), other: newKey(t, "log"), stranger: newKey(t, "elsewhere")}
	f.log, f.list = newLog(t, f.key, 10)
	first := &list{entries: f.list.entries[:6], hashes: f.list.hashes[:tlog.StoredHashCount(6)]}
	var err error
	if f.older, err = NewLog(first, f.key).Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// rewritten is the export of one who has the key and makes the log anew with
// one entry changed.
func (f *fixture) rewritten(changed, n int64) string {
	forged := &list{}
	for i := range n {
		if i == changed {
			forged.add(f.t, entry(f.t, i, "Nothing happened."))
		} else {
			forged.add(f.t, f.list.entries[i])
		}
	}
	return export(f.t, NewLog(forged, f.key))
}

func (f *fixture) withEntry(place int, edit func(e *Entry)) lineEdit {
	return func(lines []string) []string {
		e, err := decodeEntry([]byte(lines[place+1]))
		if err != nil {
			f.t.Fatal(err)
		}
		edit(&e)
		b, err := json.Marshal(e)
		if err != nil {
			f.t.Fatal(err)
		}
		lines[place+1] = string(b)
		return lines
	}
}

func (f *fixture) replaceHeader(from, to string) lineEdit {
	return func(lines []string) []string {
		if !strings.Contains(lines[0], from) {
			f.t.Fatalf("%q is not in the header %s", from, lines[0])
		}
		lines[0] = strings.Replace(lines[0], from, to, 1)
		return lines
	}
}

// entries change what an entry says.
func (f *fixture) entries() []forgery {
	return []forgery{
		{name: "changed payload", edit: f.withEntry(4, func(e *Entry) { e.Payload = bytes.Replace(e.Payload, []byte("Release 4"), []byte("Release 5"), 1) }), want: "payload of entry 4"},
		{name: "changed salt", edit: f.withEntry(4, func(e *Entry) { e.Salt = slices.Clone(e.Salt); e.Salt[3] ^= 1 }), want: "payload of entry 4"},
		{name: "short salt", edit: f.withEntry(4, func(e *Entry) { e.Salt = e.Salt[1:] }), want: "salt of entry 4"},
		{name: "payload without salt", edit: f.withEntry(4, func(e *Entry) { e.Salt = nil }), want: "Entry 4 has only one"},
		{name: "salt without payload", edit: f.withEntry(4, func(e *Entry) { e.Payload = nil }), want: "Entry 4 has only one"},
		{name: "changed leaf of an erased entry", edit: f.withEntry(4, func(e *Entry) {
			e.Payload, e.Salt = nil, nil
			e.Leaf = bytes.Replace(e.Leaf, []byte("release.created"), []byte("release.deleted"), 1)
		}), want: "An entry from 0 to 9 was changed together with its leaf"},
		{name: "payload and leaf made anew", edit: f.withEntry(4, func(e *Entry) { *e = entry(f.t, 4, "Nothing happened.") }), want: "An entry from 0 to 9 was changed together with its leaf"},
		{name: "the same after an older checkpoint", edit: f.withEntry(7, func(e *Entry) { *e = entry(f.t, 7, "Nothing happened.") }), older: f.older, want: "An entry from 6 to 9 was changed together with its leaf"},
		{name: "leaf is no leaf", edit: f.withEntry(4, func(e *Entry) { e.Leaf = []byte("{}x") }), want: "leaf of entry 4 is not a leaf"},
		{name: "leaf with other spacing", edit: f.withEntry(4, func(e *Entry) { e.Leaf = append([]byte(" "), e.Leaf...) }), want: "leaf of entry 4 is not in canonical form"},
	}
}

// lines remove, insert and move entries.
func (f *fixture) lines() []forgery {
	return []forgery{
		{name: "removed", edit: func(lines []string) []string { return slices.Delete(lines, 5, 6) }, want: "Entry 4 is missing: entry 5 stands in its place"},
		{name: "removed and numbered anew", edit: func(lines []string) []string {
			for i := 5; i < len(lines)-1; i++ {
				f.withEntry(i, func(e *Entry) { e.Index-- })(lines)
			}
			return slices.Delete(lines, 5, 6)
		}, want: "leaf of entry 4 belongs to entry 5"},
		{name: "last removed", edit: func(lines []string) []string { return lines[:10] }, want: "ends before entry 9"},
		{name: "all removed", edit: func(lines []string) []string { return lines[:1] }, want: "ends before entry 0"},
		{name: "last removed with a checkpoint for it", text: f.rewritten(-1, 5), older: f.older, want: "only 5, so entry 5 is missing"},
		{name: "inserted", edit: func(lines []string) []string {
			b, err := json.Marshal(entry(f.t, 4, "New."))
			if err != nil {
				f.t.Fatal(err)
			}
			return slices.Insert(lines, 5, string(b))
		}, want: "Entry 4 stands again in the place of entry 5"},
		{name: "appended", edit: func(lines []string) []string {
			b, err := json.Marshal(entry(f.t, 10, "New."))
			if err != nil {
				f.t.Fatal(err)
			}
			return append(lines, string(b))
		}, want: "Entry 10 stands after the end"},
		{name: "reordered", edit: func(lines []string) []string { lines[4], lines[5] = lines[5], lines[4]; return lines }, want: "Entry 3 is missing: entry 4 stands in its place"},
		{name: "line broken off", edit: func(lines []string) []string { lines[10] = lines[10][:40]; return lines }, want: "Entry 9 is not written"},
		{name: "unknown field", edit: func(lines []string) []string {
			lines[3] = strings.Replace(lines[3], "{", `{"x":1,`, 1)
			return lines
		}, want: "Entry 2 is not written"},
		{name: "field twice", edit: func(lines []string) []string {
			lines[3] = strings.Replace(lines[3], "{", `{"index":1,`, 1)
			return lines
		}, want: "Entry 2 is not written"},
		{name: "very long line", edit: func(lines []string) []string { lines[3] = strings.Repeat("x", exportLine+1); return lines }, want: "Entry 2 is longer"},
	}
}

// heads use another key, header or history.
func (f *fixture) heads() []forgery {
	return []forgery{
		{name: "another's key of the same name", key: f.other.Verifier(), want: "not signed by the key of log"},
		{name: "another log's key", key: f.stranger.Verifier(), want: "not signed by the key of elsewhere"},
		{name: "no key", key: "nonsense", want: "is not a public key"},
		{name: "checkpoint changed", edit: f.replaceHeader(`\n10\n`, `\n11\n`), want: "The checkpoint was changed"},
		{name: "size in the header changed", edit: f.replaceHeader(`"size":10`, `"size":9`), want: "The header was changed"},
		{name: "origin in the header changed", edit: f.replaceHeader(`"origin":"log"`, `"origin":"lag"`), want: "The header was changed"},
		{name: "key in the header changed", edit: f.replaceHeader(f.key.Verifier(), f.other.Verifier()), want: "The header was changed"},
		{name: "fork", text: f.rewritten(3, 10), older: f.older, want: "an entry from 0 to 5 is not what it was"},
		{name: "fork at the same size", text: f.rewritten(3, 6), older: f.older, want: "an entry from 0 to 5 is not what it was"},
		{name: "older checkpoint is none", older: "x", want: "The older checkpoint can't be used."},
		{name: "empty file", edit: func([]string) []string { return nil }, want: "not an export"},
		{name: "another file", text: "{\"a\":1}\n", want: "not an export"},
		{name: "newer version", edit: f.replaceHeader(`"version":1`, `"version":2`), want: "version 2"},
	}
}

func TestVerifyFindsEveryForgery(t *testing.T) {
	f := newFixture(t)
	for _, tt := range slices.Concat(f.entries(), f.lines(), f.heads()) {
		t.Run(tt.name, func(t *testing.T) {
			text := tt.text
			if text == "" {
				lines := strings.Split(strings.TrimSuffix(export(t, f.log), "\n"), "\n")
				if tt.edit != nil {
					lines = tt.edit(lines)
				}
				text = strings.Join(lines, "\n") + "\n"
			}
			key := tt.key
			if key == "" {
				key = f.log.Verifier()
			}
			_, err := verify(text, key, tt.older)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got error %v, want one with %q", err, tt.want)
			}
			if code := delivery.ErrorCode(err); code != delivery.CodeInvalid {
				t.Errorf("got code %q, want invalid", code)
			}
		})
	}
	if _, err := verify(f.rewritten(8, 10), f.log.Verifier(), f.older); err != nil {
		t.Errorf("one with the key may rewrite what no older checkpoint holds, but verifying failed: %v", err)
	}
}

// Whatever byte is changed, it shows.
func TestVerifyFindsEveryByte(t *testing.T) {
	log, _ := newLog(t, newKey(t, "log"), 5)
	text := export(t, log)
	random := mathrand.New(mathrand.NewPCG(1, 2))
	for i := range len(text) {
		b := []byte(text)
		b[i] ^= byte(1 << random.IntN(8))
		if _, err := verify(string(b), log.Verifier(), ""); err == nil && i < len(text)-1 { // the last newline means nothing
			t.Errorf("byte %d (%q for %q) was changed and it was not found", i, b[i], text[i])
		}
		if i%7 == 0 {
			if _, err := verify(text[:i], log.Verifier(), ""); err == nil {
				t.Errorf("the file was cut at byte %d and it was not found", i)
			}
		}
	}
}

func TestProof(t *testing.T) {
	k := newKey(t, "log")
	for _, n := range []int64{1, 2, 5, 8, 13} {
		log, l := newLog(t, k, int(n))
		for i := range n {
			p, err := log.InclusionProof(t.Context(), i)
			if err != nil {
				t.Fatal(err)
			}
			text, err := p.Text()
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := ParseProof(text)
			if err != nil {
				t.Fatalf("parsing %s: %v", text, err)
			}
			c, err := VerifyProof(parsed, log.Verifier())
			if err != nil || c.Size != n {
				t.Fatalf("proof of %d in %d: got %+v, %v", i, n, c, err)
			}
			forged := parsed
			forged.Entry = entry(t, i, "Nothing happened.")
			if _, err := VerifyProof(forged, log.Verifier()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("entry %d is not in the log", i)) {
				t.Errorf("a forged entry: got error %v", err)
			}
			forged = parsed
			forged.Entry = l.entries[(i+1)%n]
			if _, err := VerifyProof(forged, log.Verifier()); err == nil && n > 1 {
				t.Errorf("the proof of entry %d holds for another", i)
			}
			if _, err := VerifyProof(parsed, newKey(t, "log").Verifier()); err == nil {
				t.Error("the proof holds under another key")
			}
		}
		if _, err := log.InclusionProof(t.Context(), n); delivery.ErrorCode(err) != delivery.CodeNotFound {
			t.Errorf("beyond the log: got %v", err)
		}
		if _, err := log.InclusionProof(t.Context(), -1); delivery.ErrorCode(err) != delivery.CodeNotFound {
			t.Errorf("before the log: got %v", err)
		}
	}
}

func TestParseProofRefuses(t *testing.T) {
	log, _ := newLog(t, newKey(t, "log"), 5)
	p, err := log.InclusionProof(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.Text()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines[:6] {
		if line == "" {
			continue
		}
		bad := slices.Clone(lines)
		bad[i] = "x" + line
		if _, err := ParseProof(strings.Join(bad, "\n")); delivery.ErrorCode(err) != delivery.CodeInvalid {
			t.Errorf("line %d: got error %v", i, err)
		}
	}
	many := slices.Insert(slices.Clone(lines), 3, slices.Repeat([]string{lines[3]}, proofHashes)...)
	if _, err := ParseProof(strings.Join(many, "\n")); err == nil {
		t.Error("too many hashes were read")
	}
}

func TestConsistency(t *testing.T) {
	k := newKey(t, "log")
	log, l := newLog(t, k, 0)
	var older []string
	for i := range 12 {
		l.add(t, entry(t, int64(i), "m"))
		signed, err := log.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		older = append(older, signed)
	}
	fork, _ := newLog(t, k, 12)
	for i, signed := range older {
		p, err := log.ConsistencyProof(t.Context(), int64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifyConsistency(signed, p, log.Verifier()); err != nil {
			t.Errorf("from %d: %v", i+1, err)
		}
		p, err = fork.ConsistencyProof(t.Context(), int64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifyConsistency(signed, p, log.Verifier()); err == nil || !strings.Contains(err.Error(), "rewritten") {
			t.Errorf("a fork from %d: got error %v", i+1, err)
		}
		p.Size++
		if err := VerifyConsistency(signed, p, log.Verifier()); err == nil {
			t.Errorf("a proof of another size holds")
		}
	}
	for _, size := range []int64{-1, 0, 13} {
		if _, err := log.ConsistencyProof(t.Context(), size); delivery.ErrorCode(err) != delivery.CodeInvalid {
			t.Errorf("from %d: got error %v", size, err)
		}
	}
}

func TestKey(t *testing.T) {
	path := t.TempDir()
	dir, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	first, err := OpenKey(dir, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenKey(dir, "another", nil)
	if err != nil {
		t.Fatal(err)
	}
	if first.Verifier() != again.Verifier() || !strings.HasPrefix(again.Origin(), "tidegate-") {
		t.Errorf("got key %s, want the first one %s", again.Verifier(), first.Verifier())
	}
	files, err := os.ReadDir(path)
	if err != nil || len(files) != 1 {
		t.Fatalf("got files %v, %v; want only the key", files, err)
	}
	info, err := files[0].Info()
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v; want 0600", info.Mode(), err)
	}
	if err := dir.Chmod(keyFile, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKey(dir, "", nil); delivery.ErrorCode(err) != delivery.CodeInvalid || !strings.Contains(err.Error(), "0640") {
		t.Errorf("a key that others may read: got error %v", err)
	}
	for _, text := range []string{"", "nonsense", "PRIVATE+KEY+x+00000000+AAAA"} {
		if err := os.WriteFile(path+"/"+keyFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = dir.Chmod(keyFile, 0o600)
		if _, err := OpenKey(dir, "", nil); delivery.ErrorCode(err) != delivery.CodeInvalid || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("key file %q: got error %v", text, err)
		}
	}
	if err := dir.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKey(dir, "a b", nil); delivery.ErrorCode(err) != delivery.CodeInvalid {
		t.Errorf("a bad name: got error %v", err)
	}
}

func TestCanonical(t *testing.T) {
	got, err := Canonical(json.RawMessage(`{ "b": [1.50, 1e3, "<"], "a": {"z": null, "y": 12345678901234567890} }`))
	if err != nil {
		t.Fatal(err)
	}
	want := "{\"a\":{\"y\":12345678901234567890,\"z\":null},\"b\":[1.50,1e3,\"\\u003c\"]}"
	if string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	again, err := json.Marshal(struct{ P json.RawMessage }{got})
	if err != nil || !bytes.Contains(again, got) {
		t.Errorf("embedding changed it to %s (%v)", again, err)
	}
}

func FuzzVerify(f *testing.F) {
	log, _ := newLog(f, newKey(f, "log"), 3)
	var b bytes.Buffer
	if err := log.Export(f.Context(), &b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.String())
	lines := strings.SplitAfter(b.String(), "\n")
	f.Add(lines[0])
	f.Add(lines[0] + lines[2] + lines[1])
	f.Add(lines[0] + lines[1] + "{\"index\":1,\"leaf\":\"e30=\"}\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := verify(text, log.Verifier(), "")
		if err != nil {
			if code := delivery.ErrorCode(err); code != delivery.CodeInvalid {
				t.Fatalf("got error %v of code %s", err, code)
			}
			return
		}
		if strings.TrimSuffix(text, "\n") != strings.TrimSuffix(b.String(), "\n") {
			t.Fatalf("another file than the one that was written verifies: %+v", s)
		}
	})
}

func FuzzParseProof(f *testing.F) {
	log, _ := newLog(f, newKey(f, "log"), 5)
	p, err := log.InclusionProof(f.Context(), 3)
	if err != nil {
		f.Fatal(err)
	}
	text, err := p.Text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(proofHeader + "\nextra e30=\nindex 0\n\nx\n0\ny\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseProof(text)
		if err != nil {
			return
		}
		again, err := p.Text()
		if err != nil || again != text {
			t.Fatalf("got %q (%v) from %q", again, err, text)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	l := &list{}
	e := entry(b, 0, strings.Repeat("x", 500))
	b.ResetTimer()
	for i := range b.N {
		e, err := NewEntry(int64(i), e.Payload, e.Salt)
		if err != nil {
			b.Fatal(err)
		}
		l.add(b, e)
	}
}

func BenchmarkVerify(b *testing.B) {
	log, _ := newLog(b, newKey(b, "log"), 1000)
	var text bytes.Buffer
	if err := log.Export(b.Context(), &text); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		if _, err := Verify(bytes.NewReader(text.Bytes()), log.Verifier(), ""); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "entries/s")
}
