package delivery

import (
	"fmt"
	"time"
)

// EffectKey is the identity of an effect: fixed when its intent is committed,
// and given to the target so that a repeat changes nothing.
type EffectKey struct {
	Deployment ID    `json:"deployment"`
	Sequence   int64 `json:"sequence"`
}

// String returns "deployment/sequence".
func (k EffectKey) String() string { return fmt.Sprintf("%s/%d", k.Deployment, k.Sequence) }

// Effect is one bounded call (at most 30 s) that starts or changes something.
// Waiting is observation, never a blocked call. Exactly one of Start, Shift,
// Stop, Run and Call is set. A target answers a key it has done already
// without doing it again, and refuses a token lower than it has seen for the
// placement.
type Effect struct {
	Key       EffectKey    `json:"key"`
	Placement PlacementKey `json:"placement"`
	Target    string       `json:"target"` // "": the server does it
	Step      string       `json:"step"`
	Token     int64        `json:"token"` // fencing token of the placement's lease; filled in by the shell when it is handed out
	Start     *StartEffect `json:"start,omitempty"`
	Shift     *ShiftEffect `json:"shift,omitempty"`
	Stop      *StopEffect  `json:"stop,omitempty"`
	Run       *RunEffect   `json:"run,omitempty"`
	Call      *CallEffect  `json:"call,omitempty"`
}

// Kind returns "start", "shift", "stop", "run" or "call".
func (e Effect) Kind() string {
	switch {
	case e.Start != nil:
		return "start"
	case e.Shift != nil:
		return "shift"
	case e.Stop != nil:
		return "stop"
	case e.Run != nil:
		return "run"
	case e.Call != nil:
		return "call"
	}
	return ""
}

// StartEffect makes Instances of a workload run. It returns when they were
// asked for; readiness is observed.
type StartEffect struct {
	Service   string   `json:"service"`
	Listen    string   `json:"listen,omitempty"`
	Release   Digest   `json:"release"` // for labels
	Version   string   `json:"version"`
	Digest    Digest   `json:"digest"` // of Workload
	Workload  Workload `json:"workload"`
	Instances int      `json:"instances"` // that shall run in all
}

// ShiftEffect sets the router's shares of a service. Weights add up to 100;
// the router changes all at once. A workload with weight 0 gets no new request.
type ShiftEffect struct {
	Service string   `json:"service"`
	Weights []Weight `json:"weights"`
}

// Weight is one workload's share of a service's requests, in percent.
type Weight struct {
	Workload Digest `json:"workload"`
	Percent  int    `json:"percent"`
}

// StopEffect drains and stops instances of a workload until Keep are left.
type StopEffect struct {
	Service  string `json:"service"`
	Workload Digest `json:"workload"`
	Keep     int    `json:"keep"`
}

// RunEffect starts a command task on a target; its end is observed as a
// [TaskStatus] with the effect's key.
type RunEffect struct {
	Task     string   `json:"task"`
	Release  Digest   `json:"release"`
	Workload Workload `json:"workload"` // with Args replaced by the task's
	Timeout  Duration `json:"timeout"`
}

// CallEffect is an HTTP task, done by the server within 30 s.
type CallEffect struct {
	Task    string   `json:"task"`
	HTTP    HTTPTask `json:"http"`
	Timeout Duration `json:"timeout"`
}

// Result is what came of an effect.
type Result struct {
	Key     EffectKey `json:"key"`
	OK      bool      `json:"ok"`
	Retry   bool      `json:"retry,omitempty"`   // not OK, but trying again may help
	Already bool      `json:"already,omitempty"` // it had been done before: a repeat, not a second effect
	Message string    `json:"message,omitempty"`
	At      time.Time `json:"at"`
}
