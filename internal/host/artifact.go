package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tidegate-cd/tidegate/internal/artifact"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// maxArtifact bounds an artifact whose size the plan does not say, in bytes.
const maxArtifact = 4 << 30

// cache keeps artifacts by digest. A file with a digest's name holds exactly
// that content; what is not complete has another name.
type cache struct {
	dir    string
	source Artifacts
	locks  locks
}

// locks serialises work on one thing at a time, by name.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// lock waits for name; the returned function lets go.
func (l *locks) lock(ctx context.Context, name string) (func(), error) {
	for {
		l.mu.Lock()
		if l.held == nil {
			l.held = map[string]chan struct{}{}
		}
		other, taken := l.held[name]
		if !taken {
			mine := make(chan struct{})
			l.held[name] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				delete(l.held, name)
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// get returns the path of an artifact, fetching it if it is not here. An error
// of invalid or not_found does not mend itself.
func (c *cache) get(ctx context.Context, a delivery.Artifact) (string, error) {
	path := filepath.Join(c.dir, a.Digest.Hex())
	unlock, err := c.locks.lock(ctx, path)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		now := time.Now() // so that what is in use is not old
		return path, os.Chtimes(path, now, now)
	}
	if err := c.download(ctx, a, path+".part"); err != nil {
		return "", err
	}
	if err := os.Rename(path+".part", path); err != nil {
		return "", err
	}
	return path, syncDir(c.dir)
}

// download completes a partial file and checks the whole.
func (c *cache) download(ctx context.Context, a delivery.Artifact, part string) error {
	if c.source == nil {
		return delivery.Errorf(delivery.CodeUnavailable, "the host has no server to get artifacts from.")
	}
	f, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	have, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	limit := a.Size
	if limit <= 0 {
		limit = maxArtifact
	}
	if have < limit || a.Size <= 0 {
		body, err := c.source.Artifact(ctx, a.Digest, have)
		if err != nil {
			return err
		}
		defer body.Close()
		n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(body, limit-have+1))
		if err != nil {
			return delivery.Wrap(delivery.CodeUnavailable, err, "artifact %s broke off after %d bytes.", a.Digest.Short(), have+n)
		}
		have += n
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != a.Digest.Hex() {
		if e := os.Remove(part); e != nil {
			return e
		}
		if a.Size > 0 && have < a.Size {
			return delivery.Errorf(delivery.CodeUnavailable, "artifact %s is not complete.", a.Digest.Short())
		}
		return delivery.Errorf(delivery.CodeInvalid, "what the server sent as artifact %s is something else (sha256:%s).", a.Digest.Short(), got)
	}
	return f.Sync()
}

// expire deletes artifacts that nobody wanted since before.
func (c *cache) expire(before time.Time, wanted map[string]bool) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || wanted[e.Name()] || !info.ModTime().Before(before) {
			continue
		}
		errs = append(errs, os.Remove(filepath.Join(c.dir, e.Name())))
	}
	return errors.Join(errs...)
}

// prepared is a workload whose program is in place.
type prepared struct {
	dir     string // of the workload
	root    string // working directory: the unpacked artifact
	program string
}

// prepare puts a workload's program in place, once for all its instances.
func (s *Supervisor) prepare(ctx context.Context, key delivery.PlacementKey, digest delivery.Digest, w delivery.Workload) (prepared, error) {
	dir := s.layout.workloadDir(key, w.Service, digest)
	p := prepared{dir: dir, root: filepath.Join(dir, "root")}
	unlock, err := s.cache.locks.lock(ctx, dir)
	if err != nil {
		return p, err
	}
	defer unlock()
	if _, err := os.Stat(p.root); errors.Is(err, fs.ErrNotExist) {
		path, err := s.cache.get(ctx, w.Artifact)
		if err != nil {
			return p, err
		}
		if err := install(path, p.root, w); err != nil {
			return p, err
		}
	} else if err != nil {
		return p, err
	}
	p.program, err = program(p.root, w)
	return p, err
}

// install unpacks an artifact to root, which appears complete or not at all.
func install(path, root string, w delivery.Workload) error {
	if err := os.MkdirAll(filepath.Dir(root), 0o711); err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(filepath.Dir(root), ".unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if w.Artifact.Kind == delivery.ArtifactExecutable {
		err = installExecutable(f, filepath.Join(temporary, w.Service))
	} else {
		err = installArchive(f, temporary, w.Artifact.Kind)
	}
	if err != nil {
		return err
	}
	if err := readableForAll(temporary); err != nil {
		return err
	}
	return os.Rename(temporary, root)
}

func installExecutable(from io.Reader, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// readableForAll lets the user that programs run as read what it may not write.
func readableForAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm()&^0o022 | 0o444
		if d.IsDir() || mode&0o100 != 0 {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
}

// program returns the path of the program to run, which lies within root.
func program(root string, w delivery.Workload) (string, error) {
	name := w.Command
	if w.Artifact.Kind == delivery.ArtifactExecutable {
		name = w.Service
	}
	if name == "" {
		return "", delivery.Errorf(delivery.CodeInvalid, "the artifact of %s is an archive and the service has no command: name the program's path in it.", w.Service)
	}
	in, err := os.OpenRoot(root)
	if err != nil {
		return "", err
	}
	defer in.Close()
	info, err := in.Stat(filepath.FromSlash(name))
	switch {
	case err != nil:
		return "", delivery.Wrap(delivery.CodeInvalid, err, "the artifact of %s has no program %q.", w.Service, name)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return "", delivery.Errorf(delivery.CodeInvalid, "%q in the artifact of %s is not an executable file.", name, w.Service)
	}
	return filepath.Join(root, filepath.FromSlash(name)), nil
}

// installArchive unpacks an archive into an empty directory.
func installArchive(from io.Reader, dir string, kind delivery.ArtifactKind) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return artifact.Unpack(from, kind, root, artifact.Limits{})
}
