package delivery

// Strategy says how a new version takes over from the stable one.
type Strategy struct {
	Kind     StrategyKind   `json:"kind"`
	Steps    []StrategyStep `json:"steps,omitempty"`    // canary: weights; blueGreen: pauses before the switch
	Analysis *Analysis      `json:"analysis,omitempty"` // default for canary; nil elsewhere
	Bake     Duration       `json:"bake,omitempty"`     // time after 100 % in which the former version is kept ready
	Deadline Duration       `json:"deadline,omitempty"` // until a candidate must be ready; default 10m
}

// StrategyKind names a strategy.
type StrategyKind string

// The strategies of the spine. A/B and mirroring join them with their routers.
const (
	StrategyRolling   StrategyKind = "rolling"   // instance by instance
	StrategyRecreate  StrategyKind = "recreate"  // stop the old, then start the new; requests fail in between
	StrategyBlueGreen StrategyKind = "blueGreen" // start all of the new, then switch at once
	StrategyCanary    StrategyKind = "canary"    // a rising share of the traffic, judged
)

// StrategyStep is one step of a canary or of the time before a blue/green
// switch. Exactly one of Weight, Pause, UntilPromoted and Approval is set.
type StrategyStep struct {
	Weight        int           `json:"weight,omitempty"`        // percent of the traffic for the candidate, 1 to 100
	For           Duration      `json:"for,omitempty"`           // with Weight: how long to look before going on; shown safe ends it early
	Pause         Duration      `json:"pause,omitempty"`         // wait this long
	UntilPromoted bool          `json:"untilPromoted,omitempty"` // wait for a person's resume
	Approval      *ApprovalRule `json:"approval,omitempty"`      // wait for approvals of this deployment
}

// Analysis says how a candidate is judged against the stable version. The
// meaning of the numbers is in internal/analysis.
type Analysis struct {
	Alpha       float64     `json:"alpha,omitempty"`       // probability of a false abort of the whole rollout; default 0.05
	Tolerance   float64     `json:"tolerance,omitempty"`   // ratio of error rates that is still accepted; default 1.2
	Floor       float64     `json:"floor,omitempty"`       // error rate below which a candidate is safe whatever the stable does; default 0.001
	Margin      float64     `json:"margin,omitempty"`      // ratio that must be excluded to call it safe; default 2
	Warmup      Duration    `json:"warmup,omitempty"`      // after the first traffic, not counted; default 0
	Horizon     Duration    `json:"horizon,omitempty"`     // when to stop looking; default 1h
	OnUndecided OnUndecided `json:"onUndecided,omitempty"` // default pause in production, promote elsewhere
	HardStop    HardStop    `json:"hardStop,omitzero"`
}

// OnUndecided is what happens when the horizon comes without a verdict.
type OnUndecided string

// The choices.
const (
	OnUndecidedPromote  OnUndecided = "promote"
	OnUndecidedPause    OnUndecided = "pause"
	OnUndecidedRollback OnUndecided = "rollback" // without quarantine: nothing was shown
)

// HardStop is the coarse rule beside the statistics: abort at once when fewer
// than Success of at least Requests requests succeed.
type HardStop struct {
	Success  float64 `json:"success,omitempty"`  // share, default 0.5
	Requests int64   `json:"requests,omitempty"` // default 20
}

// Task is a step that is not a rollout. Exactly one of HTTP, Command and
// Manual is set.
type Task struct {
	Name       string       `json:"name"`
	HTTP       *HTTPTask    `json:"http,omitempty"`
	Command    *CommandTask `json:"command,omitempty"`
	Manual     *Manual      `json:"manual,omitempty"`
	Timeout    Duration     `json:"timeout,omitempty"` // default 5m; manual: none
	OnRollback OnRollback   `json:"onRollback,omitzero"`
}

// HTTPTask is one call; it succeeds on a status of 200 to 299.
type HTTPTask struct {
	Method string            `json:"method,omitempty"` // default POST
	URL    string            `json:"url"`
	Header map[string]string `json:"header,omitempty"`
	Body   string            `json:"body,omitempty"`
}

// CommandTask runs a program of a service's artifact on each target, with the
// service's environment and secrets. No shell is involved.
type CommandTask struct {
	Service string   `json:"service"`
	Args    []string `json:"args"` // arguments of the artifact's program
}

// Manual waits until a person confirms that it was done.
type Manual struct {
	Instructions string `json:"instructions"`
	Group        string `json:"group,omitempty"` // who may confirm; default: anybody who may promote
}

// OnRollback says what a rollback does about a step that is done.
type OnRollback struct {
	Barrier bool  `json:"barrier,omitempty"` // nothing rolls back by itself past this step
	Undo    *Task `json:"undo,omitempty"`    // run this; neither set: nothing to do
}
