package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

const workName = "work"

// layout is where things are. Everything but the programs' own directories is
// for the supervisor only.
type layout struct {
	dir   string
	work  string              // programs and their home directories, reachable for the user they run as
	owner *syscall.Credential // whom programs run as; nil: the supervisor's own user
}

func (l layout) states() string    { return filepath.Join(l.dir, "state") }
func (l layout) artifacts() string { return filepath.Join(l.dir, "artifacts") }
func (l layout) outputs() string   { return filepath.Join(l.dir, "logs") }
func (l layout) identity() string  { return filepath.Join(l.dir, "identity") }
func (l layout) workNote() string  { return filepath.Join(l.dir, "work.path") } // where work is when it is not in dir

// ProxyDir returns the directory for proxy.Options.Dir of the host with that
// data directory.
func ProxyDir(dir string) string { return filepath.Join(dir, "proxy") }

// maxSocket is the longest path of a Unix socket that proxy.Options takes, bytes.
const maxSocket = 100

// ProxySocket returns the path for proxy.Options.Socket of the host with that
// data directory: within it, or under the temporary directory where that would
// be too long for a socket.
func ProxySocket(dir string) string {
	if path := filepath.Join(dir, "proxy", "admin.sock"); len(path) <= maxSocket {
		return path
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(os.TempDir(), "tidegate-"+hex.EncodeToString(sum[:6]), "admin.sock")
}

// openLayout makes the directories.
func openLayout(dir, userName string) (layout, error) {
	l := layout{dir: dir}
	var err error
	if l.owner, err = ownerOf(userName); err != nil {
		return l, err
	}
	for _, d := range []string{dir, l.states(), l.artifacts(), l.outputs(), l.identity(), ProxyDir(dir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return l, err
		}
	}
	if err := privateDir(filepath.Dir(ProxySocket(dir))); err != nil {
		return l, err
	}
	l.work = filepath.Join(dir, workName)
	if l.owner != nil && !reachable(filepath.Dir(dir)) {
		// The programs' user can't come through to dir, for example below /root.
		if l.work, err = workElsewhere(l.workNote()); err != nil {
			return l, err
		}
	} else if l.owner != nil {
		if err := os.Chmod(dir, 0o711); err != nil {
			return l, err
		}
	}
	if err := os.MkdirAll(l.work, 0o711); err != nil {
		return l, err
	}
	return l, os.Chmod(l.work, 0o711)
}

// privateDir makes a directory that nobody else can have made before.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return delivery.Errorf(delivery.CodeDenied, "The directory %s belongs to somebody else; remove it, or give the host a data directory with a shorter path.", dir)
	}
	return nil
}

// ownerOf returns the credential of the user that programs run as: nil, the
// supervisor's own, unless the supervisor is root.
func ownerOf(name string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 || name == "root" {
		return nil, nil
	}
	if name == "" {
		name = "nobody"
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, delivery.Wrap(delivery.CodeInvalid, err, "The user %q that releases shall run as does not exist on this machine; make it or name another.", name)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{}}, nil
}

// reachable reports whether any user can come through to dir.
func reachable(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
}

// workElsewhere returns a directory of our own under the temporary directory,
// the same one at each start while it exists.
func workElsewhere(note string) (string, error) {
	b, err := os.ReadFile(note)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if dir := strings.TrimSpace(string(b)); dir != "" {
		if info, err := os.Lstat(dir); err == nil && info.IsDir() {
			return dir, privateDir(dir)
		}
	}
	dir, err := os.MkdirTemp("", "tidegate-work-")
	if err != nil {
		return "", err
	}
	return dir, replaceFile(note, []byte(dir+"\n"))
}

// forgetElsewhere removes a directory that workElsewhere made; artifacts are
// unpacked again when they are needed.
func (l layout) forgetElsewhere() error {
	if l.work == filepath.Join(l.dir, workName) {
		return nil
	}
	return errors.Join(os.RemoveAll(l.work), os.Remove(l.workNote()))
}

// workloadDir returns the directory of a workload: its program in root, and
// one home directory for each instance beside it.
func (l layout) workloadDir(key delivery.PlacementKey, service string, w delivery.Digest) string {
	return filepath.Join(l.work, strings.TrimSuffix(fileName(key), ".json")+"."+service+"."+w.Short())
}

// home makes the directory that an instance may write to.
func (l layout) home(workloadDir, instance string) (string, error) {
	dir := filepath.Join(workloadDir, instance)
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o700); err != nil {
		return "", err
	}
	if l.owner == nil {
		return dir, nil
	}
	for _, d := range []string{filepath.Join(dir, "tmp"), dir} {
		if err := os.Chown(d, int(l.owner.Uid), int(l.owner.Gid)); err != nil {
			return "", fmt.Errorf("give %s to the user of releases: %w", d, err)
		}
	}
	return dir, nil
}
