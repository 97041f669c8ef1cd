package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// printVerdicts writes one line a verdict, and what mends it below.
func printVerdicts(w io.Writer, verdicts []delivery.Verdict, indent string) {
	for _, v := range verdicts {
		fmt.Fprintf(w, "%s%s %-10s  %s\n", indent, mark(v.Outcome), v.Gate, v.Reason)
		if v.Outcome == delivery.OutcomePass {
			continue
		}
		if v.Path != "" {
			fmt.Fprintf(w, "%s              at %s\n", indent, v.Path)
		}
		if v.Hint != "" {
			fmt.Fprintf(w, "%s              mend: %s\n", indent, v.Hint)
		}
		if v.Clear != "" {
			fmt.Fprintf(w, "%s              clears: %s\n", indent, v.Clear)
		}
		if !v.Earliest.IsZero() {
			fmt.Fprintf(w, "%s              earliest: %s\n", indent, stamp(v.Earliest))
		}
	}
}

// mark is a word and not only a colour or a sign.
func mark(o delivery.Outcome) string {
	switch o {
	case delivery.OutcomePass:
		return "pass   "
	case delivery.OutcomeDeny:
		return "DENY   "
	case delivery.OutcomeUnknown:
		return "unknown"
	}
	return "wait   "
}

// stamp writes a time in the reader's zone.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05 MST")
}
