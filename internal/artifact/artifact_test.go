package artifact

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

const script = "#!/bin/true\n"

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestPut(t *testing.T) {
	right := delivery.DigestBytes([]byte(script))
	tests := []struct {
		name, content string
		want          delivery.Digest
		limit         int64
		error         string
	}{
		{"script", script, right, 0, ""},
		{"any digest", script, "", 0, ""},
		{"other digest", script, delivery.DigestBytes([]byte("x")), 0, "not what was asked for"},
		{"too large", script, "", 3, "the limit"},
		{"text", "hello", "", 0, "neither an executable"},
		{"empty", "", "", 0, "neither an executable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t)
			a, err := s.Put(t.Context(), strings.NewReader(tt.content), tt.want, tt.limit)
			if tt.error == "" && (err != nil || a.Digest != right || a.Kind != delivery.ArtifactExecutable) {
				t.Fatalf("got %+v, %v", a, err)
			}
			if tt.error != "" && (err == nil || !strings.Contains(err.Error(), tt.error)) {
				t.Fatalf("got %v, want %q", err, tt.error)
			}
			entries, _ := os.ReadDir(s.root.Name())
			if want := map[bool]int{true: 1, false: 0}[tt.error == ""]; len(entries) != want {
				t.Errorf("%d files are left, want %d", len(entries), want)
			}
		})
	}
}

func archive(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range headers {
		body := strings.Repeat("x", int(h.Size))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(body))
	}
	w.Close()
	z.Close()
	return b.Bytes()
}

func TestUnpackRefusesWhatLeadsOut(t *testing.T) {
	file := func(name string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 5, Mode: 0o4777}
	}
	tests := []struct {
		name    string
		headers []tar.Header
		error   string
	}{
		{"plain", []tar.Header{file("bin/web"), {Name: "latest", Typeflag: tar.TypeSymlink, Linkname: "bin/web"}}, ""},
		{"dot dot", []tar.Header{file("../web")}, "leads out"},
		{"absolute", []tar.Header{file("/etc/web")}, "leads out"},
		{"link out", []tar.Header{{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "../../etc"}}, "leads out"},
		{"absolute link", []tar.Header{{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "/etc"}}, "leads out"},
		{"hard link out", []tar.Header{{Name: "x", Typeflag: tar.TypeLink, Linkname: "../y"}}, "leads out"},
		{"device", []tar.Header{{Name: "x", Typeflag: tar.TypeChar}}, "only files"},
		{"twice", []tar.Header{file("a"), file("a")}, "twice"},
		{"too large", []tar.Header{{Name: "a", Typeflag: tar.TypeReg, Size: 2000}}, "too large"},
		{"too many", []tar.Header{file("a"), file("b"), file("c"), file("d")}, "too many"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root, err := os.OpenRoot(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			err = Unpack(bytes.NewReader(archive(t, tt.headers...)), delivery.ArtifactTarGzip, root, Limits{Bytes: 1000, Files: 3})
			if tt.error != "" {
				if err == nil || !strings.Contains(err.Error(), tt.error) {
					t.Fatalf("got %v, want %q", err, tt.error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			info, err := root.Stat("latest")
			if err != nil || info.Mode().Perm() != 0o755 || info.Mode()&os.ModeSetuid != 0 {
				t.Errorf("mode %v, %v: want 0755 without setuid", info.Mode(), err)
			}
		})
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte("not an archive"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		Unpack(bytes.NewReader(b), delivery.ArtifactTar, root, Limits{Bytes: 1 << 20, Files: 100}) // it must not panic or leave the directory
	})
}

func TestFetch(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(script)) }))
	defer server.Close()
	right := delivery.DigestBytes([]byte(script))
	s := open(t)
	if _, err := s.Fetch(t.Context(), server.URL, right, FetchOptions{}); err == nil || !strings.Contains(err.Error(), "not allowed") {
		t.Errorf("loopback was fetched: %v", err)
	}
	if _, err := s.Fetch(t.Context(), server.URL, delivery.DigestBytes(nil), FetchOptions{AllowPrivate: true}); err == nil {
		t.Error("another digest was accepted")
	}
	if a, err := s.Fetch(t.Context(), server.URL, right, FetchOptions{AllowPrivate: true}); err != nil || a.Digest != right {
		t.Errorf("got %+v, %v", a, err)
	}
}
