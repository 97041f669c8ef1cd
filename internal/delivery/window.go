package delivery

import "time"

// Calendar says when deployments may start: the spec of a Calendar document.
// With windows, only inside one of them; in a freeze, never.
type Calendar struct {
	TimeZone string   `json:"timeZone,omitempty"` // IANA name; default UTC
	Windows  []Window `json:"windows,omitempty"`
	Freezes  []Freeze `json:"freezes,omitempty"`
}

// Window is a weekly time in which deployments may start.
type Window struct {
	Name string   `json:"name,omitempty"`
	Days []string `json:"days,omitempty"` // mon, tue, ... ; default every day
	From string   `json:"from"`           // "09:00", in the calendar's zone
	To   string   `json:"to"`             // "16:30"; at or before From: the next day
}

// Freeze is a time in which nothing starts: once (From, To) or weekly (Weekly).
type Freeze struct {
	Name   string    `json:"name"`
	Reason string    `json:"reason,omitempty"`
	From   time.Time `json:"from,omitzero"`
	To     time.Time `json:"to,omitzero"`
	Weekly *Window   `json:"weekly,omitempty"`
}
