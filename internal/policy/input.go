package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/invopop/jsonschema"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// InputSchemaName is the version of [Input] that policies see as input.schema.
const InputSchemaName = "tidegate.policy/v1"

// Input is what policies see as input, at every moment. Values of secrets are
// never in it; a plan has references only.
type Input struct {
	Schema      string           `json:"schema"`
	Moment      delivery.Moment  `json:"moment"`
	Project     string           `json:"project"`
	Application string           `json:"application"`
	Environment EnvironmentFacts `json:"environment"`
	Release     delivery.Release `json:"release"`
	Plan        *delivery.Plan   `json:"plan,omitempty"` // from the moment plan_rendered on
	Upstream    []UpstreamFacts  `json:"upstream,omitempty"`
	Actor       delivery.Actor   `json:"actor"` // who asked for the promotion
	Reason      string           `json:"reason"`
	Now         string           `json:"now"` // RFC 3339, UTC
}

// EnvironmentFacts is the environment that the release would go to.
type EnvironmentFacts struct {
	Name         string            `json:"name"`
	Class        delivery.Class    `json:"class"`
	Owner        string            `json:"owner,omitempty"`
	Capabilities []string          `json:"capabilities,omitempty"`
	Variables    map[string]string `json:"variables,omitempty"`
	Revision     int64             `json:"revision"`
}

// UpstreamFacts is an environment before this one, and since when the release has been good there.
type UpstreamFacts struct {
	Environment string    `json:"environment"`
	Succeeded   bool      `json:"succeeded"`
	Since       time.Time `json:"since,omitzero"`
}

// Key returns the placement that the input is about.
func (in Input) Key() delivery.PlacementKey {
	return delivery.PlacementKey{Project: in.Project, Application: in.Application, Environment: in.Environment.Name}
}

// inputSchema is the JSON Schema of [Input] for OPA's compiler, with which a
// wrong path in a policy is an error when it is loaded and not a rule that
// never fires.
func inputSchema() any {
	r := jsonschema.Reflector{DoNotReference: true, Anonymous: true, ExpandedStruct: true, AllowAdditionalProperties: false}
	// A task may undo another task: written out, its schema would have no end.
	r.Mapper = func(t reflect.Type) *jsonschema.Schema {
		if t == reflect.TypeFor[delivery.Task]() {
			return &jsonschema.Schema{Type: "object"}
		}
		return nil
	}
	raw, err := json.Marshal(r.Reflect(&Input{}))
	if err != nil {
		panic(fmt.Sprintf("policy: the input's schema is not JSON: %v", err)) // made from our own type
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		panic(fmt.Sprintf("policy: the input's schema can't be read: %v", err))
	}
	return v
}

// Schema returns the JSON Schema of a policy's input.
func Schema() ([]byte, error) { return json.MarshalIndent(inputSchema(), "", "  ") }

func bytesReader(b []byte) io.Reader { return bytes.NewReader(b) }

// strict decodes a value that a policy gave; a field that is not known is an error.
func strict(item any, into any) error {
	raw, err := json.Marshal(item)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("it says %s, which is not understood: %w", raw, err)
	}
	return nil
}
