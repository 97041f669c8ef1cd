package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// way is one way to the backend.
type way struct {
	name, address string
	pid           int // of its main process, 0 for none
}

// result is what one round saw.
type result struct {
	latencies []time.Duration // sorted
	failed    int
	late      time.Duration // p99 of how late the load itself was: what it cannot see below
}

type sample struct {
	result
	cpu time.Duration
}

// measure sends f.rate requests per second for a time, each at its own instant
// whatever became of those before (an open loop). Requests that find no free
// connection wait, and the wait counts.
func measure(ctx context.Context, address string, f flags, length time.Duration) (result, error) {
	total := int(float64(f.rate) * length.Seconds())
	due := make(chan time.Time, total)
	latencies := make([][]time.Duration, f.conns)
	failed := make([]int, f.conns)
	var workers sync.WaitGroup
	for i := range f.conns {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			close(due)
			return result{}, err
		}
		workers.Go(func() {
			defer conn.Close()
			request := request(address, f.body)
			reader := bufio.NewReaderSize(conn, 32<<10)
			for at := range due {
				if err := exchange(conn, reader, request); err != nil {
					failed[i]++
					continue
				}
				latencies[i] = append(latencies[i], time.Since(at))
			}
		})
	}
	// Go's timers have a resolution of a millisecond on an idle Linux thread, and
	// a load that comes in bursts of milliseconds measures itself: sleep in the
	// kernel instead, on a thread of its own.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	late := make([]time.Duration, 0, total)
	start := time.Now().Add(10 * time.Millisecond)
	for n := range total {
		at := start.Add(time.Duration(float64(n) / float64(f.rate) * float64(time.Second)))
		if wait := time.Until(at); wait > 0 {
			rest := unix.NsecToTimespec(int64(wait))
			_ = unix.Nanosleep(&rest, nil) // cut short by a signal: a little early
		}
		if ctx.Err() != nil {
			break
		}
		late = append(late, time.Since(at))
		due <- at
	}
	close(due)
	workers.Wait()
	slices.Sort(late)
	r := result{latencies: slices.Concat(latencies...), late: quantile(late, .99)}
	slices.Sort(r.latencies)
	for _, n := range failed {
		r.failed += n
	}
	return r, ctx.Err()
}

// request returns the bytes of one request.
func request(address string, body int) []byte {
	method, length := "GET", ""
	if body > 0 {
		method, length = "POST", fmt.Sprintf("Content-Length: %d\r\n", body)
	}
	return fmt.Appendf(nil, "%s /some/path?with=a&query=string HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n%s\r\n%s",
		method, address, length, strings.Repeat("x", body))
}

// exchange sends one request and reads its answer of known length.
func exchange(conn net.Conn, reader *bufio.Reader, request []byte) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	length := -1
	for first := true; ; first = false {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		text := strings.TrimRight(string(line), "\r\n")
		if first && !strings.Contains(text, " 200 ") {
			return fmt.Errorf("answer: %s", text)
		}
		if text == "" {
			break
		}
		if name, value, _ := strings.Cut(text, ":"); strings.EqualFold(name, "Content-Length") {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return fmt.Errorf("answer without length")
	}
	_, err := io.CopyN(io.Discard, reader, int64(length))
	return err
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// cpu returns the processor time that a way's processes have used (Linux).
func (w way) cpu() time.Duration {
	if w.pid == 0 {
		return 0
	}
	pids := []string{strconv.Itoa(w.pid)}
	if children, err := os.ReadFile(filepath.Join("/proc", pids[0], "task", pids[0], "children")); err == nil {
		pids = append(pids, strings.Fields(string(children))...)
	}
	var ticks int64
	for _, pid := range pids {
		b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		if fields := strings.Fields(rest); len(fields) > 12 {
			user, _ := strconv.ParseInt(fields[11], 10, 64)
			system, _ := strconv.ParseInt(fields[12], 10, 64)
			ticks += user + system
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// report prints each way's figures: of all rounds together, and the median
// over the rounds of the p99, which one busy moment of the machine cannot move.
func report(ways []way, results [][]sample) {
	fmt.Printf("%-9s %10s %8s %10s %10s %10s %14s %12s %12s\n", "way", "requests", "failed", "p50", "p99", "p99.9", "median p99", "cpu/request", "load late")
	median := map[string]time.Duration{}
	pooled := map[string][]time.Duration{}
	for i, w := range ways {
		var all, p99s, late []time.Duration
		var cpu time.Duration
		failed := 0
		for _, s := range results[i] {
			all = append(all, s.latencies...)
			p99s = append(p99s, quantile(s.latencies, .99))
			late = append(late, s.late)
			failed += s.failed
			cpu += s.cpu
		}
		slices.Sort(all)
		slices.Sort(p99s)
		slices.Sort(late)
		median[w.name], pooled[w.name] = quantile(p99s, .5), all
		fmt.Printf("%-9s %10d %8d %10s %10s %10s %14s %12s %12s\n", w.name, len(all), failed,
			micro(quantile(all, .5)), micro(quantile(all, .99)), micro(quantile(all, .999)), micro(median[w.name]),
			micro(cpu/time.Duration(max(1, len(all)))), micro(quantile(late, .5)))
	}
	fmt.Println()
	for _, other := range []string{"direct", "nginx"} {
		if a, b := pooled["tidegate"], pooled[other]; len(a) > 0 && len(b) > 0 {
			fmt.Printf("tidegate / %-7s p50 %.2f  p99 %.2f  p99.9 %.2f  median p99 %.2f\n", other,
				ratio(a, b, .5), ratio(a, b, .99), ratio(a, b, .999), float64(median["tidegate"])/float64(median[other]))
		}
	}
}

func micro(d time.Duration) string { return fmt.Sprintf("%dµs", d.Microseconds()) }

func ratio(a, b []time.Duration, q float64) float64 {
	return float64(quantile(a, q)) / float64(quantile(b, q))
}
