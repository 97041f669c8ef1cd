package cli

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"tidegate": func() { os.Exit(Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: func(e *testscript.Env) error {
		e.Setenv("TIDEGATE_DIR", e.WorkDir+"/data")
		e.Setenv("HOME", e.WorkDir)
		return nil
	}})
}

func TestExitCodes(t *testing.T) {
	seen := map[int]bool{}
	for _, code := range []delivery.Code{delivery.CodeInvalid, delivery.CodeNotFound, delivery.CodeConflict, delivery.CodeDenied, delivery.CodeUnavailable, delivery.CodeInternal} {
		n := ExitCode(delivery.Errorf(code, "x"))
		if n == ExitOK || seen[n] {
			t.Errorf("%s gives exit code %d, which is not its own", code, n)
		}
		seen[n] = true
	}
	if ExitCode(nil) != ExitOK || ExitCode(errUnsuccessful) != ExitUnsuccess {
		t.Error("success and an unsuccessful deployment have the wrong codes")
	}
}

func TestArtifactFlag(t *testing.T) {
	tests := []struct{ in, service, place string }{
		{"./shop", "", "./shop"},
		{"web=./shop", "web", "./shop"},
		{"./a=b", "", "./a=b"},
		{"https://x/y?a=b#sha256:00", "", "https://x/y?a=b#sha256:00"},
		{"web=https://x/y", "web", "https://x/y"},
	}
	for _, tt := range tests {
		if s, p := artifactFlag(tt.in); s != tt.service || p != tt.place {
			t.Errorf("artifactFlag(%q) = %q, %q, want %q, %q", tt.in, s, p, tt.service, tt.place)
		}
	}
}
