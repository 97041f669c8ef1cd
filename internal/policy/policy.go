// Package policy asks Rego. It compiles policy sets once per revision, with
// the network, the environment and randomness taken away and time as an input,
// and turns what the rules say into a [delivery.Decision].
//
// It is the only package that knows OPA. It must not decide what a decision
// leads to; that is internal/gate.
//
// Start reading at [Compile] and [Engine.Decide].
package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// deadline is how long all rules of one set may take for one decision.
const deadline = 250 * time.Millisecond

// maxMessages bounds what one set may say at one moment.
const maxMessages = 200

// NamedSet is a policy set with the name of its document.
type NamedSet struct {
	Name string
	Set  delivery.PolicySet
}

// Engine is a revision of policy sets, ready to be asked. It is safe for
// concurrent use.
type Engine struct {
	revision delivery.Digest
	sets     []prepared
}

type prepared struct {
	NamedSet
	queries map[string]rego.PreparedEvalQuery // by package: what it defines of deny, warn, require
}

// removed are builtins that would let a policy see more than its input.
var removed = []string{"http.send", "net.lookup_ip_addr", "opa.runtime", "rand.intn", "uuid.rfc4122"}

// capabilities returns what a policy may use.
func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool { return slices.Contains(removed, b.Name) })
	c.AllowNet = []string{}
	return c
}

// Compile parses, checks and prepares sets. Every error is invalid, with file,
// line and column, and all of them are returned, joined.
func Compile(ctx context.Context, sets []NamedSet) (*Engine, error) {
	e := &Engine{revision: Revision(sets)}
	var all []error
	for _, s := range sets {
		p, err := prepare(ctx, s)
		if err != nil {
			all = append(all, err)
			continue
		}
		e.sets = append(e.sets, p)
	}
	return e, errors.Join(all...)
}

// Revision is the digest of everything that sets say.
func Revision(sets []NamedSet) delivery.Digest {
	b, err := json.Marshal(sets)
	if err != nil {
		panic(fmt.Sprintf("policy: sets are not JSON: %v", err)) // plain structs of texts
	}
	return delivery.DigestBytes(b)
}

// Revision returns the digest of the sets that answer.
func (e *Engine) Revision() delivery.Digest { return e.revision }

func prepare(ctx context.Context, s NamedSet) (prepared, error) {
	modules := map[string]*ast.Module{}
	packages := map[string]bool{}
	var all []error
	for _, name := range slices.Sorted(maps.Keys(s.Set.Modules)) {
		m, err := ast.ParseModuleWithOpts(name, s.Set.Modules[name], ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: capabilities(), ProcessAnnotation: true})
		if err != nil {
			all = append(all, located(err)...)
			continue
		}
		path := strings.TrimPrefix(m.Package.Path.String(), "data.")
		if path != "tidegate" && !strings.HasPrefix(path, "tidegate.") {
			all = append(all, &delivery.Error{Code: delivery.CodeInvalid, Position: position(m.Package.Location),
				Message: fmt.Sprintf("The package is %q; a policy's package must lie under tidegate, e.g. tidegate.production.", path)})
			continue
		}
		modules[name] = m
		if !strings.HasSuffix(name, "_test.rego") {
			packages[path] = true
		}
	}
	if len(s.Set.Modules) == 0 {
		all = append(all, delivery.Errorf(delivery.CodeInvalid, "Policy set %s has no modules: add spec.modules or spec.files.", s.Name))
	}
	if len(all) > 0 {
		return prepared{}, errors.Join(all...)
	}
	schemas := ast.NewSchemaSet()
	schemas.Put(ast.SchemaRootRef, inputSchema())
	compiler := ast.NewCompiler().WithCapabilities(capabilities()).WithStrict(true).WithSchemas(schemas)
	if compiler.Compile(modules); compiler.Failed() {
		return prepared{}, errors.Join(located(compiler.Errors)...)
	}
	p := prepared{NamedSet: s, queries: map[string]rego.PreparedEvalQuery{}}
	for path := range packages {
		q, err := rego.New(rego.Query("x := data."+path), rego.Compiler(compiler), rego.StrictBuiltinErrors(true), rego.Capabilities(capabilities())).PrepareForEval(ctx)
		if err != nil {
			return prepared{}, errors.Join(located(err)...)
		}
		p.queries[path] = q
	}
	return p, nil
}

// located turns OPA's errors into ours, one each.
func located(err error) []error {
	var list ast.Errors
	if !errors.As(err, &list) {
		return []error{delivery.Wrap(delivery.CodeInvalid, err, "The policy can't be compiled: %v.", err)}
	}
	var all []error
	for _, e := range list {
		all = append(all, &delivery.Error{Code: delivery.CodeInvalid, Position: position(e.Location), Message: sentence(e), Err: e})
	}
	return all
}

func sentence(e *ast.Error) string {
	text := strings.TrimSuffix(e.Message, ".")
	if e.Details != nil {
		text += " (" + strings.Join(strings.Fields(strings.Join(e.Details.Lines(), " ")), " ") + ")"
	}
	return "The policy does not compile: " + text + "."
}

func position(l *ast.Location) *delivery.Position {
	if l == nil {
		return nil
	}
	return &delivery.Position{File: l.File, Line: l.Row, Column: l.Col}
}

// Check compiles modules as one set, without a server: what 'tidegate policy
// check' and validation do.
func Check(ctx context.Context, name string, modules map[string]string) error {
	_, err := Compile(ctx, []NamedSet{{Name: name, Set: delivery.PolicySet{Modules: modules}}})
	return err
}
