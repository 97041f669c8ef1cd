package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// newSpec returns a new value of a kind's spec.
func newSpec(k delivery.Kind) (reflect.Value, bool) {
	switch k {
	case delivery.KindApplication:
		return reflect.ValueOf(&delivery.Application{}), true
	case delivery.KindEnvironment:
		return reflect.ValueOf(&delivery.Environment{}), true
	case delivery.KindTarget:
		return reflect.ValueOf(&delivery.Target{}), true
	case delivery.KindCalendar:
		return reflect.ValueOf(&delivery.Calendar{}), true
	case delivery.KindPolicySet:
		return reflect.ValueOf(&delivery.PolicySet{}), true
	}
	return reflect.Value{}, false
}

func valueOf(v any) reflect.Value { return reflect.ValueOf(v) }

func kinds() string {
	var all []string
	for _, k := range delivery.Kinds() {
		all = append(all, string(k))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// enums are the values that a type of text may have.
var enums = map[reflect.Type][]string{
	reflect.TypeFor[delivery.Class]():        {"dev", "test", "production"},
	reflect.TypeFor[delivery.Promotion]():    {"automatic", "manual"},
	reflect.TypeFor[delivery.OnFailure]():    {"all", "wave"},
	reflect.TypeFor[delivery.StrategyKind](): {"rolling", "recreate", "blueGreen", "canary"},
	reflect.TypeFor[delivery.OnUndecided]():  {"promote", "pause", "rollback"},
	reflect.TypeFor[delivery.TargetKind]():   {"host", "fake"},
	reflect.TypeFor[delivery.PolicyMode]():   {"shadow", "advisory", "enforcing"},
	reflect.TypeFor[delivery.Moment]():       {"promotion_requested", "plan_rendered"},
}

// walker decodes one document into Go values and remembers where each stood.
type walker struct {
	*parser
	file   string
	places map[string]delivery.Position
}

func place(file string, n *yaml.Node) delivery.Position {
	return delivery.Position{File: file, Line: n.Line, Column: n.Column}
}

// describe says what a node is, for "found ...".
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.Tag {
	case "!!str":
		return strconv.Quote(n.Value)
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return n.Value
	}
	return strconv.Quote(n.Value)
}

func (w *walker) wrong(n *yaml.Node, path, expected string) {
	w.fail(place(w.file, n), "%s: found %s, expected %s.", path, describe(n), expected)
}

var timeType = reflect.TypeFor[time.Time]()

// decode puts a node into v, a pointer.
func (w *walker) decode(n *yaml.Node, v reflect.Value, path string) {
	w.places[path] = place(w.file, n)
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		w.fail(place(w.file, n), "%s: anchors and aliases are not used here; write the value out.", path)
		return
	}
	e := v.Elem()
	if e.Type() == timeType {
		w.time(n, e, path)
		return
	}
	if text, ok := v.Interface().(encoding.TextUnmarshaler); ok {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
			w.wrong(n, path, "a text such as 30s, 5m or 1h30m")
		} else if err := text.UnmarshalText([]byte(n.Value)); err != nil {
			w.fail(place(w.file, n), "%s: %s", path, message(err))
		}
		return
	}
	switch e.Kind() {
	case reflect.Pointer:
		e.Set(reflect.New(e.Type().Elem()))
		w.decode(n, e, path)
	case reflect.Struct:
		w.mapping(n, e, path)
	case reflect.Slice:
		w.list(n, e, path)
	case reflect.Map:
		w.dictionary(n, e, path)
	default:
		w.scalar(n, e, path)
	}
}

func (w *walker) time(n *yaml.Node, e reflect.Value, path string) {
	t, err := time.Parse(time.RFC3339, n.Value)
	if err != nil {
		w.wrong(n, path, "a time with zone such as 2026-12-24T18:00:00Z")
		return
	}
	e.Set(reflect.ValueOf(t.UTC()))
}

func (w *walker) mapping(n *yaml.Node, e reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		w.wrong(n, path, "a mapping")
		return
	}
	fields := fieldsOf(e.Type())
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if line, twice := seen[key.Value]; twice {
			w.fail(place(w.file, key), "%s is there twice; the first is in line %d.", join(path, key.Value), line)
			continue
		}
		seen[key.Value] = key.Line
		index, ok := fields[key.Value]
		if !ok {
			w.unknown(key, path, fields)
			continue
		}
		if empty(value) {
			w.places[join(path, key.Value)] = place(w.file, key)
			continue // a key without a value says nothing, like no key
		}
		w.decode(value, e.Field(index).Addr(), join(path, key.Value))
	}
}

func (w *walker) unknown(key *yaml.Node, path string, fields map[string]int) {
	var names []string
	best, distance := "", 3
	for name := range fields {
		names = append(names, name)
		if d := edits(strings.ToLower(name), strings.ToLower(key.Value)); d < distance || d == distance && name < best {
			best, distance = name, d
		}
	}
	slices.Sort(names)
	mend := "expected one of " + strings.Join(names, ", ")
	if best != "" {
		mend = fmt.Sprintf("did you mean %q?", best)
	}
	w.fail(place(w.file, key), "%s is not known: %s", join(path, key.Value), strings.TrimSuffix(mend, ".")+map[bool]string{true: "", false: "."}[strings.HasSuffix(mend, "?")])
}

func (w *walker) list(n *yaml.Node, e reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		w.wrong(n, path, "a list")
		return
	}
	for i, item := range n.Content {
		v := reflect.New(e.Type().Elem())
		w.decode(item, v, fmt.Sprintf("%s[%d]", path, i))
		e.Set(reflect.Append(e, v.Elem()))
	}
}

func (w *walker) dictionary(n *yaml.Node, e reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		w.wrong(n, path, "a mapping")
		return
	}
	e.Set(reflect.MakeMap(e.Type()))
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if e.MapIndex(reflect.ValueOf(key.Value)).IsValid() {
			w.fail(place(w.file, key), "%s is there twice.", join(path, key.Value))
			continue
		}
		v := reflect.New(e.Type().Elem())
		w.decode(value, v, join(path, key.Value))
		e.SetMapIndex(reflect.ValueOf(key.Value), v.Elem())
	}
}

func (w *walker) scalar(n *yaml.Node, e reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode {
		w.wrong(n, path, "a single value")
		return
	}
	switch e.Kind() {
	case reflect.String:
		w.text(n, e, path)
	case reflect.Bool:
		b, err := strconv.ParseBool(n.Value)
		if n.Tag != "!!bool" || err != nil {
			w.wrong(n, path, "true or false")
			return
		}
		e.SetBool(b)
	case reflect.Int, reflect.Int64:
		i, err := strconv.ParseInt(n.Value, 10, 64)
		if n.Tag != "!!int" || err != nil {
			w.wrong(n, path, "a whole number")
			return
		}
		e.SetInt(i)
	case reflect.Float64:
		x, err := strconv.ParseFloat(n.Value, 64)
		if n.Tag != "!!int" && n.Tag != "!!float" || err != nil {
			w.wrong(n, path, "a number")
			return
		}
		e.SetFloat(x)
	}
}

func (w *walker) text(n *yaml.Node, e reflect.Value, path string) {
	if n.Tag != "!!str" {
		w.wrong(n, path, "a text; put it in quotes")
		return
	}
	if allowed := enums[e.Type()]; allowed != nil && !slices.Contains(allowed, n.Value) {
		w.wrong(n, path, "one of "+strings.Join(allowed, ", "))
		return
	}
	e.SetString(n.Value)
}

// fieldsOf returns a struct's fields by their JSON names.
func fieldsOf(t reflect.Type) map[string]int {
	fields := map[string]int{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name != "" && name != "-" {
			fields[name] = i
		}
	}
	return fields
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		last := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			last, row[j] = row[j], min(row[j]+1, row[j-1]+1, last+cost)
		}
	}
	return row[len(b)]
}
