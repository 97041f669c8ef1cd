// Package artifact keeps the files that releases are made of, named by their
// digest, fetches them from elsewhere, and unpacks archives. Every byte that
// comes in is hashed while it is written; what does not have the digest that
// was said leaves nothing behind.
//
// It must not know what an artifact is for.
//
// Start reading at [Store].
package artifact

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// MaxSize bounds an artifact whose limit is not said, in bytes.
const MaxSize = 4 << 30

// Store is a directory of artifacts. It is safe for concurrent use, also by
// several processes.
type Store struct{ root *os.Root }

// Open opens the store in dir, which it makes if it is missing.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The artifact directory %s can't be made: %v.", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The artifact directory %s can't be opened: %v.", dir, err)
	}
	return &Store{root}, nil
}

// Close lets the directory go.
func (s *Store) Close() error { return s.root.Close() }

// Put stores what r has, at most limit bytes (0: [MaxSize]), and says what it
// is. The error is invalid if it does not have the digest want ("": any), is
// too large, or is nothing that a host can run.
func (s *Store) Put(ctx context.Context, r io.Reader, want delivery.Digest, limit int64) (delivery.Artifact, error) {
	if limit <= 0 {
		limit = MaxSize
	}
	name := "incoming-" + rand.Text()
	f, err := s.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o640)
	if err != nil {
		return delivery.Artifact{}, unwritable(err)
	}
	defer s.root.Remove(name) // gone already when it was kept
	defer f.Close()
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, hash), io.LimitReader(&withContext{ctx, r}, limit+1))
	if err != nil {
		return delivery.Artifact{}, unwritable(err)
	}
	a := delivery.Artifact{Digest: delivery.Digest("sha256:" + hex.EncodeToString(hash.Sum(nil))), Size: size}
	switch {
	case size > limit:
		return a, delivery.Errorf(delivery.CodeInvalid, "The artifact has more than %d bytes, which is the limit.", limit)
	case want != "" && a.Digest != want:
		return a, delivery.Errorf(delivery.CodeInvalid, "The artifact's digest is %s and not %s: it is not what was asked for.", a.Digest, want)
	}
	if a.Kind, err = kindOf(f); err != nil {
		return a, err
	}
	if err := f.Sync(); err != nil {
		return a, unwritable(err)
	}
	if err := s.root.Rename(name, a.Digest.Hex()); err != nil {
		return a, unwritable(err)
	}
	return a, s.syncDir()
}

// Stat says what is stored under a digest; not_found if nothing is.
func (s *Store) Stat(d delivery.Digest) (delivery.Artifact, error) {
	f, size, err := s.open(d)
	if err != nil {
		return delivery.Artifact{}, err
	}
	defer f.Close()
	kind, err := kindOf(f)
	return delivery.Artifact{Digest: d, Size: size, Kind: kind}, err
}

// Open opens an artifact and says its size in bytes; not_found if it is not there.
func (s *Store) Open(d delivery.Digest) (io.ReadSeekCloser, int64, error) {
	f, size, err := s.open(d)
	if err != nil {
		return nil, 0, err
	}
	return f, size, nil
}

func (s *Store) open(d delivery.Digest) (*os.File, int64, error) {
	if !d.Valid() {
		return nil, 0, delivery.Errorf(delivery.CodeInvalid, "%q is not a digest: write sha256: and 64 hexadecimal digits.", d)
	}
	f, err := s.root.Open(d.Hex())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, delivery.Errorf(delivery.CodeNotFound, "There is no artifact %s: upload it first.", d)
	}
	if err != nil {
		return nil, 0, delivery.Wrap(delivery.CodeUnavailable, err, "The artifact %s can't be read.", d)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, delivery.Wrap(delivery.CodeUnavailable, err, "The artifact %s can't be read.", d)
	}
	return f, info.Size(), nil
}

func (s *Store) syncDir() error {
	d, err := s.root.Open(".")
	if err != nil {
		return unwritable(err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return unwritable(err)
	}
	return nil
}

func unwritable(err error) error {
	if _, ours := errors.AsType[*delivery.Error](err); ours {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The disk of the artifact directory is full: make room and try again.")
	}
	return delivery.Wrap(delivery.CodeUnavailable, err, "The artifact could not be stored: %v.", err)
}

// withContext stops reading when the context ends.
type withContext struct {
	ctx context.Context
	r   io.Reader
}

func (w *withContext) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.r.Read(p)
}

// kindOf tells what a file is by its first bytes.
func kindOf(f io.ReadSeeker) (delivery.ArtifactKind, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", unwritable(err)
	}
	r := bufio.NewReaderSize(f, 4096)
	head, _ := r.Peek(512) // a shorter file has fewer
	switch {
	case isTar(head):
		return delivery.ArtifactTar, nil
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		if z, err := gzip.NewReader(r); err == nil && tarInside(z) {
			return delivery.ArtifactTarGzip, nil
		}
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		if z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20)); err == nil {
			defer z.Close()
			if tarInside(z) {
				return delivery.ArtifactTarZstd, nil
			}
		}
	case bytes.HasPrefix(head, []byte("\x7fELF")), bytes.HasPrefix(head, []byte("#!")),
		bytes.HasPrefix(head, []byte{0xcf, 0xfa, 0xed, 0xfe}), bytes.HasPrefix(head, []byte{0xca, 0xfe, 0xba, 0xbe}):
		return delivery.ArtifactExecutable, nil
	}
	return "", delivery.Errorf(delivery.CodeInvalid, "The artifact is neither an executable (ELF, Mach-O, or a script with #!) nor a tar archive (plain, gzip or zstd).")
}

func isTar(head []byte) bool {
	return len(head) >= 262 && string(head[257:262]) == "ustar"
}

func tarInside(r io.Reader) bool {
	head := make([]byte, 512)
	_, err := io.ReadFull(r, head)
	return err == nil && isTar(head)
}
