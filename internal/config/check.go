package config

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tidegate-cd/tidegate/internal/calendar"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// check looks at what the types can't say: names, references, exactly-one-of,
// order.
func (p *parser) check(known Known) {
	seen := map[string]delivery.Position{}
	for i := range p.set.Documents {
		d := &p.set.Documents[i]
		id := fmt.Sprintf("%s %s/%s", d.Kind, d.Project, d.Name)
		if first, twice := seen[id]; twice {
			p.fail(d.Position, "The %s %s is there twice; the first is at %s.", d.Kind, d.Name, first)
		}
		seen[id] = d.Position
	}
	has := func(kind delivery.Kind, project, name string) bool {
		_, ok := seen[fmt.Sprintf("%s %s/%s", kind, project, name)]
		return ok
	}
	for i := range p.set.Documents {
		c := &checker{parser: p, d: &p.set.Documents[i], known: known, has: has}
		switch s := c.d.Spec.(type) {
		case delivery.Application:
			c.application(s)
		case delivery.Environment:
			c.environment(s)
		case delivery.Calendar:
			c.calendarSpec(s)
		case delivery.PolicySet:
			c.d.Spec = c.policySet(s)
		}
	}
}

type checker struct {
	*parser
	d     *Document
	known Known
	has   func(kind delivery.Kind, project, name string) bool
}

func (c *checker) wrong(path, format string, args ...any) {
	c.fail(c.d.at(path), "%s: %s", path, fmt.Sprintf(format, args...))
}

func (c *checker) name(path, what, name string, seen map[string]bool) {
	if err := delivery.CheckName(what, name); err != nil {
		c.wrong(path, "%s", message(err))
	}
	if seen[name] {
		c.wrong(path, "the %s %q is there twice.", what, name)
	}
	seen[name] = true
}

func (c *checker) application(a delivery.Application) {
	if len(a.Services) == 0 {
		c.wrong("spec.services", "an application has at least one service.")
	}
	seen := map[string]bool{}
	for i, s := range a.Services {
		at := fmt.Sprintf("spec.services[%d]", i)
		c.name(at+".name", "service", s.Name, seen)
		if s.Readiness.HTTP != "" && s.Readiness.TCP {
			c.wrong(at+".readiness", "say http or tcp, not both.")
		}
		if s.Readiness.HTTP != "" && !strings.HasPrefix(s.Readiness.HTTP, "/") {
			c.wrong(at+".readiness.http", "found %q, expected a path that begins with /.", s.Readiness.HTTP)
		}
		if s.Instances < 0 || s.Instances > 1000 {
			c.wrong(at+".instances", "found %d, expected 1 to 1000.", s.Instances)
		}
		for k, secret := range s.Secrets {
			if (secret.File == "") == (secret.Env == "") {
				c.wrong(at+".secrets."+k, "say exactly one of file and env.")
			}
			if secret.File != "" && !path.IsAbs(secret.File) {
				c.wrong(at+".secrets."+k+".file", "found %q, expected an absolute path on the target.", secret.File)
			}
			if _, both := s.Env[k]; both {
				c.wrong(at+".secrets."+k, "it is in env too: say it once.")
			}
		}
	}
	tasks := map[string]bool{}
	c.tasks("spec.before", a.Before, a.Services, tasks)
	c.tasks("spec.after", a.After, a.Services, tasks)
	c.path(a.Path)
}

func (c *checker) tasks(at string, tasks []delivery.Task, services []delivery.Service, seen map[string]bool) {
	for i, t := range tasks {
		here := fmt.Sprintf("%s[%d]", at, i)
		c.name(here+".name", "task", t.Name, seen)
		c.task(here, t, services)
	}
}

func (c *checker) task(at string, t delivery.Task, services []delivery.Service) {
	n := 0
	for _, set := range []bool{t.HTTP != nil, t.Command != nil, t.Manual != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		c.wrong(at, "a task says exactly one of http, command and manual; found %d.", n)
	}
	if t.HTTP != nil && !strings.HasPrefix(t.HTTP.URL, "http://") && !strings.HasPrefix(t.HTTP.URL, "https://") && !strings.HasPrefix(t.HTTP.URL, "${") {
		c.wrong(at+".http.url", "found %q, expected an http or https URL.", t.HTTP.URL)
	}
	if t.Command != nil && !slices.ContainsFunc(services, func(s delivery.Service) bool { return s.Name == t.Command.Service }) {
		c.wrong(at+".command.service", "there is no service %q in this application.", t.Command.Service)
	}
	if u := t.OnRollback.Undo; u != nil {
		if t.OnRollback.Barrier {
			c.wrong(at+".onRollback", "a barrier has no undo: say one of them.")
		}
		c.task(at+".onRollback.undo", *u, services)
	}
}

func (c *checker) path(steps []delivery.PathStep) {
	order := map[string]int{}
	for i, s := range steps {
		at := fmt.Sprintf("spec.path[%d]", i)
		if _, twice := order[s.Environment]; twice {
			c.wrong(at+".environment", "the environment %q is on the path twice.", s.Environment)
		}
		order[s.Environment] = i
		_, builtin := delivery.BuiltinEnvironment(s.Environment)
		if !builtin && !c.has(delivery.KindEnvironment, c.d.Project, s.Environment) && (c.known.Environment == nil || !c.known.Environment(c.d.Project, s.Environment)) {
			c.wrong(at+".environment", "there is no environment %q: write an Environment document of that name, or use dev, staging or production.", s.Environment)
		}
		c.calendarName(at+".calendar", s.Calendar)
		if s.Strategy != nil {
			c.strategy(at+".strategy", *s.Strategy)
		}
		for j, r := range s.Approvals {
			if r.Count < 0 || r.Count > 100 {
				c.wrong(fmt.Sprintf("%s.approvals[%d].count", at, j), "found %d, expected 1 to 100.", r.Count)
			}
		}
	}
	for i, s := range steps {
		for j, after := range s.After {
			at := fmt.Sprintf("spec.path[%d].after[%d]", i, j)
			if _, ok := order[after]; !ok {
				c.wrong(at, "the environment %q is not on the path.", after)
			}
		}
	}
	if cycle := cycleOf(steps); cycle != "" {
		c.wrong("spec.path", "it goes in a circle: %s.", cycle)
	}
}

// cycleOf returns a circle in the path as text, "" if there is none.
func cycleOf(steps []delivery.PathStep) string {
	after := map[string][]string{}
	for _, s := range steps {
		after[s.Environment] = s.After
	}
	state := map[string]int{} // 1 on the way, 2 done
	var way []string
	var walk func(string) string
	walk = func(name string) string {
		if state[name] == 2 {
			return ""
		}
		way = append(way, name)
		if state[name] == 1 {
			return strings.Join(way[slices.Index(way, name):], " after ")
		}
		state[name] = 1
		for _, a := range after[name] {
			if found := walk(a); found != "" {
				return found
			}
		}
		way, state[name] = way[:len(way)-1], 2
		return ""
	}
	for _, s := range steps {
		if found := walk(s.Environment); found != "" {
			return found
		}
	}
	return ""
}

func (c *checker) strategy(at string, s delivery.Strategy) {
	last := 0
	for i, step := range s.Steps {
		here := fmt.Sprintf("%s.steps[%d]", at, i)
		n := 0
		for _, set := range []bool{step.Weight != 0, step.Pause != 0, step.UntilPromoted, step.Approval != nil} {
			if set {
				n++
			}
		}
		switch {
		case n != 1:
			c.wrong(here, "a step says exactly one of weight, pause, untilPromoted and approval; found %d.", n)
		case step.Weight != 0 && s.Kind != delivery.StrategyCanary && s.Kind != "":
			c.wrong(here+".weight", "only a canary has weights.")
		case step.Weight != 0 && (step.Weight < 1 || step.Weight > 100 || step.Weight <= last):
			c.wrong(here+".weight", "found %d, expected more than the step before (%d) and at most 100.", step.Weight, last)
		}
		if step.For != 0 && step.Weight == 0 {
			c.wrong(here+".for", "it goes with a weight; a wait alone is a pause.")
		}
		last = max(last, step.Weight)
	}
	if a := s.Analysis; a != nil {
		c.analysis(at+".analysis", *a)
	}
}

func (c *checker) analysis(at string, a delivery.Analysis) {
	if a.Alpha < 0 || a.Alpha >= 1 {
		c.wrong(at+".alpha", "found %g, expected a probability between 0 and 1.", a.Alpha)
	}
	if a.Tolerance != 0 && a.Tolerance < 1 {
		c.wrong(at+".tolerance", "found %g, expected a ratio of at least 1.", a.Tolerance)
	}
	if a.Margin != 0 && a.Margin <= max(a.Tolerance, 1) {
		c.wrong(at+".margin", "found %g, expected a ratio above the tolerance.", a.Margin)
	}
	if a.Floor < 0 || a.Floor >= 1 {
		c.wrong(at+".floor", "found %g, expected a share between 0 and 1.", a.Floor)
	}
	if a.HardStop.Success < 0 || a.HardStop.Success > 1 {
		c.wrong(at+".hardStop.success", "found %g, expected a share between 0 and 1.", a.HardStop.Success)
	}
}

func (c *checker) environment(e delivery.Environment) {
	c.calendarName("spec.calendar", e.Calendar)
	if e.Strategy != nil {
		c.strategy("spec.strategy", *e.Strategy)
	}
	seen := map[string]bool{}
	for i, t := range e.Targets {
		c.name(fmt.Sprintf("spec.targets[%d]", i), "target", t, seen)
	}
	if _, port := e.Variables["PORT"]; port {
		c.wrong("spec.variables.PORT", "PORT is the port that the target gives to each instance; use another name.")
	}
}

func (c *checker) calendarName(at, name string) {
	if name == "" || c.has(delivery.KindCalendar, c.d.Project, name) || c.known.Calendar != nil && c.known.Calendar(c.d.Project, name) {
		return
	}
	c.wrong(at, "there is no calendar %q: write a Calendar document of that name.", name)
}

func (c *checker) calendarSpec(s delivery.Calendar) {
	if _, err := time.LoadLocation(s.TimeZone); err != nil {
		c.wrong("spec.timeZone", "found %q, expected an IANA name such as Europe/Berlin.", s.TimeZone)
	}
	for i, w := range s.Windows {
		c.window(fmt.Sprintf("spec.windows[%d]", i), w)
	}
	for i, f := range s.Freezes {
		at := fmt.Sprintf("spec.freezes[%d]", i)
		switch {
		case f.Weekly != nil && (!f.From.IsZero() || !f.To.IsZero()):
			c.wrong(at, "say from and to, or weekly, not both.")
		case f.Weekly != nil:
			c.window(at+".weekly", *f.Weekly)
		case f.From.IsZero() || f.To.IsZero():
			c.wrong(at, "a freeze has from and to, or weekly.")
		case !f.From.Before(f.To):
			c.wrong(at+".to", "it must be after from.")
		}
	}
}

func (c *checker) window(at string, w delivery.Window) {
	for field, v := range map[string]string{"from": w.From, "to": w.To} {
		if _, _, ok := calendar.Clock(v); !ok {
			c.wrong(at+"."+field, "found %q, expected a time of day such as 09:30.", v)
		}
	}
	for i, day := range w.Days {
		if !slices.Contains([]string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}, day) {
			c.wrong(fmt.Sprintf("%s.days[%d]", at, i), "found %q, expected mon, tue, wed, thu, fri, sat or sun.", day)
		}
	}
}

// policySet takes the modules that the document names from the other files.
func (c *checker) policySet(s delivery.PolicySet) delivery.PolicySet {
	modules := map[string]string{}
	for name, source := range s.Modules {
		modules[name] = source
	}
	for i, name := range s.Files {
		at := fmt.Sprintf("spec.files[%d]", i)
		full := path.Join(path.Dir(c.d.Position.File), name)
		f, ok := c.files[full]
		switch {
		case path.IsAbs(name) || strings.HasPrefix(path.Clean(name), ".."):
			c.wrong(at, "found %q, expected a path beside or below this document.", name)
		case !ok:
			c.wrong(at, "there is no file %q beside this document.", name)
		default:
			modules[full] = string(f.Content)
		}
	}
	if len(modules) == 0 {
		c.wrong("spec", "a policy set has modules or files.")
	}
	s.Modules, s.Files = modules, nil
	return s
}
