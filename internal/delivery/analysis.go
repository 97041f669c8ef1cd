package delivery

import "time"

// AnalysisState is what a judge remembers between looks: sums, not samples,
// so that it stays small however long a rollout takes. internal/analysis is
// its only writer.
type AnalysisState struct {
	Verdict   AnalysisVerdict `json:"verdict"`
	Since     time.Time       `json:"since"`           // first sample that counted
	At        time.Time       `json:"at"`              // last sample
	Last      *Sample         `json:"last,omitempty"`  // cumulative counts of the last sample
	Candidate Counts          `json:"candidate"`       // counted since Since
	Stable    Counts          `json:"stable"`          // counted since Since
	Harm      []float64       `json:"harm,omitempty"`  // log likelihood ratio by grid point, "candidate worse"
	Safe      []float64       `json:"safe,omitempty"`  // log likelihood ratio by grid point, "worse by Margin" excluded
	Ratio     []float64       `json:"ratio,omitempty"` // log likelihood by ratio on the interval's grid
	Buckets   Dispersion      `json:"buckets,omitzero"`
	Evidence  float64         `json:"evidence"`           // log E against "not worse"; harm at ln(1/alpha)
	Needed    float64         `json:"needed"`             // ln(1/alpha)
	Estimate  float64         `json:"estimate"`           // ratio of error rates, candidate to stable; 0 if unknown
	Low       float64         `json:"low"`                // lower end of the ratio's always-valid interval
	High      float64         `json:"high"`               // upper end; 0 if unbounded
	Reason    string          `json:"reason,omitempty"`   // one sentence with the numbers
	Warnings  []string        `json:"warnings,omitempty"` // missing data, counter reset, bursts, sample-ratio mismatch
}

// Dispersion accumulates Pearson's chi-square of the stable version's errors
// over time buckets, to see whether errors come in bursts.
type Dispersion struct {
	Start    time.Time `json:"start,omitzero"` // of the open bucket
	Requests int64     `json:"requests,omitempty"`
	Errors   int64     `json:"errors,omitempty"`
	N        int       `json:"n,omitempty"` // closed buckets
	SumN     float64   `json:"sumN,omitempty"`
	SumX     float64   `json:"sumX,omitempty"`
	SumX2N   float64   `json:"sumX2N,omitempty"` // Σ x²/n
}

// AnalysisVerdict is what a judge says.
type AnalysisVerdict string

// The verdicts of a judge.
const (
	VerdictUndecided AnalysisVerdict = "undecided"
	VerdictHarm      AnalysisVerdict = "harm"      // the candidate is worse than the tolerance allows
	VerdictSafe      AnalysisVerdict = "safe"      // within the margin, or below the floor
	VerdictHardStop  AnalysisVerdict = "hard_stop" // the coarse rule
)
