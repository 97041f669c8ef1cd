// Package engine decides what a placement does next. [Step] is a pure
// function: it reads no clock, performs no I/O and starts no goroutine, so
// the same state and the same observation always give the same result. That
// is what lets why, when, explain and simulate be this function on other
// facts.
//
// Step is level-triggered: every turn it compares what is wanted with what
// the targets report, asks once for what is missing, and waits until a report
// shows it. It is therefore safe to run again after any crash.
//
// It must not know how anything is done: no OPA, no client, no store.
//
// Start reading at [Step]; the phases of a deployment and what leads from one
// to the next are the table in transition.go, from which the diagram in
// docs/reference/deployment.md is generated.
package engine
