package engine

import (
	"fmt"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// task moves a task on until it is done or failed.
func (m *machine) task(d *delivery.Deployment, plan *delivery.Plan, step delivery.Step, s *delivery.StepState) {
	t := step.Task
	if d.Paused != nil && s.Sent == "" && s.Confirmed == nil {
		s.Message = "paused: " + d.Paused.Reason
		return
	}
	switch {
	case t.Manual != nil:
		m.manual(d, t, s)
	default:
		done, failure := m.work(d, plan, step, s, "do")
		switch {
		case failure != "":
			m.stepFailed(d, s, fmt.Sprintf("%s failed: %s", s.Name, failure))
		case done:
			m.stepDone(d, s, s.Message)
		}
	}
}

func (m *machine) manual(d *delivery.Deployment, t *delivery.Task, s *delivery.StepState) {
	if c := s.Confirmed; c != nil {
		if t.Manual.Group == "" || c.Actor.In(t.Manual.Group) || c.Actor.In(delivery.GroupAdministrators) {
			m.stepDone(d, s, fmt.Sprintf("confirmed by %s: %s", c.Actor.Subject, c.Comment))
			return
		}
		s.Confirmed = nil
	}
	s.Message = "waits for a person to confirm: " + t.Manual.Instructions
	if t.Timeout == 0 {
		return
	}
	due := s.MoveSince.Add(t.Timeout.Std())
	if !m.o.Now.Before(due) {
		m.stepFailed(d, s, fmt.Sprintf("%s was not confirmed within %s.", s.Name, t.Timeout))
		return
	}
	m.wake(due)
}

// work asks for an HTTP call or a command and reports whether it is done, or why it failed.
func (m *machine) work(d *delivery.Deployment, plan *delivery.Plan, step delivery.Step, s *delivery.StepState, what string) (done bool, failure string) {
	t := step.Task
	due := s.MoveSince.Add(t.Timeout.Std())
	switch {
	case t.HTTP != nil:
		m.ask(d, s, what, delivery.Effect{Call: &delivery.CallEffect{Task: t.Name, HTTP: *t.HTTP, Timeout: t.Timeout}})
		if s.Sent == what && len(s.Pending) == 0 {
			return true, ""
		}
		s.Message = orElse(s.Message, "calling "+t.HTTP.URL)
	case t.Command != nil:
		r := plan.Rollout(t.Command.Service, step.Target)
		if r == nil {
			return false, fmt.Sprintf("service %s does not run on target %s.", t.Command.Service, step.Target)
		}
		workload := r.Workload
		workload.Args = t.Command.Args
		m.ask(d, s, what, delivery.Effect{Target: step.Target, Run: &delivery.RunEffect{Task: t.Name, Release: d.Release, Workload: workload, Timeout: t.Timeout}})
		if report := m.report(step.Target, s); report != nil && s.Sent == what {
			for _, status := range report.Tasks {
				if status.Key.Deployment == d.ID && status.Key.Sequence == s.Effect && status.Done {
					s.Message = status.Message
					if status.OK {
						return true, ""
					}
					return false, status.Message
				}
			}
		}
		m.lookAgain(s, "runs on "+step.Target)
	}
	if t.Timeout > 0 && !m.o.Now.Before(due) {
		return false, fmt.Sprintf("it did not end within %s.", t.Timeout)
	}
	if t.Timeout > 0 {
		m.wake(due)
	}
	return false, ""
}
