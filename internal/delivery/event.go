package delivery

import (
	"encoding/json"
	"time"
)

// Event is what happened, by whom, to what: the payload of an audit entry and
// of the event stream. It commits in the same transaction as the change.
type Event struct {
	ID          ID              `json:"id"`
	Type        EventType       `json:"type"`
	Project     string          `json:"project"`
	Application string          `json:"application,omitempty"`
	Environment string          `json:"environment,omitempty"`
	Deployment  ID              `json:"deployment,omitempty"`
	Release     Digest          `json:"release,omitempty"`
	Version     string          `json:"version,omitempty"`
	Actor       Actor           `json:"actor"`
	At          time.Time       `json:"at"`
	Message     string          `json:"message"`         // a sentence
	Cause       ID              `json:"cause,omitempty"` // the command or event that led to it
	Data        json.RawMessage `json:"data,omitempty"`  // by type; at most 16 KiB
}

// EventType names what happened, as "noun.verb".
type EventType string

// The events that the engine emits.
const (
	EventDeploymentRequested  EventType = "deployment.requested"
	EventDeploymentPlanned    EventType = "deployment.planned" // the plan was built, or built anew: approvals of another plan are void
	EventDeploymentWaiting    EventType = "deployment.waiting" // the set of unmet gates changed
	EventDeploymentStarted    EventType = "deployment.started"
	EventDeploymentPaused     EventType = "deployment.paused"
	EventDeploymentResumed    EventType = "deployment.resumed"
	EventDeploymentBaking     EventType = "deployment.baking"
	EventDeploymentReverting  EventType = "deployment.reverting"
	EventDeploymentStuck      EventType = "deployment.needs_person"
	EventDeploymentSucceeded  EventType = "deployment.succeeded"
	EventDeploymentRolledBack EventType = "deployment.rolled_back"
	EventDeploymentAborted    EventType = "deployment.aborted"
	EventDeploymentFailed     EventType = "deployment.failed"
	EventDeploymentDenied     EventType = "deployment.denied"
	EventDeploymentSuperseded EventType = "deployment.superseded"
	EventStepStarted          EventType = "step.started"
	EventStepWeight           EventType = "step.weight"  // the router confirmed a share
	EventStepVerdict          EventType = "step.verdict" // the judge decided
	EventStepDone             EventType = "step.done"
	EventStepReverted         EventType = "step.reverted"
	EventStepFailed           EventType = "step.failed"
	EventApprovalGiven        EventType = "approval.given"
	EventApprovalRejected     EventType = "approval.rejected"
	EventTaskConfirmed        EventType = "task.confirmed"
	EventPinSet               EventType = "pin.set"
	EventPinLifted            EventType = "pin.lifted"
	EventHoldSet              EventType = "hold.set"
	EventHoldLifted           EventType = "hold.lifted"
	EventQuarantineSet        EventType = "quarantine.set"
	EventQuarantineLifted     EventType = "quarantine.lifted"
	EventCommandRefused       EventType = "command.refused" // it had become pointless when its turn came
)

// The events that control and auth record.
const (
	EventObjectApplied       EventType = "object.applied"
	EventObjectDeleted       EventType = "object.deleted"
	EventReleaseCreated      EventType = "release.created"
	EventPromotionRefused    EventType = "promotion.refused"
	EventPolicyDecided       EventType = "policy.decided"
	EventTokenCreated        EventType = "token.created"
	EventTokenRevoked        EventType = "token.revoked"
	EventHostEnrolled        EventType = "host.enrolled"
	EventServerStarted       EventType = "server.started"
	EventAuthorisationDenied EventType = "authorisation.denied"
)
