package artifact

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Limits bounds what an archive may become.
type Limits struct {
	Bytes int64 // of all files together; default 8 GiB
	Files int   // default 100,000
}

// Unpack writes an archive into root. Names that lead out of it, by "..", an
// absolute path or a symbolic link, devices, and more than the limits are
// refused: the error is invalid, and what was written until then stays, so
// unpack into a directory that is thrown away on error.
func Unpack(r io.Reader, kind delivery.ArtifactKind, root *os.Root, limits Limits) error {
	if limits.Bytes <= 0 {
		limits.Bytes = 8 << 30
	}
	if limits.Files <= 0 {
		limits.Files = 100_000
	}
	plain, err := decompress(r, kind)
	if err != nil {
		return err
	}
	defer plain.Close()
	u := &unpacker{root: root, left: limits.Bytes, files: limits.Files}
	archive := tar.NewReader(plain)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return delivery.Wrap(delivery.CodeInvalid, err, "The archive is damaged: %v.", err)
		}
		if err := u.entry(h, archive); err != nil {
			return err
		}
	}
}

func decompress(r io.Reader, kind delivery.ArtifactKind) (io.ReadCloser, error) {
	switch kind {
	case delivery.ArtifactTar:
		return io.NopCloser(r), nil
	case delivery.ArtifactTarGzip:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, delivery.Wrap(delivery.CodeInvalid, err, "The archive is not gzip: %v.", err)
		}
		return z, nil
	case delivery.ArtifactTarZstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, delivery.Wrap(delivery.CodeInvalid, err, "The archive is not zstd: %v.", err)
		}
		return z.IOReadCloser(), nil
	}
	return nil, delivery.Errorf(delivery.CodeInvalid, "A %s can't be unpacked.", kind)
}

type unpacker struct {
	root  *os.Root
	left  int64
	files int
}

func (u *unpacker) entry(h *tar.Header, body io.Reader) error {
	name := path.Clean(h.Name)
	if h.Typeflag == tar.TypeXGlobalHeader || name == "." {
		return nil
	}
	if !filepath.IsLocal(filepath.FromSlash(name)) || len(name) > 4096 || strings.ContainsRune(name, 0) {
		return refused(h, "its name leads out of the archive's directory")
	}
	if u.files--; u.files < 0 {
		return refused(h, "there are too many files")
	}
	if dir := path.Dir(name); dir != "." {
		if err := u.root.MkdirAll(dir, 0o755); err != nil {
			return u.failed(h, err)
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.failed(h, u.root.MkdirAll(name, 0o755))
	case tar.TypeReg:
		return u.file(name, h, body)
	case tar.TypeSymlink:
		if path.IsAbs(h.Linkname) || !filepath.IsLocal(filepath.FromSlash(path.Join(path.Dir(name), h.Linkname))) {
			return refused(h, "the link leads out of the archive's directory")
		}
		return u.failed(h, u.root.Symlink(h.Linkname, name))
	case tar.TypeLink:
		target := path.Clean(h.Linkname)
		if !filepath.IsLocal(filepath.FromSlash(target)) {
			return refused(h, "the link leads out of the archive's directory")
		}
		return u.failed(h, u.root.Link(target, name))
	}
	return refused(h, "only files, directories and links are allowed")
}

func (u *unpacker) file(name string, h *tar.Header, body io.Reader) error {
	mode := fs.FileMode(0o644)
	if h.FileInfo().Mode()&0o111 != 0 {
		mode = 0o755 // never setuid or writable by others, whatever the archive says
	}
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return u.failed(h, err)
	}
	n, err := io.Copy(f, io.LimitReader(body, u.left+1))
	if u.left -= n; u.left < 0 {
		f.Close()
		return refused(h, "the archive becomes too large")
	}
	if err != nil {
		f.Close()
		return u.failed(h, err)
	}
	return u.failed(h, f.Close())
}

func refused(h *tar.Header, why string) error {
	return delivery.Errorf(delivery.CodeInvalid, "The archive's entry %q is refused: %s.", h.Name, why)
}

func (u *unpacker) failed(h *tar.Header, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		return refused(h, "it is there twice")
	}
	return delivery.Wrap(delivery.CodeInvalid, err, "The archive's entry %q can't be written: %v.", h.Name, err)
}
