// Package tidegate is the root of Tidegate, a policy-driven continuous
// deployment manager: one binary that takes an immutable release through
// environments under policy, approvals, calendars and progressive delivery,
// and rolls it back by itself.
//
//	cmd/tidegate        the program
//	internal/delivery   the words
//	internal/engine     what a placement does next: Step, a pure function
//	internal/gate       why a deployment may or may not start
//	internal/analysis   whether a candidate is worse than the stable version
//	internal/control    the only front door
//
// ARCHITECTURE.md is the map; docs/walkthrough.md follows one release.
package tidegate
