// Package analysis decides whether a candidate is worse than the stable
// version, from counts of requests and errors of both. It may be asked at
// every look without harm to its error rate: the probability that a candidate
// that is no worse than the tolerance is ever called harmful, over the whole
// rollout, is at most alpha.
//
// The test is the stratified grid mixture of likelihood ratios of
// progressive-delivery.md section 6.5: given an error in an interval, whose
// arm it hits depends only on the share of requests that the arm had and on
// the ratio of the error rates, whatever the common level of errors was. So
// incidents that hit both arms and changing weights cannot mislead it.
//
// It is pure and remembers sums only. It must not know where counts come from.
//
// Start reading at [Judge].
package analysis

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// grid is the ratios, relative to the null's, that the mixture weighs equally.
var grid = []float64{1.1, 1.25, 1.5, 2, 3, 5, 10, 30}

// ratios is the grid on which the interval of the ratio is inverted.
var ratios = []float64{0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.35, 1.5, 1.75, 2, 2.5, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100}

// floors is the error rates, relative to the floor, that the floor's mixture weighs equally.
var floors = []float64{0, 0.1, 0.25, 0.5}

const (
	bucketLength = 15 * time.Second // of the dispersion estimate: section 6.9
	minBuckets   = 4                // a minute of them: later would leave the first steps unguarded
)

// Judge folds one sample into what is known so far (nil at the first) and
// returns what is known then. Counts in samples are cumulative; an interval in
// which a counter began again, or an arm had no request, tells nothing of the
// ratio. Spec has its defaults filled in.
func Judge(spec delivery.Analysis, s *delivery.AnalysisState, sample delivery.Sample) *delivery.AnalysisState {
	n := begin(spec, s, sample)
	if s == nil {
		return n
	}
	last := s.Last
	n.Last = &sample
	if sample.At.Before(n.Since.Add(spec.Warmup.Std())) {
		n.Reason = fmt.Sprintf("warming up until %s", n.Since.Add(spec.Warmup.Std()).Format(time.TimeOnly))
		return n
	}
	if reset(last.Candidate, sample.Candidate) || reset(last.Stable, sample.Stable) {
		warn(n, "a counter began again: that interval was not counted")
		return conclude(spec, n)
	}
	c := difference(last.Candidate, sample.Candidate)
	b := difference(last.Stable, sample.Stable)
	phi := dispersion(n.Buckets)
	n.Candidate.Requests += c.Requests
	n.Candidate.Errors += c.Errors
	n.Stable.Requests += b.Requests
	n.Stable.Errors += b.Errors
	n.Buckets = fill(n.Buckets, sample.At, b)
	fold(spec, n, c, b, phi)
	if phi > 1.5 {
		warn(n, fmt.Sprintf("errors come in bursts (dispersion %.1f): more evidence is asked for", phi))
	}
	return conclude(spec, n)
}

// begin copies the state, or makes the first one.
func begin(spec delivery.Analysis, s *delivery.AnalysisState, sample delivery.Sample) *delivery.AnalysisState {
	if s == nil {
		return &delivery.AnalysisState{
			Verdict: delivery.VerdictUndecided, Since: sample.At, At: sample.At, Last: &sample,
			Harm: make([]float64, len(grid)), Safe: make([]float64, len(grid)), Ratio: make([]float64, len(ratios)),
			Needed: math.Log(1 / spec.Alpha), Reason: "no requests were counted yet",
		}
	}
	n := *s
	n.At = sample.At
	n.Harm, n.Safe, n.Ratio = slices.Clone(s.Harm), slices.Clone(s.Safe), slices.Clone(s.Ratio)
	n.Warnings = slices.Clone(s.Warnings)
	return &n
}

func reset(before, now delivery.Counts) bool {
	return before.Epoch != now.Epoch || now.Requests < before.Requests || now.Errors < before.Errors
}

func difference(before, now delivery.Counts) delivery.Counts {
	return delivery.Counts{Requests: now.Requests - before.Requests, Errors: now.Errors - before.Errors}
}

// fold adds an interval's log likelihood ratios.
func fold(spec delivery.Analysis, n *delivery.AnalysisState, c, b delivery.Counts, phi float64) {
	if c.Requests == 0 || b.Requests == 0 || c.Errors+b.Errors == 0 {
		return // no errors: the ratio is not touched, see section 6.4
	}
	theta := float64(c.Requests) / float64(c.Requests+b.Requests)
	x, y := float64(c.Errors)/phi, float64(b.Errors)/phi
	tolerated, margin := share(theta, spec.Tolerance), share(theta, spec.Margin)
	for i, g := range grid {
		n.Harm[i] += likelihood(x, y, share(theta, spec.Tolerance*g), tolerated)
		n.Safe[i] += likelihood(x, y, share(theta, spec.Margin/g), margin)
	}
	for i, r := range ratios {
		t := share(theta, r)
		n.Ratio[i] += x*math.Log(t) + y*math.Log(1-t)
	}
}

// share is θ(r) = θr/(1−θ+θr): the share of errors that hit the candidate when
// its error rate is r times the stable's.
func share(theta, r float64) float64 { return theta * r / (1 - theta + theta*r) }

func likelihood(x, y, alternative, null float64) float64 {
	return x*math.Log(alternative/null) + y*math.Log((1-alternative)/(1-null))
}

// logMean returns the logarithm of the mean of exp(v).
func logMean(v []float64) float64 {
	top := slices.Max(v)
	sum := 0.0
	for _, x := range v {
		sum += math.Exp(x - top)
	}
	return top + math.Log(sum/float64(len(v)))
}

// fill adds stable counts to the open bucket and closes it when it is over.
func fill(d delivery.Dispersion, at time.Time, b delivery.Counts) delivery.Dispersion {
	if d.Start.IsZero() {
		d.Start = at
	}
	d.Requests += b.Requests
	d.Errors += b.Errors
	if at.Sub(d.Start) < bucketLength {
		return d
	}
	if d.Requests > 0 {
		x, n := float64(d.Errors), float64(d.Requests)
		d.N++
		d.SumN += n
		d.SumX += x
		d.SumX2N += x * x / n
	}
	d.Start, d.Requests, d.Errors = at, 0, 0
	return d
}

// dispersion is Pearson's χ²/df of the stable version's errors over buckets,
// at least 1 (section 6.9).
func dispersion(d delivery.Dispersion) float64 {
	if d.N < minBuckets || d.SumX == 0 {
		return 1
	}
	p := d.SumX / d.SumN
	return math.Max(1, (d.SumX2N/p-d.SumX)/float64(d.N-1))
}

// conclude computes the verdict, the interval and the sentence.
func conclude(spec delivery.Analysis, n *delivery.AnalysisState) *delivery.AnalysisState {
	n.Evidence = logMean(n.Harm)
	n.Estimate, n.Low, n.High = interval(n.Ratio, n.Needed)
	switch {
	case hardStop(spec, n.Candidate):
		n.Verdict = delivery.VerdictHardStop
	case n.Evidence >= n.Needed:
		n.Verdict = delivery.VerdictHarm
	case n.Stable.Requests > 0 && logMean(n.Safe) >= n.Needed, belowFloor(spec, n.Candidate) >= n.Needed:
		n.Verdict = delivery.VerdictSafe
	default:
		n.Verdict = delivery.VerdictUndecided
	}
	n.Reason = sentence(spec, n)
	return n
}

func hardStop(spec delivery.Analysis, c delivery.Counts) bool {
	h := spec.HardStop
	return h.Requests > 0 && c.Requests >= h.Requests && float64(c.Requests-c.Errors) < h.Success*float64(c.Requests)
}

// belowFloor is the log evidence against "the candidate's error rate is at
// least the floor": a mixture of likelihood ratios of lower rates, each of
// which has expectation at most 1 for every rate at or above the floor.
func belowFloor(spec delivery.Analysis, c delivery.Counts) float64 {
	if spec.Floor <= 0 || spec.Floor >= 1 || c.Requests == 0 {
		return 0
	}
	v := make([]float64, 0, len(floors))
	x, good := float64(c.Errors), float64(c.Requests-c.Errors)
	for _, f := range floors {
		if f == 0 && x > 0 {
			continue // likelihood zero; its weight still counts below
		}
		l := good * math.Log((1-f*spec.Floor)/(1-spec.Floor))
		if x > 0 {
			l += x * math.Log(f)
		}
		v = append(v, l)
	}
	return logMean(v) + math.Log(float64(len(v))/float64(len(floors)))
}

// interval returns the most likely ratio and the ends of the always-valid
// interval: every ratio that the mixture over the grid does not refute.
func interval(v []float64, needed float64) (estimate, low, high float64) {
	best := slices.Max(v)
	if best == 0 {
		return 0, 0, 0 // no error was counted
	}
	mixture := logMean(v)
	first, last := -1, -1
	for i := range v {
		if v[i] == best && estimate == 0 {
			estimate = ratios[i]
		}
		if mixture-v[i] < needed {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if first > 0 {
		low = ratios[first]
	}
	if last >= 0 && last < len(ratios)-1 {
		high = ratios[last]
	}
	return estimate, low, high
}

func sentence(spec delivery.Analysis, n *delivery.AnalysisState) string {
	text := fmt.Sprintf("candidate fails %s of %d requests, stable %s of %d", percent(n.Candidate), n.Candidate.Requests, percent(n.Stable), n.Stable.Requests)
	switch {
	case n.Candidate.Requests == 0 || n.Stable.Requests == 0:
		text += "; one side has no requests, which tells nothing"
	case n.Low > 0 && n.High > 0:
		text += fmt.Sprintf("; ratio %g to %g", n.Low, n.High)
	case n.Low > 0:
		text += fmt.Sprintf("; ratio at least %g", n.Low)
	case n.High > 0:
		text += fmt.Sprintf("; ratio at most %g", n.High)
	}
	switch n.Verdict {
	case delivery.VerdictHarm:
		text += fmt.Sprintf("; tolerance %g; evidence %.1f of %.1f", spec.Tolerance, n.Evidence, n.Needed)
	case delivery.VerdictHardStop:
		text += fmt.Sprintf("; hard stop below %.0f %% success", 100*spec.HardStop.Success)
	case delivery.VerdictSafe:
		if belowFloor(spec, n.Candidate) >= n.Needed {
			text += fmt.Sprintf("; safe: below the floor of %g %%", 100*spec.Floor)
		} else {
			text += fmt.Sprintf("; safe: not %g times as bad", spec.Margin)
		}
	}
	return text
}

func percent(c delivery.Counts) string {
	if c.Requests == 0 {
		return "0 %"
	}
	return fmt.Sprintf("%.2g %%", 100*float64(c.Errors)/float64(c.Requests))
}

// warn adds a warning once.
func warn(n *delivery.AnalysisState, text string) {
	if !slices.Contains(n.Warnings, text) && len(n.Warnings) < 8 {
		n.Warnings = append(n.Warnings, text)
	}
}
