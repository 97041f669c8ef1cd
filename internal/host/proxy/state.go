package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// savedFormat is the version of the saved form.
const savedFormat = 1

// saved is what a proxy needs to serve again after a crash.
type saved struct {
	Format int     `json:"format"`
	Config Config  `json:"config"`
	Ports  []alloc `json:"ports,omitempty"`
}

// alloc is the address that a route has.
type alloc struct {
	ID     RouteID `json:"id"`
	Listen string  `json:"listen"`
}

func savedPath(dir string) string { return filepath.Join(dir, "proxy.json") }

// load reads what was saved. There being nothing is no error.
func load(dir string) (saved, error) {
	b, err := os.ReadFile(savedPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return saved{Format: savedFormat}, nil
	}
	if err != nil {
		return saved{}, err
	}
	return decodeSaved(b)
}

func decodeSaved(b []byte) (saved, error) {
	var s saved
	if err := json.Unmarshal(b, &s); err != nil {
		return saved{}, err
	}
	if s.Format != savedFormat {
		return saved{}, fmt.Errorf("format %d is not known", s.Format)
	}
	if err := s.Config.Check(); err != nil {
		return saved{}, err
	}
	for _, p := range s.Ports {
		if err := checkAddress(p.Listen, true); err != nil {
			return saved{}, fmt.Errorf("port of %s: %w", p.ID, err)
		}
	}
	return s, nil
}

// save replaces what was saved: after a crash either the old or the new is there.
func save(dir string, b []byte) (err error) {
	f, err := os.CreateTemp(dir, "proxy-*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), savedPath(dir)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil // the file is in place; only its name may be lost with the power
	}
	_ = d.Sync()
	return d.Close()
}
