package delivery

import "time"

// Deployment takes one plan to one placement.
type Deployment struct {
	ID          ID             `json:"id"`
	Key         PlacementKey   `json:"key"`
	Kind        DeploymentKind `json:"kind"`
	Release     Digest         `json:"release"`
	Version     string         `json:"version"`
	Plan        Digest         `json:"plan,omitempty"` // "" until it was built
	From        *Good          `json:"from,omitempty"` // what was stable when it started: where an abort returns to
	RequestedBy Actor          `json:"requestedBy"`
	Reason      string         `json:"reason,omitempty"` // the requester's
	RequestedAt time.Time      `json:"requestedAt"`
	StartedAt   time.Time      `json:"startedAt,omitzero"`
	FinishedAt  time.Time      `json:"finishedAt,omitzero"`
	Phase       Phase          `json:"phase"`
	PhaseSince  time.Time      `json:"phaseSince"`
	Message     string         `json:"message,omitempty"` // why it is where it is, a sentence
	Harm        bool           `json:"harm,omitempty"`    // an automatic failure was shown: quarantine at the end
	Ending      Phase          `json:"ending,omitempty"`  // while reverting: the phase it will end in
	EndedBy     *Actor         `json:"endedBy,omitempty"` // who aborted
	Verdicts    []Verdict      `json:"verdicts,omitempty"`
	Approvals   []Approval     `json:"approvals,omitempty"`
	Paused      *Hold          `json:"paused,omitempty"`
	Wave        int            `json:"wave"`
	Steps       []StepState    `json:"steps,omitempty"` // of all waves, in the plan's order
	BakeUntil   time.Time      `json:"bakeUntil,omitzero"`
	MaxWeight   int            `json:"maxWeight"` // highest percent that any candidate got
	Sequence    int64          `json:"sequence"`  // of the last effect
}

// DeploymentKind says how a deployment came about.
type DeploymentKind string

// The kinds of deployment.
const (
	KindPromotion DeploymentKind = "promotion" // all gates
	KindRollback  DeploymentKind = "rollback"  // to a good plan within the horizon: skips freeze, soak, order and approval
)

// Phase is where a deployment is. The transitions are in internal/engine.
type Phase string

// The phases. From PhaseSucceeded on they are terminal.
const (
	PhaseWaiting     Phase = "waiting"      // queued: a gate says wait
	PhaseRunning     Phase = "running"      // its waves go on
	PhaseBaking      Phase = "baking"       // 100 %, the former version is kept ready
	PhaseRetiring    Phase = "retiring"     // the former version is stopped
	PhaseReverting   Phase = "reverting"    // traffic goes back, done steps are compensated
	PhaseNeedsPerson Phase = "needs_person" // stopped at a barrier, or nothing to go back to

	PhaseSucceeded  Phase = "succeeded"
	PhaseRolledBack Phase = "rolled_back" // by itself: harm was shown, or it did not get ready
	PhaseAborted    Phase = "aborted"     // by a person
	PhaseFailed     Phase = "failed"      // and there was nothing to go back to
	PhaseDenied     Phase = "denied"      // a gate refused it before it started
	PhaseSuperseded Phase = "superseded"  // a newer promotion replaced it before it started
)

// Terminal reports whether nothing follows p.
func (p Phase) Terminal() bool {
	switch p {
	case PhaseSucceeded, PhaseRolledBack, PhaseAborted, PhaseFailed, PhaseDenied, PhaseSuperseded:
		return true
	}
	return false
}

// StepState is where one step of a deployment is.
type StepState struct {
	Name       string         `json:"name"`
	Phase      StepPhase      `json:"phase"`
	Unchanged  bool           `json:"unchanged,omitempty"` // the stable plan runs the same workload: nothing to do
	Move       int            `json:"move"`                // index into the rollout's moves
	MoveSince  time.Time      `json:"moveSince,omitzero"`
	Weight     int            `json:"weight"`            // the candidate's share that the target confirmed, percent
	Pending    []int64        `json:"pending,omitempty"` // sequences of effects without a result
	Sent       string         `json:"sent,omitempty"`    // what the current move last asked for, so that it asks once
	AckAt      time.Time      `json:"ackAt,omitzero"`    // last result: only a report of that time or later shows what came of it
	Effect     int64          `json:"effect,omitempty"`  // sequence of the task's effect
	Tries      int            `json:"tries,omitempty"`   // failed tries of the current move
	RetryAt    time.Time      `json:"retryAt,omitzero"`
	Resumed    bool           `json:"resumed,omitempty"`   // a person ended the current pause
	Confirmed  *Approval      `json:"confirmed,omitempty"` // of a manual task
	FirstShift time.Time      `json:"firstShift,omitzero"` // first traffic for the candidate: the analysis' clock
	Before     *Running       `json:"before,omitempty"`    // what had the traffic when the step began: where it reverts to
	Analysis   *AnalysisState `json:"analysis,omitempty"`
	Bake       *AnalysisState `json:"bake,omitempty"` // counted since 100 %: only its hard stop acts
	Message    string         `json:"message,omitempty"`
}

// StepPhase is where a step is.
type StepPhase string

// The phases of a step.
const (
	StepPending   StepPhase = "pending"
	StepRunning   StepPhase = "running"
	StepDone      StepPhase = "done"
	StepFailed    StepPhase = "failed"
	StepReverting StepPhase = "reverting"
	StepReverted  StepPhase = "reverted"
)

// Step returns the state of the step of that name, nil if there is none.
func (d *Deployment) Step(name string) *StepState {
	for i := range d.Steps {
		if d.Steps[i].Name == name {
			return &d.Steps[i]
		}
	}
	return nil
}
