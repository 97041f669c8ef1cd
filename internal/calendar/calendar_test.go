package calendar

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

func at(t interface{ Fatal(...any) }, s string) time.Time {
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOpen(t *testing.T) {
	office := delivery.Calendar{TimeZone: "Europe/Berlin", Windows: []delivery.Window{{Name: "office", Days: []string{"mon", "tue", "wed", "thu"}, From: "09:00", To: "16:30"}}}
	night := delivery.Calendar{Windows: []delivery.Window{{Days: []string{"fri"}, From: "22:00", To: "02:00"}}}
	frozen := delivery.Calendar{Freezes: []delivery.Freeze{{Name: "year end", Reason: "books", From: at(t, "2026-12-18T00:00:00Z"), To: at(t, "2027-01-04T00:00:00Z")}}}
	friday := delivery.Calendar{TimeZone: "Europe/Berlin", Freezes: []delivery.Freeze{{Name: "friday", Weekly: &delivery.Window{Days: []string{"fri"}, From: "12:00", To: "24:00"}}}}
	early := delivery.Calendar{TimeZone: "Europe/Berlin", Windows: []delivery.Window{{From: "02:30", To: "03:30"}}}
	never := delivery.Calendar{Windows: []delivery.Window{{Days: []string{"mon"}, From: "09:00", To: "10:00"}}, Freezes: []delivery.Freeze{{Name: "for ever", From: at(t, "2020-01-01T00:00:00Z"), To: at(t, "2040-01-01T00:00:00Z")}}}
	tests := []struct {
		name string
		c    delivery.Calendar
		at   string
		open bool
		next string
	}{
		{"no calendar", delivery.Calendar{}, "2026-11-20T12:00:00Z", true, "2026-11-20T12:00:00Z"},
		{"in the window", office, "2026-11-19T12:00:00Z", true, "2026-11-19T12:00:00Z"},
		{"its first instant", office, "2026-11-19T08:00:00Z", true, "2026-11-19T08:00:00Z"},
		{"its end is out", office, "2026-11-19T15:30:00Z", false, "2026-11-23T08:00:00Z"},
		{"Friday waits for Monday", office, "2026-11-20T12:00:00Z", false, "2026-11-23T08:00:00Z"},
		{"after midnight belongs to Friday", night, "2026-11-21T01:00:00Z", true, "2026-11-21T01:00:00Z"},
		{"freeze", frozen, "2026-12-24T12:00:00Z", false, "2027-01-04T00:00:00Z"},
		{"weekly freeze, in the zone", friday, "2026-11-20T11:00:00Z", false, "2026-11-20T23:00:00Z"},
		{"before the weekly freeze", friday, "2026-11-20T10:59:00Z", true, "2026-11-20T10:59:00Z"},
		{"an hour that the clock skips", early, "2027-03-28T00:00:00Z", false, "2027-03-28T01:00:00Z"},
		{"never", never, "2026-11-20T12:00:00Z", false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := Open(tt.c, at(t, tt.at))
			want := time.Time{}
			if tt.next != "" {
				want = at(t, tt.next)
			}
			if a.Open != tt.open || !a.Next.Equal(want) || a.Reason == "" {
				t.Errorf("at %s: %+v, want open %v, next %s", tt.at, a, tt.open, tt.next)
			}
		})
	}
}

func TestUnknownZoneIsClosed(t *testing.T) {
	if a := Open(delivery.Calendar{TimeZone: "Moon/Base"}, time.Unix(0, 0)); a.Open {
		t.Error("a calendar that can't be read is open")
	}
}

// TestNextIsTheFirstOpenTime holds Next against a walk by minutes.
func TestNextIsTheFirstOpenTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		clock := func(label string) string {
			return time.Date(2000, 1, 1, rapid.IntRange(0, 23).Draw(rt, label), rapid.SampledFrom([]int{0, 30}).Draw(rt, label+" minute"), 0, 0, time.UTC).Format("15:04")
		}
		days := rapid.SampledFrom([][]string{nil, {"mon"}, {"sat", "sun"}}).Draw(rt, "days")
		c := delivery.Calendar{TimeZone: rapid.SampledFrom([]string{"", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"}).Draw(rt, "zone"),
			Windows: []delivery.Window{{Days: days, From: clock("from"), To: clock("to")}}}
		if rapid.Bool().Draw(rt, "freeze") {
			c.Freezes = []delivery.Freeze{{Name: "x", Weekly: &delivery.Window{Days: []string{"mon"}, From: clock("freeze from"), To: clock("freeze to")}}}
		}
		start := time.Date(2026, 3, 25, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.IntRange(0, 20000).Draw(rt, "minutes")) * time.Minute)
		a := Open(c, start)
		if a.Next.IsZero() {
			return
		}
		if !Open(c, a.Next).Open {
			rt.Fatalf("next %s of %s is not open: %+v", a.Next, start, c)
		}
		for at := start; at.Before(a.Next) && at.Before(start.Add(48*time.Hour)); at = at.Add(15 * time.Minute) {
			if Open(c, at).Open && !a.Open {
				rt.Fatalf("%s is open, before next %s of %s: %+v", at, a.Next, start, c)
			}
		}
	})
}
