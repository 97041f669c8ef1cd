package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/tidegate-cd/tidegate/internal/artifact"
	"github.com/tidegate-cd/tidegate/internal/audit"
	"github.com/tidegate-cd/tidegate/internal/auth"
	"github.com/tidegate-cd/tidegate/internal/client"
	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/config"
	"github.com/tidegate-cd/tidegate/internal/control"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/facts"
	"github.com/tidegate-cd/tidegate/internal/store"
)

type bench struct {
	api    *API
	server *httptest.Server
	store  store.Store
	admin  *client.Client
	token  string
	log    *audit.Log
}

type files struct{ *artifact.Store }

func (f files) Fetch(ctx context.Context, url string, want delivery.Digest) (delivery.Artifact, error) {
	return f.Store.Fetch(ctx, url, want, artifact.FetchOptions{})
}

// start makes a server over the memory store: everything real but the runner and the hosts.
func start(t *testing.T) *bench {
	t.Helper()
	n := 0
	newID := func() delivery.ID { n++; return delivery.ID(fmt.Sprintf("id-%06d", n)) }
	b := &bench{store: store.NewMemory(store.Options{})}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	key, err := audit.OpenKey(root, "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := artifact.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tokens := &auth.Tokens{Store: b.store, NewID: newID}
	if err := tokens.EnsureAdministrator(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	secret, err := root.ReadFile("admin.token")
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := root.Stat("admin.token"); info.Mode().Perm() != 0o600 {
		t.Errorf("admin.token has mode %v", info.Mode())
	}
	b.token = strings.TrimSpace(string(secret))
	b.log = audit.NewLog(b.store, key)
	front := control.New(control.Options{
		Store: b.store, Facts: facts.New(facts.Options{Store: b.store, NewID: newID}), Artifacts: files{a}, Audit: b.log,
		Tokens: tokens, NewID: newID, Log: slog.New(slog.DiscardHandler),
		Parse: func(_ context.Context, in []control.File, _ func(delivery.Kind, string, string) bool) ([]delivery.Object, error) {
			var list []config.File
			for _, f := range in {
				list = append(list, config.File{Name: f.Name, Content: f.Content})
			}
			set, err := config.Parse(list, config.Known{})
			if err != nil {
				return nil, err
			}
			return set.Objects()
		},
	})
	b.api = New(Options{Control: front, Memory: b.store, Version: wire.Version{API: "v1"}, Log: slog.New(slog.DiscardHandler)})
	b.server = httptest.NewServer(b.api)
	t.Cleanup(b.server.Close)
	b.admin = b.client(t, b.token)
	return b
}

func (b *bench) client(t *testing.T, token string) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{Address: b.server.URL, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (b *bench) raw(t *testing.T, method, path, token, body string) (int, wire.Failure) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, b.server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var f wire.Failure
	json.NewDecoder(response.Body).Decode(&f)
	return response.StatusCode, f
}

var fill = strings.NewReplacer("{project}", "default", "{application}", "shop", "{environment}", "dev", "{kind}", "Application", "{name}", "shop",
	"{reference}", "1", "{id}", "x", "{digest}", "sha256:00", "{index}", "0")

func TestEveryRouteNamesItsAuthentication(t *testing.T) {
	b := start(t)
	open := map[string]bool{}
	for _, r := range b.api.Routes() {
		path := fill.Replace(r.Pattern)
		switch r.Access {
		case Open:
			open[r.Pattern] = true
		case ByToken:
			if status, _ := b.raw(t, r.Method, path, "", ""); status != http.StatusUnauthorized {
				t.Errorf("%s %s without a token: %d, want 401", r.Method, path, status)
			}
			for _, wrong := range []string{"tg_x", "tg_" + strings.Repeat("A", 43)} {
				if status, f := b.raw(t, r.Method, path, wrong, ""); status != http.StatusForbidden || f.Error.Code != delivery.CodeDenied {
					t.Errorf("%s %s with an unknown token: %d, want 403", r.Method, path, status)
				}
			}
		default:
			t.Errorf("%s %s names no authentication", r.Method, r.Pattern)
		}
	}
	if len(open) != 5 {
		t.Errorf("open routes %v: a new one wants a reason here", open)
	}
}

func TestOpenAPIHasTheRoutes(t *testing.T) {
	b := start(t)
	paths := b.api.OpenAPI()["paths"].(map[string]any)
	n := 0
	for _, p := range paths {
		n += len(p.(map[string]any))
	}
	if n != len(b.api.Routes()) {
		t.Errorf("OpenAPI has %d operations, the server %d", n, len(b.api.Routes()))
	}
}

const shop = "apiVersion: tidegate.dev/v1alpha1\nkind: Application\nmetadata: {name: shop}\nspec: {services: [{name: web}]}\n"

func apply(text string) wire.Apply {
	return wire.Apply{Files: []wire.File{{Name: "a.yaml", Content: text}}}
}

func TestApplyIsAllOrNothingAndIdempotent(t *testing.T) {
	b := start(t)
	if _, err := b.admin.Apply(t.Context(), "default", apply(shop+"---\nkind: Moon\n")); delivery.ErrorCode(err) != delivery.CodeInvalid {
		t.Fatalf("got %v, want invalid", err)
	}
	if _, err := b.admin.Object(t.Context(), "default", delivery.KindApplication, "shop", 0); delivery.ErrorCode(err) != delivery.CodeNotFound {
		t.Fatalf("half of it was applied: %v", err)
	}
	for i, want := range []wire.Action{wire.ActionCreated, wire.ActionUnchanged} {
		done, err := b.admin.Apply(t.Context(), "default", apply(shop))
		if err != nil || done.Documents[0].Action != want || done.Documents[0].Revision != 1 {
			t.Errorf("apply %d: %+v, %v, want %s at revision 1", i, done, err, want)
		}
	}
}

// release makes release 1 of the shop.
func (b *bench) release(t *testing.T, content string) (delivery.Release, error) {
	t.Helper()
	a, err := b.admin.UploadArtifact(t.Context(), strings.NewReader(content), int64(len(content)), "")
	if err != nil {
		t.Fatal(err)
	}
	return b.admin.CreateRelease(t.Context(), "default", "shop", wire.NewRelease{Version: "1", Artifacts: map[string]wire.Artifact{"": {Digest: a.Digest}}})
}

func TestReleasesAreImmutable(t *testing.T) {
	b := start(t)
	if _, err := b.admin.Apply(t.Context(), "default", apply(shop)); err != nil {
		t.Fatal(err)
	}
	one, err := b.release(t, "#!/bin/true\n")
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.release(t, "#!/bin/true\n")
	if err != nil || again.Digest != one.Digest {
		t.Errorf("the same content gave %s, %v, want %s", again.Digest, err, one.Digest)
	}
	if _, err := b.release(t, "#!/bin/false\n"); delivery.ErrorCode(err) != delivery.CodeConflict {
		t.Errorf("other content under the version: %v, want conflict", err)
	}
	key := delivery.PlacementKey{Project: "default", Application: "shop", Environment: "dev"}
	if _, err := b.admin.Promote(t.Context(), key, wire.Promote{Release: "9"}); delivery.ErrorCode(err) != delivery.CodeNotFound {
		t.Errorf("promote an unknown release: %v", err)
	}
	key.Environment = "moon"
	if _, err := b.admin.Promote(t.Context(), key, wire.Promote{Release: "1"}); delivery.ErrorCode(err) != delivery.CodeNotFound {
		t.Errorf("promote to an unknown environment: %v", err)
	}
}

func TestRolesAndRecordedDenials(t *testing.T) {
	b := start(t)
	created, err := b.admin.CreateToken(t.Context(), wire.NewToken{Name: "eve"})
	if err != nil {
		t.Fatal(err)
	}
	eve := b.client(t, created.Secret)
	if _, err := eve.Actor(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := delivery.PlacementKey{Project: "default", Application: "shop", Environment: "dev"}
	if _, err := eve.Promote(t.Context(), key, wire.Promote{Release: "1"}); delivery.ErrorCode(err) != delivery.CodeDenied {
		t.Errorf("eve promotes: %v, want denied", err)
	}
	if _, err := eve.CreateToken(t.Context(), wire.NewToken{Name: "eve", Groups: []string{"administrators"}}); delivery.ErrorCode(err) != delivery.CodeDenied {
		t.Errorf("eve makes herself administrator: %v", err)
	}
	list, err := b.admin.AuditEntries(t.Context(), wire.AuditQuery{Last: 10})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, e := range list.Items {
		if strings.Contains(string(e.Event), string(delivery.EventAuthorisationDenied)) && strings.Contains(string(e.Event), "eve") {
			found++
		}
		if strings.Contains(string(e.Event), created.Secret) {
			t.Error("the audit log has a token's secret")
		}
	}
	if found != 2 {
		t.Errorf("%d denials were recorded, want 2", found)
	}
	if err := b.admin.RevokeToken(t.Context(), created.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := eve.Actor(t.Context()); delivery.ErrorCode(err) != delivery.CodeDenied {
		t.Errorf("a revoked token counts: %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	b := start(t)
	tests := []struct{ name, method, path, body, want string }{
		{"unknown field", "POST", "/api/v1/tokens", `{"name": "x", "admin": true}`, "unknown field"},
		{"two values", "POST", "/api/v1/tokens", `{"name": "x"} {}`, "more than one JSON value"},
		{"no JSON", "POST", "/api/v1/tokens", `name=x`, "not what is expected"},
		{"unknown kind", "GET", "/api/v1/projects/default/objects/Moon", "", "is not known"},
		{"limit", "GET", "/api/v1/projects/default/objects/Application?limit=5000", "", "too large"},
		{"time", "GET", "/api/v1/inventory?at=yesterday", "", "is not a time"},
		{"digest", "GET", "/api/v1/artifacts/x", "", "is not a digest"},
		{"index", "GET", "/api/v1/audit/entries/x/proof", "", "is not the index"},
		{"too large", "POST", "/api/v1/projects/default/apply", `{"files": [{"name": "a", "content": "` + strings.Repeat("x", maxBody) + `"}]}`, "more than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, f := b.raw(t, tt.method, tt.path, b.token, tt.body)
			if status != http.StatusBadRequest || !strings.Contains(f.Error.Message, tt.want) || !strings.HasSuffix(f.Error.Message, ".") {
				t.Errorf("%d %+v, want 400 and a sentence with %q", status, f.Error, tt.want)
			}
		})
	}
}

func TestIdempotencyKey(t *testing.T) {
	b := start(t)
	if _, err := b.admin.Apply(t.Context(), "default", apply(shop)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.release(t, "#!/bin/true\n"); err != nil {
		t.Fatal(err)
	}
	ctx := client.WithIdempotencyKey(t.Context(), "once")
	key := delivery.PlacementKey{Project: "default", Application: "shop", Environment: "dev"}
	one, err := b.admin.Promote(ctx, key, wire.Promote{Release: "1"})
	if err != nil {
		t.Fatal(err)
	}
	two, err := b.admin.Promote(ctx, key, wire.Promote{Release: "1"})
	if err != nil || two.Deployment != one.Deployment {
		t.Errorf("repeated: %+v, %v, want deployment %s again", two, err, one.Deployment)
	}
	if _, err := b.admin.Promote(ctx, key, wire.Promote{Release: "1", Reason: "other"}); delivery.ErrorCode(err) != delivery.CodeConflict {
		t.Errorf("the key with another request: %v, want conflict", err)
	}
}

func TestEventsResumeAndExportVerifies(t *testing.T) {
	b := start(t)
	for i := range 5 {
		if _, err := b.admin.CreateToken(t.Context(), wire.NewToken{Name: fmt.Sprintf("n%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	read := func(after int64, n int) []int64 {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var got []int64
		for e, err := range b.admin.Events(ctx, wire.EventQuery{After: &after}) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, e.Index); len(got) == n {
				break
			}
		}
		return got
	}
	if got := fmt.Sprint(read(-1, 3), read(2, 3)); got != "[0 1 2] [3 4 5]" {
		t.Errorf("events %s, want each once", got)
	}
	var out bytes.Buffer
	if err := b.admin.AuditExport(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	s, err := audit.Verify(bytes.NewReader(out.Bytes()), b.log.Verifier(), "")
	if err != nil || s.EntryCount != 6 {
		t.Errorf("export: %+v, %v", s, err)
	}
	if _, err := io.Copy(io.Discard, &out); err != nil {
		t.Fatal(err)
	}
}
