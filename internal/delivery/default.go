package delivery

import (
	"slices"
	"time"
)

// The built-in environments, in the order of the built-in path.
const (
	EnvironmentDev        = "dev"
	EnvironmentStaging    = "staging"
	EnvironmentProduction = "production"
)

// TargetLocal is the target of an environment that names none.
const TargetLocal = "local"

// Default spans that more than one place speaks of.
const (
	probeInterval    = Duration(200 * time.Millisecond)
	probeTimeout     = Duration(30 * time.Second)
	stopDrain        = Duration(5 * time.Second)
	stopGrace        = Duration(10 * time.Second)
	taskTimeout      = Duration(5 * time.Minute)
	approvalValid    = Duration(7 * 24 * time.Hour)
	strategyDeadline = Duration(10 * time.Minute)
	canaryLook       = Duration(time.Minute)
	productionBake   = Duration(5 * time.Minute)
)

// BuiltinEnvironment returns the environment that exists without a document:
// dev, staging and production, each on the target "local".
func BuiltinEnvironment(name string) (Environment, bool) {
	class, ok := builtinClass(name)
	if !ok {
		return Environment{}, false
	}
	return Environment{Class: class, Targets: []string{TargetLocal}}, true
}

func builtinClass(name string) (Class, bool) {
	switch name {
	case EnvironmentDev:
		return ClassDev, true
	case EnvironmentStaging:
		return ClassTest, true
	case EnvironmentProduction:
		return ClassProduction, true
	}
	return "", false
}

// WithDefaults returns the environment with its defaults filled in. An
// environment of a built-in name keeps that one's class unless it says
// another, so that a document for "production" never lowers it by silence.
func (e Environment) WithDefaults(name string) Environment {
	if e.Class == "" {
		e.Class = ClassTest
		if class, ok := builtinClass(name); ok {
			e.Class = class
		}
	}
	if len(e.Targets) == 0 {
		e.Targets = []string{TargetLocal}
	}
	return e
}

// WithDefaults returns the target with its defaults filled in. The zero Target
// with defaults is also what an undeclared target name stands for.
func (t Target) WithDefaults(name string) Target {
	if t.Kind == "" {
		t.Kind = TargetHost
	}
	if t.Kind == TargetHost && t.Host == "" {
		t.Host = name
	}
	return t
}

// WithDefaults returns the application with its defaults filled in. Classes of
// environments are those of the built-in ones, and test for every other; where
// the documents are at hand, use [Application.WithDefaultsIn].
func (a Application) WithDefaults() Application {
	return a.WithDefaultsIn(func(name string) Class { return Environment{}.WithDefaults(name).Class })
}

// WithDefaultsIn is [Application.WithDefaults] with the classes of the
// environments as they are: a step into a production environment of any name
// is manual unless it says otherwise. It changes nothing of a itself.
func (a Application) WithDefaultsIn(class func(environment string) Class) Application {
	if a.OnFailure == "" {
		a.OnFailure = OnFailureAll
	}
	a.Services = slices.Clone(a.Services)
	for i := range a.Services {
		a.Services[i] = a.Services[i].WithDefaults()
	}
	a.Before, a.After = tasksWithDefaults(a.Before), tasksWithDefaults(a.After)
	a.Path = slices.Clone(a.Path)
	if len(a.Path) == 0 {
		a.Path = []PathStep{{Environment: EnvironmentDev}, {Environment: EnvironmentStaging}, {Environment: EnvironmentProduction}}
	}
	for i := range a.Path {
		s := &a.Path[i]
		if len(s.After) == 0 && i > 0 {
			s.After = []string{a.Path[i-1].Environment}
		}
		if s.Promotion == "" {
			s.Promotion = PromotionAutomatic
			if class(s.Environment) == ClassProduction {
				s.Promotion = PromotionManual
			}
		}
		s.Approvals = slices.Clone(s.Approvals)
		for j := range s.Approvals {
			s.Approvals[j] = s.Approvals[j].WithDefaults()
		}
	}
	return a
}

// WithDefaults returns the service with its defaults filled in.
func (s Service) WithDefaults() Service {
	if s.Instances == 0 {
		s.Instances = 1
	}
	if s.Readiness.HTTP == "" {
		s.Readiness.TCP = true
	}
	orDefault(&s.Readiness.Interval, probeInterval)
	orDefault(&s.Readiness.Timeout, probeTimeout)
	orDefault(&s.Stop.Drain, stopDrain)
	orDefault(&s.Stop.Grace, stopGrace)
	return s
}

// WithDefaults returns the task with its defaults filled in.
func (t Task) WithDefaults() Task {
	if t.Manual == nil {
		orDefault(&t.Timeout, taskTimeout)
	}
	if t.HTTP != nil && t.HTTP.Method == "" {
		call := *t.HTTP
		call.Method = "POST"
		t.HTTP = &call
	}
	if t.OnRollback.Undo != nil {
		undo := t.OnRollback.Undo.WithDefaults()
		t.OnRollback.Undo = &undo
	}
	return t
}

func tasksWithDefaults(tasks []Task) []Task {
	tasks = slices.Clone(tasks)
	for i := range tasks {
		tasks[i] = tasks[i].WithDefaults()
	}
	return tasks
}

// WithDefaults returns the rule with its defaults filled in.
func (r ApprovalRule) WithDefaults() ApprovalRule {
	if r.Count == 0 {
		r.Count = 1
	}
	orDefault(&r.Valid, approvalValid)
	return r
}

// DefaultStrategy returns the strategy of environments of a class that say
// none: a canary with analysis and a bake in production, rolling elsewhere.
func DefaultStrategy(c Class) Strategy { return Strategy{}.WithDefaults(c) }

// WithDefaults returns the strategy with its defaults filled in. A step with a
// weight below 100 and neither For nor a pause or approval after it is looked
// at for a minute. In production a former version bakes for five minutes where
// the strategy keeps one and says nothing else.
func (s Strategy) WithDefaults(c Class) Strategy {
	if s.Kind == "" {
		s.Kind = StrategyRolling
		if c == ClassProduction {
			s.Kind = StrategyCanary
		}
	}
	s.Steps = slices.Clone(s.Steps)
	if s.Kind == StrategyCanary {
		if len(s.Steps) == 0 {
			s.Steps = []StrategyStep{{Weight: 10}, {Weight: 30}, {Weight: 60}, {Weight: 100}}
		}
		if s.Analysis == nil {
			s.Analysis = &Analysis{}
		}
	}
	for i := range s.Steps {
		step := &s.Steps[i]
		if step.Approval != nil {
			rule := step.Approval.WithDefaults()
			step.Approval = &rule
		}
		waits := i+1 < len(s.Steps) && s.Steps[i+1].Weight == 0
		if step.Weight > 0 && step.Weight < 100 && !waits {
			orDefault(&step.For, canaryLook)
		}
	}
	if s.Analysis != nil {
		analysis := s.Analysis.WithDefaults(c)
		s.Analysis = &analysis
	}
	if c == ClassProduction && s.Kind != StrategyRecreate {
		orDefault(&s.Bake, productionBake)
	}
	orDefault(&s.Deadline, strategyDeadline)
	return s
}

// WithDefaults returns the analysis with its defaults filled in. Where the
// numbers come from is in internal/analysis.
func (a Analysis) WithDefaults(c Class) Analysis {
	orDefault(&a.Alpha, 0.05)
	orDefault(&a.Tolerance, 1.2)
	orDefault(&a.Floor, 0.001)
	orDefault(&a.Margin, 2)
	orDefault(&a.Horizon, Duration(time.Hour))
	if a.OnUndecided == "" {
		a.OnUndecided = OnUndecidedPromote
		if c == ClassProduction {
			a.OnUndecided = OnUndecidedPause
		}
	}
	orDefault(&a.HardStop.Success, 0.5)
	orDefault(&a.HardStop.Requests, 20)
	return a
}

// orDefault sets v to value if it was not said.
func orDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}
