package analysis

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func spec() delivery.Analysis {
	return delivery.Analysis{Alpha: 0.05, Tolerance: 1, Floor: 1e-9, Margin: 2, Horizon: delivery.Duration(time.Hour), HardStop: delivery.HardStop{Success: 0.5, Requests: 20}}
}

// rollout is a simulated staged rollout: 5, 25 and 50 % for ten minutes each,
// looked at every 15 s (section 6.5's setting).
type rollout struct {
	rps             float64
	stable          float64 // error rate
	ratio           float64
	incident, burst float64 // factor in the last stage; mean errors a burst
}

func (r rollout) run(rng *rand.Rand, s delivery.Analysis) (verdict delivery.AnalysisVerdict, after time.Duration) {
	var c, b delivery.Counts
	state := Judge(s, nil, delivery.Sample{At: start})
	for i := 1; i <= 120; i++ {
		at := start.Add(time.Duration(i) * 15 * time.Second)
		weight := []float64{0.05, 0.25, 0.5}[(i-1)/40]
		level := r.stable
		if r.incident > 0 && i > 90 && i <= 110 {
			level *= r.incident
		}
		n := r.rps * 15
		nc := poisson(rng, n*weight)
		nb := poisson(rng, n*(1-weight))
		c.Requests, b.Requests = c.Requests+nc, b.Requests+nb
		c.Errors += min(nc, bursts(rng, float64(nc)*level*r.ratio, r.burst))
		b.Errors += min(nb, bursts(rng, float64(nb)*level, r.burst))
		state = Judge(s, state, delivery.Sample{At: at, Candidate: c, Stable: b})
		if state.Verdict == delivery.VerdictHarm || state.Verdict == delivery.VerdictHardStop {
			return state.Verdict, at.Sub(start)
		}
	}
	return state.Verdict, 0
}

// bursts draws errors that come in groups of geometric size.
func bursts(rng *rand.Rand, mean, size float64) int64 {
	if size <= 1 {
		return poisson(rng, mean)
	}
	total := int64(0)
	for range poisson(rng, mean/size) {
		total++
		for rng.Float64() < 1-1/size {
			total++
		}
	}
	return total
}

func poisson(rng *rand.Rand, mean float64) int64 {
	if mean > 30 {
		return max(0, int64(math.Round(mean+math.Sqrt(mean)*rng.NormFloat64())))
	}
	limit, p, k := math.Exp(-mean), 1.0, int64(0)
	for {
		p *= rng.Float64()
		if p <= limit {
			return k
		}
		k++
	}
}

// TestFalseAborts holds whole healthy rollouts against alpha, the common
// incident that misleads pooled counts among them (section 6.5: 1.2 %, against
// 100 % for pooled counts). The bound is alpha and three standard errors.
func TestFalseAborts(t *testing.T) {
	const runs = 600
	for name, r := range map[string]rollout{
		"100 rps":                 {rps: 100, stable: 0.01, ratio: 1},
		"10 rps":                  {rps: 10, stable: 0.01, ratio: 1},
		"common incident at 50 %": {rps: 100, stable: 0.01, ratio: 1, incident: 4},
		"rare errors":             {rps: 100, stable: 0.001, ratio: 1},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			aborted := 0
			for range runs {
				if v, _ := r.run(rng, spec()); v == delivery.VerdictHarm {
					aborted++
				}
			}
			share := float64(aborted) / runs
			t.Logf("false aborts: %.1f %% of %d", 100*share, runs)
			if limit := 0.05 + 3*math.Sqrt(0.05*0.95/runs); share > limit {
				t.Errorf("false aborts %.3f, want at most %.3f", share, limit)
			}
		})
	}
}

// TestDetection looks for a doubling of errors (section 6.5: median 3.8 min at 100 rps).
func TestDetection(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var found []time.Duration
	const runs = 200
	for range runs {
		if v, after := (rollout{rps: 100, stable: 0.01, ratio: 2}).run(rng, spec()); v == delivery.VerdictHarm {
			found = append(found, after)
		}
	}
	if len(found) < runs*98/100 {
		t.Fatalf("found %d of %d", len(found), runs)
	}
	median := medianOf(found)
	t.Logf("1 %% to 2 %% at 100 rps: median %s", median)
	if median > 5*time.Minute {
		t.Errorf("median %s, want about 3.8 min", median)
	}
}

func medianOf(d []time.Duration) time.Duration {
	for i := range d {
		for j := i + 1; j < len(d); j++ {
			if d[j] < d[i] {
				d[i], d[j] = d[j], d[i]
			}
		}
	}
	return d[len(d)/2]
}

func judge(s delivery.Analysis, samples ...delivery.Sample) *delivery.AnalysisState {
	var state *delivery.AnalysisState
	for i, x := range samples {
		x.At = start.Add(time.Duration(i) * time.Second)
		state = Judge(s, state, x)
	}
	return state
}

func counts(cn, cx, bn, bx int64) delivery.Sample {
	return delivery.Sample{Candidate: delivery.Counts{Epoch: "e", Requests: cn, Errors: cx}, Stable: delivery.Counts{Epoch: "e", Requests: bn, Errors: bx}}
}

func TestVerdicts(t *testing.T) {
	s := spec()
	s.Floor, s.Tolerance = 0.01, 1.2
	moved := counts(0, 0, 0, 0)
	moved.Candidate.Epoch = "f"
	tests := []struct {
		name    string
		samples []delivery.Sample
		want    delivery.AnalysisVerdict
	}{
		{"nothing seen", []delivery.Sample{counts(0, 0, 0, 0)}, delivery.VerdictUndecided},
		{"only the stable has requests", []delivery.Sample{counts(0, 0, 0, 0), counts(0, 0, 1000, 50)}, delivery.VerdictUndecided},
		{"four errors at 10 % against none", []delivery.Sample{counts(0, 0, 0, 0), counts(60, 4, 540, 0)}, delivery.VerdictHarm},
		{"two errors are not enough", []delivery.Sample{counts(0, 0, 0, 0), counts(60, 2, 540, 0)}, delivery.VerdictUndecided},
		{"same rate", []delivery.Sample{counts(0, 0, 0, 0), counts(100, 5, 900, 45)}, delivery.VerdictUndecided},
		{"below the floor", []delivery.Sample{counts(0, 0, 0, 0), counts(500, 0, 4500, 0)}, delivery.VerdictSafe},
		{"not below it yet", []delivery.Sample{counts(0, 0, 0, 0), counts(250, 0, 2250, 0)}, delivery.VerdictUndecided},
		{"shown not to be worse by the margin", []delivery.Sample{counts(0, 0, 0, 0), counts(5000, 500, 5000, 500)}, delivery.VerdictSafe},
		{"hard stop", []delivery.Sample{counts(0, 0, 0, 0), counts(20, 11, 0, 0)}, delivery.VerdictHardStop},
		{"a counter began again", []delivery.Sample{counts(100, 50, 900, 0), counts(50, 40, 950, 0)}, delivery.VerdictUndecided},
		{"another epoch", []delivery.Sample{moved, counts(60, 30, 540, 0)}, delivery.VerdictUndecided},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := judge(s, tt.samples...); got.Verdict != tt.want {
				t.Errorf("got %s (%s, evidence %.2f), want %s", got.Verdict, got.Reason, got.Evidence, tt.want)
			}
		})
	}
}

func TestWarmupIsNotCounted(t *testing.T) {
	s := spec()
	s.Warmup = delivery.Duration(2 * time.Second)
	got := judge(s, counts(0, 0, 0, 0), counts(60, 60, 540, 0), counts(120, 60, 1080, 0))
	if got.Candidate.Errors != 0 || got.Verdict == delivery.VerdictHarm {
		t.Errorf("errors of the warm-up were counted: %+v", got)
	}
}

func TestBurstsAskForMoreEvidence(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates 300 rollouts")
	}
	rng := rand.New(rand.NewPCG(5, 6))
	aborted := 0
	const runs = 300
	for range runs {
		if v, _ := (rollout{rps: 100, stable: 0.01, ratio: 1, burst: 3}).run(rng, spec()); v == delivery.VerdictHarm {
			aborted++
		}
	}
	share := float64(aborted) / runs
	t.Logf("bursts of 3: false aborts %.1f %% of %d", 100*share, runs)
	if share > 0.25 { // 41 % without the guard (section 6.9): it halves that, and is what issue 7 has to better
		t.Errorf("false aborts %.3f with bursts, want at most 0.25", share)
	}
}

func BenchmarkLook(b *testing.B) {
	s := spec()
	state := Judge(s, nil, counts(0, 0, 0, 0))
	i := int64(0)
	for b.Loop() {
		i++
		x := counts(100*i, i, 900*i, 9*i)
		x.At = start.Add(time.Duration(i) * time.Second)
		state = Judge(s, state, x)
	}
}
