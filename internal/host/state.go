package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// recordFormat is the version of the stored form of [record].
const recordFormat = 1

// How much of the past a record keeps. The server offers an effect again only
// while it has no result, so a few hundred are far more than can be repeated.
const (
	keptResults = 400
	keptTasks   = 20
)

// record is all that the host must not forget of one placement: one file, so
// that what an effect changed and that it was done are one write.
type record struct {
	Format    int                   `json:"format"`
	Key       delivery.PlacementKey `json:"key"`
	Token     int64                 `json:"token"`             // highest fencing token seen
	Results   []delivery.Result     `json:"results,omitempty"` // the journal, oldest first
	Services  []*serviceRecord      `json:"services,omitempty"`
	Tasks     []*taskRecord         `json:"tasks,omitempty"`
	Instances []*instanceRecord     `json:"instances,omitempty"`
}

// serviceRecord is what a service shall be.
type serviceRecord struct {
	Name      string            `json:"name"`
	Target    string            `json:"target"`
	Weights   []delivery.Weight `json:"weights,omitempty"`
	Workloads []*workloadRecord `json:"workloads,omitempty"`
}

// workloadRecord is what a workload shall be. Secrets are references.
type workloadRecord struct {
	Digest   delivery.Digest   `json:"digest"`
	Release  delivery.Digest   `json:"release"`
	Version  string            `json:"version"`
	Workload delivery.Workload `json:"workload"`
	Listen   string            `json:"listen,omitempty"` // where its service shall be reached; "": the proxy allots a port and keeps it
	Wanted   int               `json:"wanted"`
}

// instanceRecord is one instance that runs or shall run.
type instanceRecord struct {
	ID       string          `json:"id"` // unique on the host for ever; also in the process's environment
	Service  string          `json:"service"`
	Workload delivery.Digest `json:"workload"`
	Port     int             `json:"port,omitempty"` // on loopback; of the running process
	Process  *processRecord  `json:"process,omitempty"`
	Ready    bool            `json:"ready,omitempty"`    // may get traffic
	Stopping bool            `json:"stopping,omitempty"` // shall end; never taken back
	Restarts int             `json:"restarts,omitempty"`
	Exits    int             `json:"exits,omitempty"` // in a row, without having been ready for long
	Failed   bool            `json:"failed,omitempty"`
	Message  string          `json:"message,omitempty"`
}

// taskRecord is one command task.
type taskRecord struct {
	Key      delivery.EffectKey `json:"key"`
	Target   string             `json:"target"`
	Effect   delivery.RunEffect `json:"effect"`
	Instance string             `json:"instance"`          // marks its process, like an instance's ID
	Begun    time.Time          `json:"begun,omitzero"`    // set before the process starts: from then on it never starts again
	Process  *processRecord     `json:"process,omitempty"` // set after it started
	Done     bool               `json:"done,omitempty"`
	OK       bool               `json:"ok,omitempty"`
	Message  string             `json:"message,omitempty"`
}

func (r *record) service(name string) *serviceRecord {
	i := slices.IndexFunc(r.Services, func(s *serviceRecord) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return r.Services[i]
}

func (s *serviceRecord) workload(d delivery.Digest) *workloadRecord {
	i := slices.IndexFunc(s.Workloads, func(w *workloadRecord) bool { return w.Digest == d })
	if i < 0 {
		return nil
	}
	return s.Workloads[i]
}

func (s *serviceRecord) percent(d delivery.Digest) int {
	for _, w := range s.Weights {
		if w.Workload == d {
			return w.Percent
		}
	}
	return 0
}

// listen is the address of the service: that of the workload with most of the
// traffic, so that a release that moves it does so when it takes over, and a
// rollback moves it back. Without traffic it is the latest workload's.
func (s *serviceRecord) listen() string {
	address, most := "", 0
	for _, w := range s.Workloads {
		if percent := s.percent(w.Digest); percent > most || most == 0 {
			address, most = w.Listen, percent
		}
	}
	return address
}

// done returns the journal's result of a key.
func (r *record) done(key delivery.EffectKey) (delivery.Result, bool) {
	for _, result := range r.Results {
		if result.Key == key {
			return result, true
		}
	}
	return delivery.Result{}, false
}

// instances returns those of a workload.
func (r *record) instances(service string, d delivery.Digest) []*instanceRecord {
	var list []*instanceRecord
	for _, i := range r.Instances {
		if i.Service == service && i.Workload == d {
			list = append(list, i)
		}
	}
	return list
}

// clone returns a copy of the wanted part that shares nothing with r; the
// instances are r's own, because only their keepers change them.
func (r *record) clone() *record {
	wanted := *r
	wanted.Instances = nil
	b, err := json.Marshal(wanted)
	if err != nil {
		panic(err) // plain structs
	}
	c := new(record)
	if err := json.Unmarshal(b, c); err != nil {
		panic(err)
	}
	c.Instances = r.Instances
	return c
}

// fileName returns a placement's file; its parts are DNS labels.
func fileName(key delivery.PlacementKey) string {
	return strings.Join([]string{key.Project, key.Application, key.Environment}, "_") + ".json"
}

// states is the directory of records.
type states struct{ dir string }

// load reads every record. A file that can't be read is an error: going on
// without it would forget what runs.
func (s states) load() (map[delivery.PlacementKey]*record, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	records := map[delivery.PlacementKey]*record{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(s.dir, e.Name()))
		if err != nil {
			return nil, err
		}
		r := new(record)
		if err := json.Unmarshal(b, r); err != nil {
			return nil, fmt.Errorf("read %s: %w", e.Name(), err)
		}
		if r.Format != recordFormat {
			return nil, fmt.Errorf("%s has format %d, this program knows %d", e.Name(), r.Format, recordFormat)
		}
		records[r.Key] = r
	}
	return records, nil
}

// save writes a record durably.
func (s states) save(r *record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(s.dir, fileName(r.Key)), b)
}

// errMaybeWritten wraps an error after which either content may be on disk.
var errMaybeWritten = errors.New("it is not known whether the file was replaced")

// replaceFile replaces path with content of mode 0600, so that after a crash
// there is the former content or the new one, never a part. After an error the
// former one is there, unless it is errMaybeWritten.
func replaceFile(path string, content []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("%w: %w", errMaybeWritten, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
