package plan

import "github.com/tidegate-cd/tidegate/internal/delivery"

// moves compiles a strategy into the moves of one rollout. None retires the
// last instance of the former version, except recreate: that happens when the
// deployment is good, so that there is something to go back to.
func moves(s delivery.Strategy, instances int) []delivery.Move {
	start := delivery.Move{Kind: delivery.MoveStart, Instances: instances}
	full := delivery.Move{Kind: delivery.MoveShift, Weight: 100}
	switch s.Kind {
	case delivery.StrategyRecreate:
		return []delivery.Move{{Kind: delivery.MoveRetire}, start, full}
	case delivery.StrategyBlueGreen:
		m := []delivery.Move{start}
		for _, step := range s.Steps {
			m = append(m, waits(step)...)
		}
		return append(m, full)
	case delivery.StrategyCanary:
		return canary(s, start)
	}
	return rolling(instances)
}

func rolling(n int) []delivery.Move {
	var m []delivery.Move
	for i := 1; i <= n; i++ {
		m = append(m, delivery.Move{Kind: delivery.MoveStart, Instances: i}, delivery.Move{Kind: delivery.MoveShift, Weight: 100 * i / n})
		if i < n {
			m = append(m, delivery.Move{Kind: delivery.MoveRetire, Instances: n - i})
		}
	}
	return m
}

// canary looks after every weight below 100; the last look must show the
// candidate safe, or come to the horizon.
func canary(s delivery.Strategy, start delivery.Move) []delivery.Move {
	m := []delivery.Move{start}
	last := -1
	for _, step := range s.Steps {
		if step.Weight > 0 {
			m = append(m, delivery.Move{Kind: delivery.MoveShift, Weight: step.Weight})
			if step.Weight == 100 {
				return finalLook(m, last)
			}
			look := delivery.Move{Kind: delivery.MovePause, For: step.For}
			if s.Analysis != nil {
				look.Kind = delivery.MoveAnalyse
				last = len(m)
			}
			if s.Analysis != nil || step.For > 0 {
				m = append(m, look)
			}
			continue
		}
		m = append(m, waits(step)...)
	}
	m = append(m, delivery.Move{Kind: delivery.MoveShift, Weight: 100})
	return finalLook(m, last)
}

func finalLook(m []delivery.Move, last int) []delivery.Move {
	if last >= 0 {
		m[last].Final = true
	}
	return m
}

// waits returns the pauses and approvals of a step.
func waits(s delivery.StrategyStep) []delivery.Move {
	switch {
	case s.Approval != nil:
		return []delivery.Move{{Kind: delivery.MoveApprove, Approval: s.Approval}}
	case s.UntilPromoted:
		return []delivery.Move{{Kind: delivery.MovePause}}
	case s.Pause > 0:
		return []delivery.Move{{Kind: delivery.MovePause, For: s.Pause}}
	}
	return nil
}
