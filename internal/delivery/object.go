package delivery

import (
	"encoding/json"
	"time"
)

// Object is a stored configuration document.
type Object struct {
	Kind      Kind            `json:"kind"`
	Project   string          `json:"project"`
	Name      string          `json:"name"`
	Revision  int64           `json:"revision"` // 1 for the first; each change of Spec adds one
	Spec      json.RawMessage `json:"spec"`     // the typed spec, defaults not filled in
	UpdatedAt time.Time       `json:"updatedAt"`
	UpdatedBy Actor           `json:"updatedBy"`
}

// Kind names a kind of document.
type Kind string

// The kinds of the spine.
const (
	KindApplication Kind = "Application"
	KindEnvironment Kind = "Environment"
	KindTarget      Kind = "Target"
	KindCalendar    Kind = "Calendar"
	KindPolicySet   Kind = "PolicySet"
)

// Kinds lists all kinds in the order in which they are applied.
func Kinds() []Kind {
	return []Kind{KindTarget, KindCalendar, KindPolicySet, KindEnvironment, KindApplication}
}

// APIVersion is the version of the documents.
const APIVersion = "tidegate.dev/v1alpha1"
