package delivery

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func release() Release {
	return Release{Project: "default", Application: "shop", Version: "1", Services: []ReleaseService{
		{Service: Service{Name: "web", Args: []string{"-x"}}, Artifact: Artifact{Digest: DigestBytes([]byte("a")), Size: 1, Kind: ArtifactExecutable}},
		{Service: Service{Name: "api"}, Artifact: Artifact{Digest: DigestBytes([]byte("b")), Size: 1, Kind: ArtifactTar}},
	}}
}

// TestReleaseDigestIsItsContent has the digest written out: if it changes, every
// stored release has another name than its content.
func TestReleaseDigestIsItsContent(t *testing.T) {
	r := release()
	d := r.ComputeDigest()
	if want := Digest("sha256:b9f17eca75453310f43733a8184b18af3db6c7941615f2e4b16e63808c807787"); d != want {
		t.Errorf("digest %s, want %s", d, want)
	}
	r.Services[0], r.Services[1] = r.Services[1], r.Services[0]
	r.CreatedAt, r.CreatedBy, r.Digest = time.Now(), System(), "x"
	if r.ComputeDigest() != d {
		t.Error("the order of services, or who made it, is part of the digest")
	}
	r.Services[0].Args = []string{"-y"}
	if r.ComputeDigest() == d {
		t.Error("other arguments have the same digest")
	}
}

func TestCombineNeverPassesByAbsence(t *testing.T) {
	v := func(o ...Outcome) (all []Verdict) {
		for _, x := range o {
			all = append(all, Verdict{Outcome: x})
		}
		return all
	}
	tests := []struct {
		in   []Verdict
		want Outcome
	}{
		{nil, OutcomeUnknown}, {v(OutcomePass), OutcomePass}, {v(OutcomePass, OutcomeWait), OutcomeWait},
		{v(OutcomeWait, OutcomeUnknown), OutcomeUnknown}, {v(OutcomeUnknown, OutcomeDeny, OutcomePass), OutcomeDeny},
	}
	for _, tt := range tests {
		if got := Combine(tt.in); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{"a": true, "shop-2": true, "": false, "-a": false, "a-": false, "Shop": false, "a.b": false, "a/b": false, strings.Repeat("a", 64): false} {
		if err := CheckName("service", name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestErrorsKeepTheirCauseAndCode(t *testing.T) {
	cause := errors.New("secret")
	err := error(Wrap(CodeUnavailable, cause, "Try again."))
	if ErrorCode(err) != CodeUnavailable || !errors.Is(err, cause) || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v: code %s", err, ErrorCode(err))
	}
	if ErrorCode(cause) != CodeInternal || ErrorCode(nil) != "" {
		t.Error("foreign errors are internal, none is none")
	}
}

func TestSeparationOfDuties(t *testing.T) {
	ana, ben := Actor{Subject: "ana", Issuer: "tidegate"}, Actor{Subject: "ben", Issuer: "tidegate"}
	robot := Actor{Subject: "ci", Issuer: "github", OnBehalfOf: "ana"}
	other := Actor{Subject: "ana", Issuer: "elsewhere"}
	if !ana.Same(ana) || ana.Same(ben) || !robot.Same(ana) || !ana.Same(robot) || ana.Same(other) {
		t.Error("Same confuses identities")
	}
}

func TestDurationsAreText(t *testing.T) {
	var v struct{ D Duration }
	if err := json.Unmarshal([]byte(`{"D": "1m30s"}`), &v); err != nil || v.D.Std() != 90*time.Second {
		t.Errorf("%v %v", v, err)
	}
	for _, wrong := range []string{`"-1s"`, `"5 minutes"`, `90`} {
		if json.Unmarshal([]byte(`{"D": `+wrong+`}`), &v) == nil {
			t.Errorf("%s was accepted", wrong)
		}
	}
}

func TestProductionIsManualByDefault(t *testing.T) {
	a := Application{Services: []Service{{Name: "web"}}}.WithDefaults()
	if s, _ := a.Step("production"); s.Promotion != PromotionManual || len(s.After) != 1 || s.After[0] != "staging" {
		t.Errorf("production: %+v", s)
	}
	if s, _ := a.Step("staging"); s.Promotion != PromotionAutomatic {
		t.Errorf("staging: %+v", s)
	}
	if got := a.Downstream("dev"); len(got) != 1 || got[0].Environment != "staging" {
		t.Errorf("after dev: %+v", got)
	}
}
