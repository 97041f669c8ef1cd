package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Change is one difference between two plans.
type Change struct {
	Path          string // e.g. services.web@local.env.COLOUR
	Before, After string // "" where one side has none
}

// Diff returns what changes from one plan to another, sorted by path; either
// may be nil. Secrets appear as references, which is all that a plan has.
func Diff(before, after *delivery.Plan) []Change {
	x, y := facts(before), facts(after)
	var changes []Change
	for _, path := range slices.Sorted(maps.Keys(union(x, y))) {
		if x[path] != y[path] {
			changes = append(changes, Change{Path: path, Before: x[path], After: y[path]})
		}
	}
	return changes
}

func union(x, y map[string]string) map[string]bool {
	all := map[string]bool{}
	for k := range x {
		all[k] = true
	}
	for k := range y {
		all[k] = true
	}
	return all
}

// facts flattens what matters of a plan.
func facts(p *delivery.Plan) map[string]string {
	f := map[string]string{}
	if p == nil {
		return f
	}
	f["bake"] = p.Bake.String()
	for _, w := range p.Waves {
		for _, s := range w.Steps {
			if s.Task != nil {
				b, _ := json.Marshal(s.Task) // a struct of texts and numbers cannot fail
				f["tasks."+s.Name] = string(b)
			}
			if r := s.Rollout; r != nil {
				rolloutFacts(f, "services."+s.Name, r)
			}
		}
	}
	return f
}

func rolloutFacts(f map[string]string, path string, r *delivery.Rollout) {
	w := r.Workload
	f[path+".artifact"] = string(w.Artifact.Digest)
	f[path+".instances"] = strconv.Itoa(r.Instances)
	f[path+".strategy"] = string(r.Strategy)
	f[path+".command"], f[path+".listen"] = w.Command, r.Listen
	for i, a := range w.Args {
		f[fmt.Sprintf("%s.args[%d]", path, i)] = a
	}
	for k, v := range w.Env {
		f[path+".env."+k] = v
	}
	for k, v := range w.Secrets {
		f[path+".secrets."+k] = "file " + v.File
		if v.File == "" {
			f[path+".secrets."+k] = "environment variable " + v.Env
		}
	}
}
