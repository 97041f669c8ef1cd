package config

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// extensions are the files that a directory's configuration consists of.
var extensions = []string{".yaml", ".yml", ".json", ".rego"}

// maxFiles bounds a directory.
const maxFiles = 5000

// Load reads a file, or the configuration files below a directory. Hidden
// files are passed over; a link that leads out of the directory is refused.
// Names are relative to what was asked for.
func Load(name string) ([]File, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, unreadable(name, err)
	}
	dir, only := name, ""
	if !info.IsDir() {
		dir, only = filepath.Dir(name), filepath.Base(name)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, unreadable(name, err)
	}
	defer root.Close()
	var names []string
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p != "." && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir() || !slices.Contains(extensions, path.Ext(p)):
			return nil
		case only != "" && p != only && path.Ext(p) != ".rego":
			return nil // beside a single document only the modules that it may name
		}
		if names = append(names, p); len(names) > maxFiles {
			return delivery.Errorf(delivery.CodeInvalid, "%s has more than %d files of configuration.", name, maxFiles)
		}
		return nil
	})
	if only != "" && !slices.Contains(names, only) {
		names = append(names, only)
	}
	if err != nil {
		return nil, unreadable(name, err)
	}
	var files []File
	for _, p := range names {
		content, err := read(root, p)
		if err != nil {
			return nil, unreadable(filepath.Join(dir, p), err)
		}
		files = append(files, File{Name: p, Content: content})
	}
	return files, nil
}

func read(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

func unreadable(name string, err error) error {
	if _, ours := errors.AsType[*delivery.Error](err); ours {
		return err
	}
	return delivery.Wrap(delivery.CodeInvalid, err, "%s can't be read: %v.", name, err)
}
