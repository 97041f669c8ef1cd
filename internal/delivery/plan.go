package delivery

// Plan is exactly what a deployment will do: waves of steps with a snapshot of
// all they need. What is approved is what runs. It is made by plan.Build and
// never changes; its digest is its name.
type Plan struct {
	Digest              Digest       `json:"digest"`
	Format              int          `json:"format"`
	Key                 PlacementKey `json:"key"`
	Release             Digest       `json:"release"`
	Version             string       `json:"version"` // the release's version
	EnvironmentRevision int64        `json:"environmentRevision"`
	Class               Class        `json:"class"`
	Waves               []Wave       `json:"waves"`
	Bake                Duration     `json:"bake,omitempty"`
	OnFailure           OnFailure    `json:"onFailure"`
}

// PlanFormat is the version of the stored form of [Plan].
const PlanFormat = 1

// Wave is a set of steps that run together; the next begins when all are done.
type Wave struct {
	Steps []Step `json:"steps"`
}

// Step is one rollout or one task. Exactly one of Rollout and Task is set.
type Step struct {
	Name    string   `json:"name"` // unique in the plan: "web@local", "task:migrate", "task:migrate@local"
	Rollout *Rollout `json:"rollout,omitempty"`
	Task    *Task    `json:"task,omitempty"`
	Target  string   `json:"target,omitempty"` // of a command task; "" is done by the server
}

// OnRollback returns what a rollback does about the step.
func (s Step) OnRollback() OnRollback {
	if s.Task != nil {
		return s.Task.OnRollback
	}
	return OnRollback{}
}

// Rollout is one service on one target under a strategy, as a fixed list of moves.
type Rollout struct {
	Service   string       `json:"service"`
	Target    string       `json:"target"`
	Listen    string       `json:"listen,omitempty"`
	Instances int          `json:"instances"`
	Workload  Workload     `json:"workload"`
	Digest    Digest       `json:"digest"` // of Workload
	Strategy  StrategyKind `json:"strategy"`
	Moves     []Move       `json:"moves"`
	Analysis  *Analysis    `json:"analysis,omitempty"` // with all defaults filled in
	Deadline  Duration     `json:"deadline"`           // until started instances must be ready
}

// Move is one move of a rollout.
type Move struct {
	Kind      MoveKind      `json:"kind"`
	Instances int           `json:"instances,omitempty"` // start: how many of the candidate shall run; retire: how many of the stable stay
	Weight    int           `json:"weight,omitempty"`    // shift: percent for the candidate
	For       Duration      `json:"for,omitempty"`       // pause, analyse
	Final     bool          `json:"final,omitempty"`     // analyse: go on only when shown safe, or at the horizon as OnUndecided says
	Approval  *ApprovalRule `json:"approval,omitempty"`
}

// MoveKind names a move.
type MoveKind string

// The moves. Each ends when what it says is true on the target, not when the
// call returned.
const (
	MoveStart   MoveKind = "start"   // Instances of the candidate are ready
	MoveShift   MoveKind = "shift"   // the router gives the candidate Weight percent
	MoveAnalyse MoveKind = "analyse" // the judge has looked for For, or called it safe
	MovePause   MoveKind = "pause"   // For has passed; zero: a person resumed
	MoveApprove MoveKind = "approve" // Approval holds for this step
	MoveRetire  MoveKind = "retire"  // only Instances of the stable are left
)

// ComputeDigest returns the name of the plan.
func (p Plan) ComputeDigest() Digest {
	p.Digest = ""
	return digestOf("tidegate.plan.v1", p)
}

// Step returns the step of that name.
func (p Plan) Step(name string) (Step, bool) {
	for _, w := range p.Waves {
		for _, s := range w.Steps {
			if s.Name == name {
				return s, true
			}
		}
	}
	return Step{}, false
}

// Rollout returns the rollout of a service on a target, nil if it has none.
func (p Plan) Rollout(service, target string) *Rollout {
	for _, w := range p.Waves {
		for _, s := range w.Steps {
			if r := s.Rollout; r != nil && r.Service == service && r.Target == target {
				return r
			}
		}
	}
	return nil
}
