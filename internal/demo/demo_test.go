package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var self string // the tidegate program, built once

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tidegate-demo-test-")
	if err == nil {
		self = filepath.Join(dir, "tidegate")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", self, "../../cmd/tidegate").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the program does not build:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func run(t *testing.T, o Options) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	o.Self, o.Out, o.Once = self, t.Output(), true
	r, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// end returns the last deployment of a release in an environment.
func (r Result) end(release, environment string) Deployment {
	var last Deployment
	for _, d := range r.Deployments {
		if d.Release == release && d.Environment == environment {
			last = d
		}
	}
	return last
}

func (r Result) want(t *testing.T, release, environment, outcome string) {
	t.Helper()
	if got := r.end(release, environment); got.Outcome != outcome {
		t.Errorf("release %s in %s: %+v, want %s", release, environment, got, outcome)
	}
}

func TestUsualInputs(t *testing.T) {
	r := run(t, Options{})
	for _, release := range []string{"1", "2", "3", "4"} {
		r.want(t, release, "dev", "succeeded")
		r.want(t, release, "staging", "succeeded")
	}
	r.want(t, "1", "production", "succeeded")
	r.want(t, "2", "production", "succeeded")
	r.want(t, "3", "production", "rolled_back")
	r.want(t, "4", "production", "denied")
	if got := r.end("3", "production"); got.MaxWeight == 0 || got.MaxWeight == 100 || !strings.Contains(got.Reason, "evidence") {
		t.Errorf("release 3 ended by %+v, want the statistical verdict during the canary", got)
	}
	if r.Requests.Failed == 0 || r.Requests.FailedOutsideCandidate != 0 || r.Requests.Total < 500 {
		t.Errorf("requests %+v, want failures of the candidate only", r.Requests)
	}
	if !r.Audit.Verified || r.Audit.Entries < 50 {
		t.Errorf("audit %+v, want it verified", r.Audit)
	}
}

// TestOtherInputs changes three inputs and sees the three outcomes change.
func TestOtherInputs(t *testing.T) {
	r := run(t, Options{Healthy3: true, Within4: true, Tamper: true})
	r.want(t, "3", "production", "succeeded")
	r.want(t, "4", "production", "succeeded")
	if r.Audit.Verified {
		t.Error("a changed byte of the audit log was not found")
	}
	if r.Requests.Failed != 0 {
		t.Errorf("requests %+v, want none to fail", r.Requests)
	}
}

func TestWithoutApproval(t *testing.T) {
	r := run(t, Options{Unasked: true, PartsOnly: 2})
	r.want(t, "2", "staging", "succeeded")
	r.want(t, "2", "production", "waiting")
}
