package delivery

// Application is what is delivered: the spec of an Application document. One
// such document is enough to start; everything else has a built-in default.
type Application struct {
	Description string     `json:"description,omitempty"`
	Services    []Service  `json:"services"`            // at least one
	Path        []PathStep `json:"path,omitempty"`      // default: dev → staging → production
	Before      []Task     `json:"before,omitempty"`    // tasks of the first wave, before any service
	After       []Task     `json:"after,omitempty"`     // tasks of the last wave
	Ordered     bool       `json:"ordered,omitempty"`   // one wave a service in the order written, instead of one wave for all
	OnFailure   OnFailure  `json:"onFailure,omitempty"` // what harm in one rollout takes back; default all
}

// OnFailure says what harm in one rollout takes back.
type OnFailure string

// The choices.
const (
	OnFailureAll  OnFailure = "all"  // every wave of the deployment
	OnFailureWave OnFailure = "wave" // the wave it happened in; earlier waves stay
)

// Service is one long-running program of an application. Strings in Args, Env
// and Directory may use ${PORT} and ${NAME} of the environment's variables.
type Service struct {
	Name      string            `json:"name"`
	Args      []string          `json:"args,omitempty"`      // arguments of the artifact's program
	Command   string            `json:"command,omitempty"`   // path inside a tar artifact; not for a plain executable
	Env       map[string]string `json:"env,omitempty"`       // plain values; never secrets
	Secrets   map[string]Secret `json:"secrets,omitempty"`   // environment variable → reference, resolved on the target only
	Readiness Probe             `json:"readiness,omitzero"`  // when an instance may get traffic; default: TCP connect
	Stop      Stop              `json:"stop,omitzero"`       // how an instance ends
	Instances int               `json:"instances,omitempty"` // per target; default 1
	Listen    string            `json:"listen,omitempty"`    // address of the proxy for it, host:port, may use variables; default: a port the host allots
}

// Secret is a reference to a secret; the value never reaches Tidegate's server.
type Secret struct {
	File string `json:"file,omitempty"` // absolute path on the target
	Env  string `json:"env,omitempty"`  // variable of the host's own environment
}

// Probe says how readiness is seen. At most one of HTTP and TCP is set.
type Probe struct {
	HTTP     string   `json:"http,omitempty"`     // path; ready on a status of 200 to 399
	TCP      bool     `json:"tcp,omitempty"`      // ready when the port accepts a connection
	Interval Duration `json:"interval,omitempty"` // between tries; default 200ms
	Timeout  Duration `json:"timeout,omitempty"`  // until a start counts as failed; default 30s
}

// Stop says how an instance ends: no new requests, up to Drain for those under
// way, SIGTERM, and after Grace SIGKILL.
type Stop struct {
	Drain Duration `json:"drain,omitempty"` // default 5s
	Grace Duration `json:"grace,omitempty"` // default 10s
}

// PathStep is one environment of an application's path and the edge to it.
type PathStep struct {
	Environment string         `json:"environment"`
	After       []string       `json:"after,omitempty"`     // environments that must have it first; default: the step before
	Promotion   Promotion      `json:"promotion,omitempty"` // automatic or manual; default automatic, manual into production
	Soak        Duration       `json:"soak,omitempty"`      // how long it must have run in each of After
	Approvals   []ApprovalRule `json:"approvals,omitempty"`
	Strategy    *Strategy      `json:"strategy,omitempty"` // default: the environment's, else canary in production and rolling elsewhere
	Calendar    string         `json:"calendar,omitempty"` // windows and freezes; default: the environment's
}

// Promotion is how a release comes over an edge of the path.
type Promotion string

// The promotions.
const (
	PromotionAutomatic Promotion = "automatic"
	PromotionManual    Promotion = "manual"
)

// Step returns the path's step for an environment.
func (a Application) Step(environment string) (PathStep, bool) {
	for _, s := range a.Path {
		if s.Environment == environment {
			return s, true
		}
	}
	return PathStep{}, false
}

// Downstream returns the environments whose step names environment in After,
// in the path's order.
func (a Application) Downstream(environment string) []PathStep {
	var steps []PathStep
	for _, s := range a.Path {
		for _, after := range s.After {
			if after == environment {
				steps = append(steps, s)
			}
		}
	}
	return steps
}
