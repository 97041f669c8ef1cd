package proxy

import (
	"bytes"
	"encoding/json"
	"testing"

	"pgregory.net/rapid"
)

// drawPercents draws 1 to 6 percents that add up to 100.
func drawPercents(t *rapid.T) []int {
	n := rapid.IntRange(1, 6).Draw(t, "groups")
	percents, left := make([]int, n), slots
	for i := range n - 1 {
		percents[i] = rapid.IntRange(0, left).Draw(t, "percent")
		left -= percents[i]
	}
	percents[n-1] = left
	return percents
}

func TestEveryHundredRequestsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		percents := drawPercents(t)
		turn := schedule(percents)
		if turn == nil {
			t.Fatalf("no schedule for %v", percents)
		}
		start := rapid.IntRange(0, 99).Draw(t, "start")
		got := make([]int, len(percents))
		for i := range slots { // any 100 in a row, not only the first
			got[turn[(start+i)%slots]]++
		}
		for i := range percents {
			if got[i] != percents[i] {
				t.Fatalf("%v from %d: got %v", percents, start, got)
			}
		}
		// Smooth: a share of p percent never waits much longer than 100/p requests.
		for i, p := range percents {
			if p == 0 {
				continue
			}
			gap, longest := 0, 0
			for j := range 2 * slots {
				if gap++; int(turn[j%slots]) == i {
					longest, gap = max(longest, gap), 0
				}
			}
			if limit := 2*(slots+p-1)/p + len(percents); longest > limit {
				t.Fatalf("%v: group %d waits for %d requests, want at most %d", percents, i, longest, limit)
			}
		}
	})
}

func TestScheduleNeedsAHundred(t *testing.T) {
	for _, percents := range [][]int{nil, {0}, {0, 0}, {99}} {
		if schedule(percents) != nil {
			t.Errorf("%v has a schedule", percents)
		}
	}
}

func TestChooseNeverTakesAGroupAtZero(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var groups []*group
		ready := false
		for _, p := range drawPercents(t) {
			g := &group{counter: &counter{}, percent: p}
			for range rapid.IntRange(0, 3).Draw(t, "backends") {
				b := &backend{}
				b.down.Store(rapid.Int64Range(0, 2).Draw(t, "down"))
				g.backends = append(g.backends, b)
			}
			ready = ready || p > 0 && len(g.backends) > 0
			groups = append(groups, g)
		}
		table := newTable(groups, nil)
		for n := range uint64(slots) {
			meant, taker, b := table.choose(n, 1)
			if meant == nil || meant.percent == 0 {
				t.Fatalf("request %d is meant for %+v", n, meant)
			}
			if (b != nil) != ready {
				t.Fatalf("request %d: backend %v, though ready is %v", n, b, ready)
			}
			if b != nil && (taker.percent == 0 || len(meant.backends) > 0 && taker != meant) {
				t.Fatalf("request %d is taken by %+v, meant for %+v", n, taker, meant)
			}
		}
	})
}

func TestCursorGoesOnOverAChangeOfBackends(t *testing.T) {
	make2 := func(a, b int) []*group {
		one, two := &group{counter: &counter{}, percent: a}, &group{counter: &counter{}, percent: b}
		one.counter.key.Workload, two.counter.key.Workload = digest("one"), digest("two")
		return []*group{one, two}
	}
	first := newTable(make2(30, 70), nil)
	if newTable(make2(30, 70), first).cursor != first.cursor {
		t.Error("the same weights begin a new turn")
	}
	if newTable(make2(31, 69), first).cursor == first.cursor {
		t.Error("other weights go on in the old turn")
	}
}

func TestBucket(t *testing.T) {
	for _, test := range []struct {
		nanos int64
		want  int
	}{{0, 0}, {500_000, 0}, {500_001, 1}, {60e9, len(latencyBounds) - 1}, {60e9 + 1, len(latencyBounds)}} {
		if got := bucket(test.nanos); got != test.want {
			t.Errorf("bucket(%d) = %d, want %d", test.nanos, got, test.want)
		}
	}
}

func FuzzDecodeConfig(f *testing.F) {
	whole, err := json.Marshal(Config{Revision: 3, Routes: []Route{{ID: web, Listen: "127.0.0.1:0", Groups: []Group{{Workload: digest("w"), Release: digest("r"), Version: "1", Percent: 100, Backends: []Backend{{"a", "127.0.0.1:80"}}}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"revision":1,"routes":[{"id":{"placement":{"project":"p","application":"a","environment":"e"},"service":"s"}}]}`))
	f.Add([]byte(`{"routes":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := DecodeConfig(bytes.NewReader(body))
		if err != nil {
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeConfig(bytes.NewReader(again)); err != nil {
			t.Fatalf("what was accepted is refused when it is written again: %v\n%s", err, again)
		}
		for _, r := range c.Routes { // whatever was accepted can be served
			groups := make([]*group, len(r.Groups))
			for i, g := range r.Groups {
				groups[i] = &group{counter: &counter{}, percent: g.Percent}
			}
			newTable(groups, nil).choose(99, 0)
		}
	})
}

func FuzzDecodeSaved(f *testing.F) {
	f.Add([]byte(`{"format":1,"config":{"revision":1,"routes":[]},"ports":[{"id":{},"listen":"127.0.0.1:80"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := decodeSaved(body)
		if err == nil && s.Config.Check() != nil {
			t.Fatal("a saved configuration that is not valid was accepted")
		}
	})
}
