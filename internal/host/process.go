package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// markPrefix begins the environment variables by which the host knows its
// processes again, also one that was started just before the supervisor died.
const (
	markPrefix   = "TIDEGATE_"
	markInstance = markPrefix + "INSTANCE"
)

// processRecord names one process for ever: a process id is used again, the
// time at which it started in this boot of the machine is not.
type processRecord struct {
	PID   int       `json:"pid"`
	Start uint64    `json:"start"` // clock ticks since boot: field 22 of /proc/PID/stat
	Boot  string    `json:"boot"`  // id of the boot
	At    time.Time `json:"at"`    // when it was started or found
}

// process is a running program. The supervisor's own child tells how it ended;
// an adopted one only that it did.
type process struct {
	record processRecord
	exited chan struct{}    // closed at the end
	state  *os.ProcessState // valid after exited; nil for an adopted process
}

// ending says how p ended.
func (p *process) ending() string {
	if p.state == nil {
		return "it ended while it was not this supervisor's child, so its exit status is unknown"
	}
	return p.state.String()
}

// identify reads what names the process with that id now. Zombies are gone.
func identify(pid int, now time.Time) (processRecord, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return processRecord{}, false
	}
	// The second field, the name in parentheses, may hold anything.
	_, rest, ok := cutLast(string(stat), ")")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return processRecord{}, false
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return processRecord{}, false
	}
	return processRecord{PID: pid, Start: start, Boot: bootID(), At: now}, true
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // the start time alone still tells processes of one boot apart
	}
	return strings.TrimSpace(string(b))
}

// alive reports whether the process that r names still runs.
func (r processRecord) alive() bool {
	now, ok := identify(r.PID, r.At)
	return ok && now.Start == r.Start && now.Boot == r.Boot
}

// spec is a program to start.
type spec struct {
	program string
	args    []string
	dir     string
	env     []string
	output  string // file that standard output and error are appended to
	owner   *syscall.Credential
}

// start runs a program as the leader of its own process group. Its output goes
// to a file, not through the supervisor, so that it neither blocks nor dies
// when the supervisor does.
func start(s spec, now func() time.Time) (*process, error) {
	output, err := os.OpenFile(s.output, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	var cmd *exec.Cmd
	for try := 0; ; try++ {
		cmd = exec.Command(s.program, s.args...)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env, output, output
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.owner}
		err = cmd.Start()
		// A child forked elsewhere in this moment may still hold the program's
		// file open for writing (golang.org/issue/22315).
		if !errors.Is(err, syscall.ETXTBSY) || try == 20 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return nil, err
	}
	p := &process{exited: make(chan struct{})}
	record, ok := identify(cmd.Process.Pid, now())
	if !ok { // it has ended already; the record only has to name nothing else
		record = processRecord{PID: cmd.Process.Pid, Boot: bootID(), At: now()}
	}
	p.record = record
	// This goroutine lives as long as the program: somebody must reap it.
	go func() {
		_ = cmd.Wait() // what it says is in ProcessState
		p.state = cmd.ProcessState
		close(p.exited)
	}()
	return p, nil
}

// adopt watches a process that is not this supervisor's child until it ends or
// ctx does. It returns nil if the process does not run any more.
func adopt(ctx context.Context, r processRecord) *process {
	fd, err := unix.PidfdOpen(r.PID, 0)
	if err != nil && !errors.Is(err, unix.ENOSYS) {
		return nil
	}
	if !r.alive() { // asked after opening, so that the descriptor is of this very process
		if err == nil {
			unix.Close(fd)
		}
		return nil
	}
	p := &process{record: r, exited: make(chan struct{})}
	go func() {
		if err == nil {
			defer unix.Close(fd)
		}
		for ctx.Err() == nil {
			if err == nil {
				_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 500) // milliseconds
			} else {
				time.Sleep(200 * time.Millisecond)
			}
			if !r.alive() {
				close(p.exited)
				return
			}
		}
	}()
	return p
}

// signal sends a signal to the process group of r if its leader still runs.
func (r processRecord) signal(sig syscall.Signal) {
	if r.alive() {
		_ = syscall.Kill(-r.PID, sig) // it may end in this moment
	}
}

// marked returns the processes whose environment has the mark of an instance.
func marked(instance string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []int
	mark := []byte(markInstance + "=" + instance)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if slices.ContainsFunc(environment(pid), func(v []byte) bool { return bytes.Equal(v, mark) }) {
			found = append(found, pid)
		}
	}
	return found
}

// environment returns "NAME=value" of a process; none if it may not be read.
func environment(pid int) [][]byte {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return nil
	}
	return bytes.Split(b, []byte{0})
}

// find returns the leader among the processes of an instance: the one that was
// started while nobody could write down its process id.
func find(instance string, now time.Time) (processRecord, bool) {
	for _, pid := range marked(instance) {
		if group, err := syscall.Getpgid(pid); err == nil && group == pid {
			return identify(pid, now)
		}
	}
	return processRecord{}, false
}

// sweepMarked kills what an instance left behind after its leader ended.
func sweepMarked(instance string) {
	for _, pid := range marked(instance) {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		// Asked again after opening: the process id may have changed hands.
		mark := []byte(markInstance + "=" + instance)
		if slices.ContainsFunc(environment(pid), func(v []byte) bool { return bytes.Equal(v, mark) }) {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
	}
}

// terminate ends a process: SIGTERM to its group, SIGKILL after grace. It
// reports whether the process has ended; not so when ctx ended first.
func terminate(ctx context.Context, p *process, grace time.Duration) bool {
	p.record.signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.exited:
		return true
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	p.record.signal(syscall.SIGKILL)
	select {
	case <-p.exited:
		return true
	case <-ctx.Done():
		return false
	}
}
