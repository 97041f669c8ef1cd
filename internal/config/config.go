// Package config reads the documents that users write: strictly, with the
// place and the mend of everything that is wrong, and all of it at once. What
// it returns is typed; nothing is half understood.
//
// It must not know what is stored, except for the references it is told of.
//
// Start reading at [Parse].
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// File is a file of configuration. Name is what errors call it.
type File struct {
	Name    string
	Content []byte
}

// Document is one document with where each of its fields stands.
type Document struct {
	Kind     delivery.Kind
	Project  string
	Name     string
	Spec     any // delivery.Application, Environment, Target, Calendar or PolicySet
	Position delivery.Position

	places map[string]delivery.Position // by path below the document, e.g. spec.services[0].name
}

// Set is all documents of some files.
type Set struct{ Documents []Document }

// Errors is everything that is wrong, in the order of the files.
type Errors []*delivery.Error

// Error joins the messages, a line each.
func (e Errors) Error() string {
	var lines []string
	for _, one := range e {
		lines = append(lines, one.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the errors.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i := range e {
		all[i] = e[i]
	}
	return all
}

// limits on what a user may send
const (
	maxFile      = 4 << 20
	maxDocuments = 1000
)

// Known says what the documents may refer to besides each other. Nil funcs
// know nothing.
type Known struct {
	Environment func(project, name string) bool
	Calendar    func(project, name string) bool
}

// Parse reads the documents of files; files that are no YAML or JSON may be
// named by a PolicySet. The error is an [Errors].
func Parse(files []File, known Known) (*Set, error) {
	p := &parser{files: map[string]File{}}
	for _, f := range files {
		p.files[f.Name] = f
	}
	for _, f := range files {
		if documentFile(f.Name) {
			p.file(f)
		}
	}
	p.check(known)
	if len(p.errors) > 0 {
		return nil, p.errors
	}
	if len(p.set.Documents) == 0 {
		return nil, Errors{delivery.Errorf(delivery.CodeInvalid, "There is no document: a file with 'apiVersion: %s' and a kind is expected; 'tidegate init' writes one.", delivery.APIVersion)}
	}
	return &p.set, nil
}

func documentFile(name string) bool {
	return !strings.HasSuffix(name, ".rego")
}

type parser struct {
	files  map[string]File
	set    Set
	errors Errors
}

func (p *parser) fail(at delivery.Position, format string, args ...any) {
	if len(p.errors) < 100 {
		p.errors = append(p.errors, &delivery.Error{Code: delivery.CodeInvalid, Position: &at, Message: fmt.Sprintf(format, args...)})
	}
}

func (p *parser) file(f File) {
	if len(f.Content) > maxFile {
		p.fail(delivery.Position{File: f.Name}, "The file has more than %d bytes.", maxFile)
		return
	}
	decoder := yaml.NewDecoder(bytes.NewReader(f.Content))
	for range maxDocuments {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			p.fail(yamlPosition(f.Name, err), "This is not YAML: %s.", yamlMessage(err))
			return
		}
		if node.Kind == yaml.DocumentNode && len(node.Content) == 1 && !empty(node.Content[0]) {
			p.document(f.Name, node.Content[0])
		}
	}
	p.fail(delivery.Position{File: f.Name}, "The file has more than %d documents.", maxDocuments)
}

func empty(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// yamlPosition takes the line out of the parser's message.
func yamlPosition(file string, err error) delivery.Position {
	at := delivery.Position{File: file}
	if _, rest, ok := strings.Cut(err.Error(), "line "); ok {
		fmt.Sscanf(rest, "%d", &at.Line) // without a line the file alone is named
	}
	return at
}

func yamlMessage(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if _, rest, ok := strings.Cut(text, ": "); ok && strings.HasPrefix(text, "line ") {
		return rest
	}
	return text
}

// header is what every document has besides its spec.
type header struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name    string `json:"name"`
		Project string `json:"project,omitempty"`
	} `json:"metadata"`
}

func (p *parser) document(file string, n *yaml.Node) {
	d := Document{Position: place(file, n), places: map[string]delivery.Position{}}
	if n.Kind != yaml.MappingNode {
		p.fail(d.Position, "A document is a mapping with apiVersion, kind, metadata and spec; found %s.", describe(n))
		return
	}
	before := len(p.errors)
	var head header
	spec := p.header(file, n, &head, &d)
	if len(p.errors) > before {
		return
	}
	d.Kind, d.Name, d.Project = delivery.Kind(head.Kind), head.Metadata.Name, orDefault(head.Metadata.Project)
	into, ok := newSpec(d.Kind)
	if !ok {
		p.fail(d.at("kind"), "The kind %q is not known: use %s.", head.Kind, kinds())
		return
	}
	if spec == nil {
		p.fail(d.Position, "The %s %s has no spec.", d.Kind, d.Name)
		return
	}
	w := &walker{parser: p, file: file, places: d.places}
	w.decode(spec, into, "spec")
	d.Spec = into.Elem().Interface()
	p.set.Documents = append(p.set.Documents, d)
}

// header decodes everything but spec, and returns the spec's node.
func (p *parser) header(file string, n *yaml.Node, head *header, d *Document) *yaml.Node {
	var spec *yaml.Node
	rest := *n
	rest.Content = nil
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "spec" && spec == nil {
			spec = n.Content[i+1]
			continue
		}
		rest.Content = append(rest.Content, n.Content[i], n.Content[i+1])
	}
	w := &walker{parser: p, file: file, places: d.places}
	w.decode(&rest, valueOf(head), "")
	if head.APIVersion != delivery.APIVersion {
		p.fail(d.at("apiVersion"), "The apiVersion is %q; expected %q.", head.APIVersion, delivery.APIVersion)
	}
	if err := delivery.CheckName("document's", head.Metadata.Name); err != nil {
		p.fail(d.at("metadata.name"), "%s", message(err))
	}
	if head.Metadata.Project != "" {
		if err := delivery.CheckName("project", head.Metadata.Project); err != nil {
			p.fail(d.at("metadata.project"), "%s", message(err))
		}
	}
	return spec
}

func message(err error) string {
	if e, ok := errors.AsType[*delivery.Error](err); ok {
		return e.Message
	}
	return err.Error()
}

func orDefault(project string) string {
	if project == "" {
		return delivery.DefaultProject
	}
	return project
}

// at returns where a field stands, or the nearest field above it.
func (d *Document) at(path string) delivery.Position {
	for path != "" {
		if at, ok := d.places[path]; ok {
			return at
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			break
		}
		path = path[:cut]
	}
	return d.Position
}

// Objects returns the documents as objects to be stored, in the order in which
// they can be: what others refer to first.
func (s *Set) Objects() ([]delivery.Object, error) {
	var all []delivery.Object
	for _, kind := range delivery.Kinds() {
		for _, d := range s.Documents {
			if d.Kind != kind {
				continue
			}
			raw, err := json.Marshal(d.Spec)
			if err != nil {
				return nil, delivery.Wrap(delivery.CodeInternal, err, "The %s %s can't be written as JSON.", d.Kind, d.Name)
			}
			all = append(all, delivery.Object{Kind: d.Kind, Project: d.Project, Name: d.Name, Spec: raw})
		}
	}
	return all, nil
}
