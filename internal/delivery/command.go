package delivery

import "time"

// Command is what somebody asks of a placement. Commands are rows that
// engine.Step consumes as observations: nothing else changes a placement.
type Command struct {
	ID         ID           `json:"id"`
	Kind       CommandKind  `json:"kind"`
	Key        PlacementKey `json:"key"`
	Deployment ID           `json:"deployment,omitempty"` // promote, rollback: the id of the new one; else the one meant, "" for the active or first queued
	Release    Digest       `json:"release,omitempty"`    // promote, pin, quarantine, lift
	Version    string       `json:"version,omitempty"`
	Plan       Digest       `json:"plan,omitempty"` // approve, reject: what was seen; rollback: where to; quarantine
	Step       string       `json:"step,omitempty"` // confirm, approve within a rollout, resume
	Immediate  bool         `json:"immediate,omitempty"`
	Until      time.Time    `json:"until,omitzero"` // hold
	Reason     string       `json:"reason,omitempty"`
	Actor      Actor        `json:"actor"`
	At         time.Time    `json:"at"`
}

// CommandKind names a command.
type CommandKind string

// The commands.
const (
	CommandPromote    CommandKind = "promote"  // queue a promotion of Release
	CommandRollback   CommandKind = "rollback" // with an active deployment: abort it; else go back to Plan, or the last good one
	CommandAbort      CommandKind = "abort"    // end the active deployment and return to the stable version, or cancel a queued one
	CommandPause      CommandKind = "pause"    // no further move
	CommandResume     CommandKind = "resume"   // end a pause
	CommandComplete   CommandKind = "complete" // promote fully now, without further looks
	CommandRetry      CommandKind = "retry"    // from needs_person: try the failed step again
	CommandApprove    CommandKind = "approve"
	CommandReject     CommandKind = "reject"
	CommandConfirm    CommandKind = "confirm" // a manual task is done
	CommandPin        CommandKind = "pin"
	CommandUnpin      CommandKind = "unpin"
	CommandHold       CommandKind = "hold"
	CommandUnhold     CommandKind = "unhold"
	CommandQuarantine CommandKind = "quarantine" // the whole release, here
	CommandLift       CommandKind = "lift"       // end the quarantine of a release, here
)
