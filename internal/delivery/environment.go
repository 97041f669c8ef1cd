package delivery

// Environment is where releases run: the spec of an Environment document. Each
// change of it is a new revision, and a plan names the revision it was made from.
type Environment struct {
	Description  string            `json:"description,omitempty"`
	Owner        string            `json:"owner,omitempty"`        // a group
	Class        Class             `json:"class,omitempty"`        // default test
	Variables    map[string]string `json:"variables,omitempty"`    // fill ${NAME} in services and tasks
	Capabilities []string          `json:"capabilities,omitempty"` // facts for policies
	Targets      []string          `json:"targets,omitempty"`      // names of Target documents; default ["local"]
	Strategy     *Strategy         `json:"strategy,omitempty"`
	Calendar     string            `json:"calendar,omitempty"`
}

// Class says how much is at stake in an environment.
type Class string

// The classes.
const (
	ClassDev        Class = "dev"
	ClassTest       Class = "test"
	ClassProduction Class = "production"
)

// Target is one endpoint of an environment: the spec of a Target document.
type Target struct {
	Kind TargetKind `json:"kind"`           // host is the default
	Host string     `json:"host,omitempty"` // name under which the host enrolled; default: the target's name
}

// TargetKind names the adapter of a target.
type TargetKind string

// The kinds of target. Fake is for scenarios and simulation.
const (
	TargetHost TargetKind = "host"
	TargetFake TargetKind = "fake"
)
