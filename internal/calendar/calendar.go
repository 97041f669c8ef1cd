// Package calendar decides whether a deployment may start at a time: inside a
// window, where there are windows, and in no freeze. It is pure; the time is
// an argument and time zones come from Go's database.
//
// Start reading at [Open].
package calendar

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Answer says whether a calendar is open.
type Answer struct {
	Open   bool
	Reason string    // a sentence
	Next   time.Time // when it is open the next time; the asked time if it is open; zero if not within a year
	Until  time.Time // when what the reason names ends; zero if that is not known
}

// horizonDays is how far Open looks ahead.
const horizonDays = 366

// span is a time from (inclusive) to (exclusive), with what it is called.
type span struct {
	from, to     time.Time
	name, reason string
}

// Open answers for one time. Windows and weekly freezes are in the calendar's
// zone, by the wall clock: in a night that skips an hour a window that would
// begin in it begins when the clock goes on.
func Open(c delivery.Calendar, at time.Time) Answer {
	zone, err := time.LoadLocation(cmp.Or(c.TimeZone, "UTC"))
	if err != nil {
		return Answer{Reason: fmt.Sprintf("The calendar's time zone %q is not known.", c.TimeZone)}
	}
	at = at.In(zone)
	windows, freezes := spans(c, zone, at)
	if open(c, windows, freezes, at) {
		return Answer{Open: true, Reason: "The calendar is open.", Next: at}
	}
	a := closed(windows, freezes, at)
	// Only the begin of a window or the end of a freeze can open it.
	var candidates []time.Time
	for _, w := range windows {
		candidates = append(candidates, w.from)
	}
	for _, f := range freezes {
		candidates = append(candidates, f.to)
	}
	slices.SortFunc(candidates, time.Time.Compare)
	for _, t := range candidates {
		if t.After(at) && open(c, windows, freezes, t) {
			a.Next = t
			break
		}
	}
	return a
}

func open(c delivery.Calendar, windows, freezes []span, at time.Time) bool {
	for _, f := range freezes {
		if f.has(at) {
			return false
		}
	}
	return len(c.Windows) == 0 || slices.ContainsFunc(windows, func(w span) bool { return w.has(at) })
}

func closed(windows, freezes []span, at time.Time) Answer {
	for _, f := range freezes {
		if f.has(at) {
			why := ""
			if f.reason != "" {
				why = ": " + f.reason
			}
			return Answer{Reason: fmt.Sprintf("The freeze %q lasts until %s%s.", f.name, f.to.Format("Mon 2006-01-02 15:04 MST"), why), Until: f.to}
		}
	}
	return Answer{Reason: "No window is open now."}
}

func (s span) has(t time.Time) bool { return !t.Before(s.from) && t.Before(s.to) }

// spans lists every window and freeze that touches the time asked for or begins
// within the horizon.
func spans(c delivery.Calendar, zone *time.Location, at time.Time) (windows, freezes []span) {
	for _, w := range c.Windows {
		windows = append(windows, weekly(w, zone, at, "")...)
	}
	for _, f := range c.Freezes {
		if f.Weekly != nil {
			w := *f.Weekly
			w.Name = f.Name
			freezes = append(freezes, weekly(w, zone, at, f.Reason)...)
			continue
		}
		freezes = append(freezes, span{f.From.In(zone), f.To.In(zone), f.Name, f.Reason})
	}
	return windows, freezes
}

func weekly(w delivery.Window, zone *time.Location, at time.Time, reason string) []span {
	fromH, fromM, ok1 := Clock(w.From)
	toH, toM, ok2 := Clock(w.To)
	if !ok1 || !ok2 {
		return nil
	}
	next := 0
	if toH*60+toM <= fromH*60+fromM {
		next = 1
	}
	var all []span
	for day := -1; day <= horizonDays; day++ {
		y, m, d := at.AddDate(0, 0, day).Date()
		from := wall(y, m, d, fromH, fromM, zone)
		if len(w.Days) > 0 && !slices.ContainsFunc(w.Days, func(name string) bool { return isDay(name, time.Date(y, m, d, 12, 0, 0, 0, zone).Weekday()) }) {
			continue
		}
		all = append(all, span{from, wall(y, m, d+next, toH, toM, zone), w.Name, reason})
	}
	return all
}

// wall is a time by the wall clock; one that the clock skips is the moment at
// which it goes on.
func wall(y int, m time.Month, d, hour, minute int, zone *time.Location) time.Time {
	t := time.Date(y, m, d, hour, minute, 0, 0, zone)
	if (t.Hour()*60+t.Minute()-hour*60-minute)%(24*60) == 0 {
		return t
	}
	start, end := t.ZoneBounds()
	if end.IsZero() || !start.IsZero() && t.Sub(start) < end.Sub(t) {
		return start
	}
	return end
}

// Clock reads "09:30"; 24:00 is the end of the day.
func Clock(s string) (hour, minute int, ok bool) {
	if len(s) != 5 || s[2] != ':' {
		return 0, 0, false
	}
	if s == "24:00" {
		return 24, 0, true
	}
	t, err := time.Parse("15:04", s)
	return t.Hour(), t.Minute(), err == nil
}

// isDay reports whether name ("mon", "Monday") is a weekday.
func isDay(name string, d time.Weekday) bool {
	return len(name) >= 3 && strings.HasPrefix(strings.ToLower(d.String()), strings.ToLower(name))
}
