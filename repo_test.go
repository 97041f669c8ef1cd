package tidegate

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate-cd/tidegate/internal/engine"
)

const module = "github.com/tidegate-cd/tidegate/"

// room is a package's place in the house: its tier, what it may import besides
// lower tiers, and why.
type room struct {
	tier  int
	also  []string
	third []string // third parties that it may import
	why   string
}

// house is every package. A package that is missing fails the test, so that a
// new one forces a decision.
var house = map[string]room{
	"internal/delivery": {tier: 0},

	"internal/calendar": {tier: 1},
	"internal/plan":     {tier: 1},
	"internal/gate":     {tier: 1, also: []string{"internal/calendar"}, why: "the window gate asks it"},
	"internal/analysis": {tier: 1},
	"internal/engine":   {tier: 1, also: []string{"internal/analysis"}, why: "samples are folded by the judge within a turn, so that a turn can be decided again"},

	"internal/target":      {tier: 2},
	"internal/audit":       {tier: 2, third: []string{"golang.org/x/mod"}},
	"internal/store":       {tier: 2, also: []string{"internal/audit"}, third: []string{"modernc.org/sqlite", "github.com/pressly/goose", "golang.org/x/mod"}, why: "leaves are hashed in the transaction that writes them"},
	"internal/policy":      {tier: 2, third: []string{"github.com/open-policy-agent", "github.com/invopop/jsonschema"}},
	"internal/artifact":    {tier: 2, third: []string{"github.com/klauspost/compress"}},
	"internal/auth":        {tier: 2, also: []string{"internal/store"}, why: "tokens are kept there"},
	"internal/remote":      {tier: 2, also: []string{"internal/store"}, why: "its backend over the store"},
	"internal/host/proxy":  {tier: 2, third: []string{"github.com/prometheus", "golang.org/x/sys"}},
	"internal/host":        {tier: 2, also: []string{"internal/host/proxy", "internal/remote", "internal/artifact", "internal/target"}, third: []string{"golang.org/x/sys"}, why: "the supervisor is the other end of both"},
	"internal/target/fake": {tier: 2, also: []string{"internal/target"}, why: "its port"},
	"internal/facts":       {tier: 2, also: []string{"internal/engine", "internal/gate", "internal/plan", "internal/policy", "internal/store", "internal/target"}, why: "it assembles what they decide on"},
	"internal/runner":      {tier: 2, also: []string{"internal/engine", "internal/facts", "internal/store", "internal/target"}, why: "the shell of the engine"},
	"internal/control":     {tier: 2, also: []string{"internal/audit", "internal/auth", "internal/facts", "internal/gate", "internal/plan", "internal/remote", "internal/store", "internal/client/wire"}, why: "the only front door"},

	"internal/client/wire": {tier: 3},
	"internal/client":      {tier: 3, also: []string{"internal/client/wire"}, why: "what it speaks"},
	"internal/api":         {tier: 3, also: []string{"internal/control", "internal/audit", "internal/store", "internal/client/wire"}, third: []string{"github.com/prometheus"}, why: "answers are remembered in the store"},
	"internal/demo":        {tier: 4, also: []string{"internal/client", "internal/client/wire", "internal/audit"}, why: "a user with a program"},
	"internal/demo/shop":   {tier: 4},

	"internal/config": {tier: 4, third: []string{"go.yaml.in/yaml", "github.com/invopop/jsonschema"}},
	"internal/app":    {tier: 4, third: []string{"github.com/google/uuid", "golang.org/x/sync"}},
	"internal/cli":    {tier: 4, third: []string{"github.com/spf13/cobra", "go.yaml.in/yaml", "golang.org/x/mod"}},
	"cmd/tidegate":    {tier: 4},

	"internal/store/storetest":       {tier: 5, third: []string{"pgregory.net/rapid", "github.com/google/go-cmp", "golang.org/x/mod"}},
	"internal/target/targettest":     {tier: 5},
	"internal/scenario":              {tier: 5},
	"internal/host/proxy/bench":      {tier: 5},
	"internal/host/proxy/proxybench": {tier: 5},
	"":                               {tier: 4},
}

type goPackage struct {
	ImportPath string
	Imports    []string
	Dir        string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Dir", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p goPackage
		if err := d.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func name(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, strings.TrimSuffix(module, "/")), "/")
}

func TestEveryPackageKeepsToItsTier(t *testing.T) {
	for _, p := range packages(t) {
		from, ok := house[name(p.ImportPath)]
		if !ok {
			t.Errorf("%s has no place in the house: add it to the table in repo_test.go", p.ImportPath)
			continue
		}
		for _, i := range p.Imports {
			first, _, _ := strings.Cut(i, "/")
			switch {
			case strings.HasPrefix(i, module):
				to := house[name(i)]
				if to.tier >= from.tier && from.tier < 4 && !slices.Contains(from.also, name(i)) {
					t.Errorf("%s (tier %d) may not import %s (tier %d)", name(p.ImportPath), from.tier, name(i), to.tier)
				}
			case strings.Contains(first, "."):
				if from.tier < 5 && !slices.ContainsFunc(from.third, func(prefix string) bool { return strings.HasPrefix(i, prefix) }) {
					t.Errorf("%s may not import %s: third parties are confined", name(p.ImportPath), i)
				}
			case from.tier <= 1 && impure(i, from.tier):
				t.Errorf("%s is pure and may not import %s", name(p.ImportPath), i)
			}
		}
	}
}

// impure are parts of the standard library that the core does without.
func impure(i string, tier int) bool {
	for _, p := range []string{"os", "net", "database", "math/rand", "crypto/rand", "io/fs", "log", "syscall", "sync"} {
		if i == p || strings.HasPrefix(i, p+"/") {
			return true
		}
	}
	return i == "context"
}

// sources calls f for every Go file of ours.
func sources(t *testing.T, f func(path string, text string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata" || d.Name() == "tools" || d.Name() == "bin") {
			if d != nil && d.IsDir() && err == nil {
				return fs.SkipDir
			}
			return err
		}
		if filepath.Ext(path) == ".go" {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			f(filepath.ToSlash(path), string(b))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// slow is what may sleep, with the reason.
var slow = map[string]string{"internal/host/main_test.go": "the sample program that the tests run is slow on purpose"}

// long is what may pass the hard limits, with the reason.
var long = map[string]string{}

func TestSizes(t *testing.T) {
	sources(t, func(path, text string) {
		limit := 800
		if strings.HasSuffix(path, "_test.go") {
			limit = 1200
		}
		if n := strings.Count(text, "\n"); n > limit && long[path] == "" {
			t.Errorf("%s has %d lines, the limit is %d", path, n, limit)
		}
		files := token.NewFileSet()
		parsed, err := parser.ParseFile(files, path, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "test/") {
				continue
			}
			if n := files.Position(f.End()).Line - files.Position(f.Pos()).Line; n > 100 && long[path+":"+f.Name.Name] == "" {
				t.Errorf("%s: %s has %d lines, the limit is 100", path, f.Name.Name, n)
			}
		}
	})
}

var (
	sleeps  = regexp.MustCompile(`\btime\.Sleep\(`)
	clock   = regexp.MustCompile(`\btime\.(Now|Since|Until|After|NewTimer|NewTicker)\(`)
	history = regexp.MustCompile(`(?i)//.*\b(TODO|FIXME|XXX|used to|formerly known)\b`)
)

func TestSources(t *testing.T) {
	sources(t, func(path, text string) {
		if strings.HasSuffix(path, "_test.go") && path != "repo_test.go" && slow[path] == "" && sleeps.MatchString(text) && !strings.Contains(text, "synctest") {
			t.Errorf("%s sleeps: poll with a limit, or use a synctest bubble", path)
		}
		tier, known := house[filepath.ToSlash(filepath.Dir(path))]
		if known && tier.tier <= 1 && !strings.HasSuffix(path, "_test.go") && clock.MatchString(text) {
			t.Errorf("%s reads a clock: now is a value in the core", path)
		}
		if path != "repo_test.go" && history.MatchString(text) {
			t.Errorf("%s: a comment says history or unfinished work: %s", path, history.FindString(text))
		}
	})
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		found := false
		files, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			found = found || parsed.Doc != nil
		}
		if !found {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func TestDiagramIsFresh(t *testing.T) {
	b, err := os.ReadFile("docs/reference/deployment.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), engine.Diagram()) {
		t.Errorf("docs/reference/deployment.md does not have the engine's diagram:\n%s", engine.Diagram())
	}
}

var codeName = regexp.MustCompile("`([a-z]+)\\.(\\(\\*?[A-Za-z]+\\)\\.)?([A-Z][A-Za-z]+)`")

// TestWalkthroughNamesWhatExists looks up every `package.Name` of the walkthrough.
func TestWalkthroughNamesWhatExists(t *testing.T) {
	declared := map[string]bool{}
	sources(t, func(path, text string) {
		parsed, err := parser.ParseFile(token.NewFileSet(), path, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				declared[parsed.Name.Name+"."+d.Name.Name] = true
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if ts, ok := s.(*ast.TypeSpec); ok {
						declared[parsed.Name.Name+"."+ts.Name.Name] = true
					}
				}
			}
		}
	})
	for _, doc := range []string{"docs/walkthrough.md", "ARCHITECTURE.md"} {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		names := codeName.FindAllStringSubmatch(string(b), -1)
		if len(names) < 3 {
			t.Errorf("%s names %d functions or types, want some", doc, len(names))
		}
		for _, m := range names {
			if !declared[m[1]+"."+m[3]] {
				t.Errorf("%s names %s, which is not there", doc, m[0])
			}
		}
	}
}

// TestGlossaryWordsExist looks up every word of the glossary that names a type.
func TestGlossaryWordsExist(t *testing.T) {
	b, err := os.ReadFile("docs/glossary.md")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]bool{}
	sources(t, func(path, text string) {
		if strings.HasPrefix(path, "internal/delivery/") {
			for _, m := range regexp.MustCompile(`(?m)^type ([A-Z][A-Za-z]+)`).FindAllStringSubmatch(text, -1) {
				types[m[1]] = true
			}
		}
	})
	n := 0
	for _, m := range regexp.MustCompile("`delivery\\.([A-Z][A-Za-z]+)`").FindAllStringSubmatch(string(b), -1) {
		n++
		if !types[m[1]] {
			t.Errorf("the glossary names delivery.%s, which is not there", m[1])
		}
	}
	if n < 15 {
		t.Errorf("the glossary names %d types", n)
	}
}
