package config

import (
	"encoding/json"
	"reflect"

	"github.com/invopop/jsonschema"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// durationPattern is what time.ParseDuration reads, without a sign.
const durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`

// Schema returns the JSON Schema (draft 2020-12) of a kind of document.
func Schema(kind delivery.Kind) ([]byte, error) {
	spec, ok := newSpec(kind)
	if !ok {
		return nil, delivery.Errorf(delivery.CodeInvalid, "The kind %q is not known: use %s.", kind, kinds())
	}
	r := jsonschema.Reflector{Anonymous: true, ExpandedStruct: true, Mapper: mapped}
	s := r.ReflectFromType(spec.Type().Elem())
	definitions := s.Definitions
	s.Version, s.Definitions = "", nil
	optional(s)
	for _, d := range definitions {
		optional(d)
	}
	properties := jsonschema.NewProperties()
	properties.Set("apiVersion", &jsonschema.Schema{Const: delivery.APIVersion})
	properties.Set("kind", &jsonschema.Schema{Const: string(kind)})
	properties.Set("metadata", metadata())
	properties.Set("spec", s)
	whole := &jsonschema.Schema{
		Version: "https://json-schema.org/draft/2020-12/schema", Title: "Tidegate " + string(kind), Type: "object",
		Properties: properties, Required: []string{"apiVersion", "kind", "metadata", "spec"},
		AdditionalProperties: jsonschema.FalseSchema, Definitions: definitions,
	}
	return json.MarshalIndent(whole, "", "  ")
}

func metadata() *jsonschema.Schema {
	p := jsonschema.NewProperties()
	name := &jsonschema.Schema{Type: "string", Pattern: `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`}
	p.Set("name", name)
	p.Set("project", name)
	return &jsonschema.Schema{Type: "object", Properties: p, Required: []string{"name"}, AdditionalProperties: jsonschema.FalseSchema}
}

// mapped gives the types that are written as text their form.
func mapped(t reflect.Type) *jsonschema.Schema {
	if t == reflect.TypeFor[delivery.Duration]() {
		return &jsonschema.Schema{Type: "string", Pattern: durationPattern}
	}
	if values := enums[t]; values != nil {
		s := &jsonschema.Schema{Type: "string"}
		for _, v := range values {
			s.Enum = append(s.Enum, v)
		}
		return s
	}
	return nil
}

// mayLack are fields that Go's omitempty does not mark as optional.
var mayLack = map[string]bool{"readiness": true, "stop": true, "onRollback": true, "hardStop": true, "from": true, "to": true, "kind": true}

// optional takes fields with the omitzero tag out of the required ones.
func optional(s *jsonschema.Schema) {
	var required []string
	for _, name := range s.Required {
		if !mayLack[name] || name == "from" && s.Properties != nil && hasDays(s) || name == "to" && hasDays(s) {
			required = append(required, name)
		}
	}
	s.Required = required
}

// hasDays tells a window, whose from and to are required, from a freeze.
func hasDays(s *jsonschema.Schema) bool {
	_, ok := s.Properties.Get("days")
	return ok
}
