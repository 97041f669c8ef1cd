package host

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// archive is a tar with a program as bin/app beside a file.
func (w *world) archive(program []byte, kind delivery.ArtifactKind) delivery.Artifact {
	w.t.Helper()
	var b bytes.Buffer
	out := io.WriteCloser(plain{&b})
	if kind == delivery.ArtifactTarGzip {
		out = gzip.NewWriter(&b)
	}
	a := tar.NewWriter(out)
	for name, content := range map[string][]byte{"bin/app": program, "data.txt": []byte("data")} {
		mode := int64(0o600) // readable for its owner only, as some archives are made
		if name == "bin/app" {
			mode = 0o700
		}
		if err := a.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
			w.t.Fatal(err)
		}
		if _, err := a.Write(content); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		w.t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		w.t.Fatal(err)
	}
	artifact := w.library.add(b.Bytes())
	artifact.Kind = kind
	return artifact
}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }

func TestArchives(t *testing.T) {
	w := newWorld(t)
	archive := w.archive(applicationArtifact(), delivery.ArtifactTar)
	of := func(command string) delivery.Workload {
		return w.workload("one", func(wl *delivery.Workload) { wl.Artifact, wl.Command = archive, command })
	}
	good := of("bin/app")
	w.run(good, 1)
	if got, err := w.get("/data.txt"); err == nil { // the application serves no files
		t.Errorf("got %q", got)
	}
	data := filepath.Join(w.s.layout.workloadDir(testKey, "web", good.ComputeDigest()), "root", "data.txt")
	info, err := os.Stat(data)
	if err != nil || info.Mode().Perm()&0o444 != 0o444 || info.Mode().Perm()&0o022 != 0 {
		t.Errorf("got mode %v, %v, want it readable for all and writable for nobody else", info.Mode(), err)
	}
	archive = w.archive([]byte("#!/bin/sh\n"), delivery.ArtifactTarGzip)
	tests := []struct{ name, command, want string }{
		{"no command", "", "name the program's path in it"},
		{"not there", "bin/other", `no program "bin/other"`},
		{"not executable", "data.txt", "not an executable file"},
		{"outside", "../../../../../../bin/sh", "no program"},
		{"absolute", "/bin/sh", "no program"},
	}
	for _, test := range tests {
		wl := of(test.command)
		w.do(startEffect(wl, 1))
		eventually(t, func() error {
			s := w.status().Workload(wl.ComputeDigest())
			if s == nil || !s.Failed || !strings.Contains(s.Message, test.want) {
				return fmt.Errorf("%s: got %+v, want failed with %q", test.name, s, test.want)
			}
			return nil
		})
		w.do(stopEffect(wl, 0))
	}
}

func TestArtifactResumesAndIsChecked(t *testing.T) {
	l := newLibrary()
	a := l.add([]byte(strings.Repeat("0123456789", 100)))
	l.failures = 1
	c := &cache{dir: t.TempDir(), source: l}
	if _, err := c.get(t.Context(), a); delivery.ErrorCode(err) != delivery.CodeUnavailable {
		t.Fatalf("got %v, want unavailable", err)
	}
	path, err := c.get(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || delivery.DigestBytes(b) != a.Digest {
		t.Errorf("got another content, %v", err)
	}
	if diff := cmp.Diff([]int64{0, 500}, l.offsets); diff != "" {
		t.Errorf("offsets (-want +got):\n%s", diff)
	}
	if _, err := c.get(t.Context(), a); err != nil || l.fetched != 2 {
		t.Errorf("%d fetches, %v; what is here must not be fetched", l.fetched, err)
	}
	wrong := l.add([]byte("right"))
	l.content[wrong.Digest] = []byte("wrong")
	for range 2 {
		if _, err := c.get(t.Context(), wrong); delivery.ErrorCode(err) != delivery.CodeInvalid {
			t.Errorf("got %v, want invalid", err)
		}
	}
	long := l.add([]byte("long"))
	l.content[long.Digest] = []byte("longer than said")
	if _, err := c.get(t.Context(), long); delivery.ErrorCode(err) != delivery.CodeInvalid {
		t.Errorf("got %v, want invalid", err)
	}
}

// What nobody wants is deleted after its time, what is wanted never.
func TestArtifactsExpire(t *testing.T) {
	l := newLibrary()
	c := &cache{dir: t.TempDir(), source: l}
	used, unused := l.add([]byte("used")), l.add([]byte("unused"))
	for _, a := range []delivery.Artifact{used, unused} {
		if _, err := c.get(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	wanted := map[string]bool{used.Digest.Hex(): true}
	for _, test := range []struct {
		before time.Time
		want   []string
	}{
		{time.Now().Add(-time.Hour), []string{used.Digest.Hex(), unused.Digest.Hex()}},
		{time.Now().Add(time.Hour), []string{used.Digest.Hex()}},
	} {
		if err := c.expire(test.before, wanted); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range []delivery.Artifact{used, unused} {
			if _, err := os.Stat(filepath.Join(c.dir, a.Digest.Hex())); err == nil {
				got = append(got, a.Digest.Hex())
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
