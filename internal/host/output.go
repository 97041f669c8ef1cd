package host

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// keptOutputs is how many files of ended instances are kept for one placement.
const keptOutputs = 20

// outputs is the directory of the files that programs write to: one for each
// instance, SERVICE.WORKLOAD.INSTANCE.log, and one former one beside it.
type outputs struct {
	dir   string
	limit int64 // bytes of a file before it becomes the former one
}

func (o outputs) of(key delivery.PlacementKey) string {
	return filepath.Join(o.dir, strings.TrimSuffix(fileName(key), ".json"))
}

// path returns an instance's file, in a directory that exists.
func (o outputs) path(key delivery.PlacementKey, service string, workload delivery.Digest, instance string) (string, error) {
	dir := o.of(key)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return filepath.Join(dir, service+"."+workload.Short()+"."+instance+".log"), nil
}

// rotate copies a file that is over the limit to the former one and empties
// it. The program goes on writing to the same file; what it writes between the
// copy and the cut is lost.
func (o outputs) rotate(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || info.Size() <= o.limit {
		return err
	}
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	// Only the end is worth a file: a program may write faster than we look.
	if info.Size() > 2*o.limit {
		if _, err := from.Seek(-o.limit, io.SeekEnd); err != nil {
			return err
		}
	}
	to, err := os.OpenFile(path+".1", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return errors.Join(err, os.Truncate(path, 0)) // a full disk must not fill further
	}
	_, err = io.Copy(to, io.LimitReader(from, 2*o.limit))
	return errors.Join(err, to.Close(), os.Truncate(path, 0))
}

// tail returns the last lines of an instance's output, at most max.
func tail(path string, max int, clean redactor) ([]string, error) {
	const window = 1 << 20
	b, err := lastBytes(path, window)
	if err != nil {
		return nil, err
	}
	if strings.Count(string(b), "\n") < max && len(b) < window {
		former, err := lastBytes(path+".1", window-len(b))
		if err != nil {
			return nil, err
		}
		b = append(former, b...)
	}
	text := strings.TrimRight(string(b), "\n")
	if text == "" {
		return nil, nil
	}
	lines := strings.Split(text, "\n")
	lines = lines[len(lines)-min(max, len(lines)):]
	for i := range lines {
		lines[i] = clean.clean(lines[i])
	}
	return lines, nil
}

// lastBytes returns up to n bytes of the end of a file, beginning with a whole
// line; none if there is no file.
func lastBytes(path string, n int) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	skip := max(0, info.Size()-int64(n))
	b := make([]byte, info.Size()-skip)
	read, err := f.ReadAt(b, skip)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	b = b[:read]
	if skip > 0 {
		if i := slices.Index(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	return b, nil
}

// lastLine returns the last line with text, at most 300 bytes of it.
func lastLine(path string, clean redactor) string {
	lines, err := tail(path, 20, clean)
	if err != nil {
		return ""
	}
	for _, line := range slices.Backward(lines) {
		if line = strings.TrimSpace(line); line != "" {
			return strings.ToValidUTF8(line[:min(len(line), 300)], "")
		}
	}
	return ""
}

// prune deletes the oldest files of a placement that belong to no instance in use.
func (o outputs) prune(key delivery.PlacementKey, used map[string]bool) error {
	dir := o.of(key)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	type file struct {
		path string
		at   time.Time
	}
	var ended []file
	for _, e := range entries {
		parts := strings.Split(strings.TrimSuffix(e.Name(), ".log"), ".")
		if !strings.HasSuffix(e.Name(), ".log") || len(parts) != 3 || used[parts[2]] {
			continue
		}
		if info, err := e.Info(); err == nil {
			ended = append(ended, file{filepath.Join(dir, e.Name()), info.ModTime()})
		}
	}
	slices.SortFunc(ended, func(a, b file) int { return b.at.Compare(a.at) })
	for _, f := range ended[min(keptOutputs, len(ended)):] {
		os.Remove(f.path + ".1")
		if err := os.Remove(f.path); err != nil {
			return err
		}
	}
	return nil
}
