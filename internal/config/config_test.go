package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

const head = "apiVersion: tidegate.dev/v1alpha1\nkind: Application\nmetadata: {name: shop}\nspec:\n"

func TestExamplesAreAccepted(t *testing.T) {
	for _, name := range []string{"../../examples/quickstart/shop.yaml", "../../examples/complete"} {
		files, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		set, err := Parse(files, Known{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := set.Objects(); err != nil {
			t.Error(err)
		}
	}
}

func TestMistakes(t *testing.T) {
	service := "  services: [{name: web}]\n"
	tests := []struct{ name, text, want string }{
		{"unknown key", head + "  servces: []\n", `a.yaml:5:3: spec.servces is not known: did you mean "services"?`},
		{"duplicate key", head + service + "  ordered: true\n  ordered: false\n", "a.yaml:7:3: spec.ordered is there twice; the first is in line 6."},
		{"wrong type", head + "  services: web\n", `a.yaml:5:13: spec.services: found "web", expected a list.`},
		{"number for text", head + "  services: [{name: 1}]\n", "a.yaml:5:21: spec.services[0].name: found the number 1, expected a text; put it in quotes."},
		{"bad name", head + "  services: [{name: Web}]\n", "a.yaml:5:21: spec.services[0].name: The service name"},
		{"enum", head + service + "  onFailure: some\n", `a.yaml:6:14: spec.onFailure: found "some", expected one of all, wave.`},
		{"duration", head + service + "  path: [{environment: dev, soak: 5 minutes}]\n", `a.yaml:6:35: spec.path[0].soak: "5 minutes" is not a duration`},
		{"dangling", head + service + "  path: [{environment: moon}]\n", `a.yaml:6:24: spec.path[0].environment: there is no environment "moon"`},
		{"cycle", head + service + "  path: [{environment: dev, after: [staging]}, {environment: staging, after: [dev]}]\n", "a.yaml:6:9: spec.path: it goes in a circle: dev after staging after dev."},
		{"weights fall", head + service + "  path: [{environment: dev, strategy: {kind: canary, steps: [{weight: 50}, {weight: 20}]}}]\n", "found 20, expected more than the step before (50)"},
		{"two tasks in one", head + service + "  before: [{name: x, manual: {instructions: y}, http: {url: 'http://x'}}]\n", "exactly one of http, command and manual; found 2"},
		{"no services", head + "  description: x\n", "an application has at least one service"},
		{"version", "apiVersion: v1\nkind: Application\nmetadata: {name: x}\nspec: {}\n", `a.yaml:1:13: The apiVersion is "v1"; expected "tidegate.dev/v1alpha1".`},
		{"kind", "apiVersion: tidegate.dev/v1alpha1\nkind: App\nmetadata: {name: x}\nspec: {}\n", `a.yaml:2:7: The kind "App" is not known`},
		{"alias", head + "  services: &a [{name: web}]\n", "anchors and aliases are not used here"},
		{"no YAML", "a: [", "a.yaml:1: This is not YAML"},
		{"nothing", "", "There is no document"},
		{"secret twice", head + "  services: [{name: web, env: {A: b}, secrets: {A: {env: B}}}]\n", "it is in env too"},
		{"policy file", strings.Replace(head, "Application", "PolicySet", 1) + "  files: [../x.rego]\n", "expected a path beside or below"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]File{{"a.yaml", []byte(tt.text)}}, Known{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if delivery.ErrorCode(err) != delivery.CodeInvalid {
				t.Errorf("code %s", delivery.ErrorCode(err))
			}
		})
	}
}

func TestEverythingWrongIsSaidAtOnce(t *testing.T) {
	_, err := Parse([]File{{"a.yaml", []byte(head + "  x: 1\n  y: 2\n")}}, Known{})
	if list, ok := err.(Errors); !ok || len(list) != 3 {
		t.Errorf("got %v, want three errors", err)
	}
}

// TestSchemasAgree holds the JSON Schemas against the strict decoder.
func TestSchemasAgree(t *testing.T) {
	compiled := map[string]*jsonschema.Schema{}
	for _, k := range delivery.Kinds() {
		raw, err := Schema(k)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		if err := c.AddResource("mem://"+string(k), v); err != nil {
			t.Fatal(err)
		}
		if compiled[string(k)], err = c.Compile("mem://" + string(k)); err != nil {
			t.Fatalf("%s: %v", k, err)
		}
	}
	check := func(text string) error {
		var v map[string]any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			return err
		}
		raw, _ := json.Marshal(v)
		plain, _ := jsonschema.UnmarshalJSON(strings.NewReader(string(raw)))
		return compiled[v["kind"].(string)].Validate(plain)
	}
	raw, err := os.ReadFile(filepath.FromSlash("../../examples/complete/shop.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range strings.Split(string(raw), "\n---\n") {
		if err := check(text); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
	for _, text := range []string{head + "  servces: []\n", head + "  services: web\n", head + "  services: [{name: w}]\n  onFailure: some\n", head + "  services: [{name: w}]\n  path: [{environment: dev, soak: 5 minutes}]\n"} {
		if err := check(text); err == nil {
			t.Errorf("the schema accepts what the decoder refuses:\n%s", text)
		}
	}
}

func TestInitIsAccepted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shop")
	if err := os.WriteFile(file, []byte("#!"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{file, filepath.Dir(file)} {
		b, err := Init("shop", program)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse([]File{{"shop.yaml", b}}, Known{}); err != nil {
			t.Errorf("%v\n%s", err, b)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(head + "  services: [{name: web}]\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Parse([]File{{"a.yaml", b}}, Known{}); err != nil && delivery.ErrorCode(err) != delivery.CodeInvalid {
			t.Errorf("%v is not invalid input", err)
		}
	})
}
