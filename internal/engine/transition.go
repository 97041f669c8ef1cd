package engine

import (
	"fmt"
	"strings"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Transition is one way from a phase to another.
type Transition struct {
	From, To delivery.Phase
	When     string
}

// Transitions is every change of phase that there is. A change that is not
// in it is a defect: the engine panics, and the property tests would find it.
func Transitions() []Transition { return transitions }

var transitions = []Transition{
	{"", delivery.PhaseWaiting, "promotion or rollback requested"},
	{delivery.PhaseWaiting, delivery.PhaseRunning, "every gate passes"},
	{delivery.PhaseWaiting, delivery.PhaseDenied, "a gate denies"},
	{delivery.PhaseWaiting, delivery.PhaseSuperseded, "a newer promotion"},
	{delivery.PhaseWaiting, delivery.PhaseAborted, "abort or rejection"},
	{delivery.PhaseRunning, delivery.PhaseBaking, "all waves done, former version kept"},
	{delivery.PhaseRunning, delivery.PhaseRetiring, "all waves done, no bake"},
	{delivery.PhaseRunning, delivery.PhaseReverting, "harm, failure, abort"},
	{delivery.PhaseRunning, delivery.PhaseNeedsPerson, "harm or failure after a barrier"},
	{delivery.PhaseBaking, delivery.PhaseRetiring, "bake over"},
	{delivery.PhaseBaking, delivery.PhaseReverting, "harm, abort"},
	{delivery.PhaseBaking, delivery.PhaseNeedsPerson, "harm after a barrier"},
	{delivery.PhaseRetiring, delivery.PhaseSucceeded, "former version stopped"},
	{delivery.PhaseReverting, delivery.PhaseRolledBack, "reverted after harm or failure"},
	{delivery.PhaseReverting, delivery.PhaseAborted, "reverted after an abort"},
	{delivery.PhaseReverting, delivery.PhaseFailed, "nothing to go back to"},
	{delivery.PhaseReverting, delivery.PhaseNeedsPerson, "reverting failed"},
	{delivery.PhaseNeedsPerson, delivery.PhaseRunning, "retry"},
	{delivery.PhaseNeedsPerson, delivery.PhaseReverting, "abort, or retry of a failed revert"},
}

// allowed reports whether the table has the change.
func allowed(from, to delivery.Phase) bool {
	for _, t := range transitions {
		if t.From == from && t.To == to {
			return true
		}
	}
	return false
}

// Diagram returns the table as a Mermaid state diagram.
func Diagram() string {
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n")
	terminal := map[delivery.Phase]bool{}
	var order []delivery.Phase
	for _, t := range transitions {
		from := string(t.From)
		if from == "" {
			from = "[*]"
		}
		fmt.Fprintf(&b, "    %s --> %s: %s\n", from, t.To, t.When)
		if t.To.Terminal() && !terminal[t.To] {
			terminal[t.To] = true
			order = append(order, t.To)
		}
	}
	for _, p := range order {
		fmt.Fprintf(&b, "    %s --> [*]\n", p)
	}
	return b.String()
}
