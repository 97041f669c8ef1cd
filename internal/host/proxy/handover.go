package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"golang.org/x/sys/unix"
)

// A handover is a POST /handover on the admin socket whose connection then
// speaks a small protocol of its own:
//
//	old → new   101, length (4 bytes, big endian), estate as JSON,
//	            then the sockets in batches, each with one byte: the admin
//	            socket first, then those of estate.Doors in their order
//	new → old   one byte, when it accepts requests on all of them
//	old → new   a progress as a JSON line every progressEvery until it ends
//
// Until the new one's byte both may accept; nothing is refused at any moment,
// since both hold the same sockets. Whichever of the two dies before the byte
// leaves the other serving.

// estateFormat is the version of the protocol.
const estateFormat = 1

const (
	handoverTimeout  = 10 * time.Second
	progressEvery    = 100 * time.Millisecond
	maxEstateBytes   = 256 << 20
	socketsPerBatch  = 200 // Linux takes at most 253 at once
	handoverUpgrade  = "tidegate-proxy-handover"
	handoverAccepted = 'k'
)

// estate is what a process gives to its successor, beside the sockets.
type estate struct {
	Format   int              `json:"format"`
	Epoch    string           `json:"epoch"`
	Dropped  int              `json:"dropped"`
	Config   Config           `json:"config"`
	Ports    []alloc          `json:"ports,omitempty"`
	Doors    []RouteID        `json:"doors,omitempty"`
	Unserved []unserved       `json:"unserved,omitempty"`
	Counters []tally          `json:"counters,omitempty"`
	InFlight map[string]int64 `json:"inFlight,omitempty"`

	conn      *net.UnixConn
	admin     *net.UnixListener
	listeners map[RouteID]*net.TCPListener
}

type unserved struct {
	ID       RouteID `json:"id"`
	Requests int64   `json:"requests"`
}

// progress is what a process that handed over still has under way.
type progress struct {
	InFlight map[string]int64 `json:"inFlight,omitempty"` // by backend
	Counters []tally          `json:"counters,omitempty"` // since the epoch
}

// postHandover gives everything to the caller, which must be a new proxy
// process, and makes this one leave.
func (s *server) postHandover(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.serves(); err != nil {
		s.refuse(w, err)
		return
	}
	if r.Header.Get("Upgrade") != handoverUpgrade {
		s.refuse(w, delivery.Errorf(delivery.CodeInvalid, "A handover is asked for by a new proxy process: start one on the same directory and socket."))
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.refuse(w, err)
		return
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return
	}
	if err := s.give(unixConn); err != nil {
		_ = conn.Close()
		s.log.Warn("A handover failed; this process goes on.", "error", err)
		return
	}
	s.leaving.Store(true)
	for _, route := range s.order {
		if route.door != nil {
			route.door.shut(time.Now())
			s.retired = append(s.retired, route.door)
		}
	}
	_ = s.socket.Close()
	s.successor = unixConn
	close(s.handed)
}

// give sends the estate and the sockets, and waits until the successor serves.
func (s *server) give(conn *net.UnixConn) error {
	if err := conn.SetDeadline(time.Now().Add(handoverTimeout)); err != nil {
		return err
	}
	e := estate{Format: estateFormat, Epoch: s.epoch, Dropped: s.dropped, Config: s.config, Counters: s.tallies(), InFlight: s.allUnderWay()}
	files := []syscall.Conn{s.socket}
	for _, r := range s.order {
		e.Unserved = append(e.Unserved, unserved{r.id, r.unserved.Load()})
		if address := s.ports[r.id]; address != "" {
			e.Ports = append(e.Ports, alloc{r.id, address})
		}
		if r.door != nil {
			e.Doors = append(e.Doors, r.id)
			files = append(files, r.door.listener)
		}
	}
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	head := []byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + handoverUpgrade + "\r\n\r\n")
	head = binary.BigEndian.AppendUint32(head, uint32(len(body)))
	if _, err := conn.Write(append(head, body...)); err != nil {
		return err
	}
	if err := sendSockets(conn, files); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("the successor did not take it: %w", err)
	}
	if answer[0] != handoverAccepted {
		return errors.New("the successor answered something else")
	}
	return nil
}

// sendSockets passes sockets on (SCM_RIGHTS). It duplicates them by hand:
// os.File would switch the shared socket to blocking.
func sendSockets(conn *net.UnixConn, files []syscall.Conn) (err error) {
	for len(files) > 0 {
		n := min(len(files), socketsPerBatch)
		var fds []int
		for _, f := range files[:n] {
			raw, e := f.SyscallConn()
			if e == nil {
				var dup int
				var dupErr error
				e = raw.Control(func(fd uintptr) { dup, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
				if e = errors.Join(e, dupErr); e == nil {
					fds = append(fds, dup)
				}
			}
			err = errors.Join(err, e)
		}
		if err == nil {
			_, _, err = conn.WriteMsgUnix([]byte{'s'}, unix.UnixRights(fds...), nil)
		}
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		if err != nil {
			return err
		}
		files = files[n:]
	}
	return nil
}

// errNobody means that no process serves the admin socket.
var errNobody = errors.New("nobody serves the socket")

// takeOver asks the process that serves socket for everything it has.
// [errNobody] means that there is none.
func takeOver(ctx context.Context, socket string) (*estate, error) {
	deadline := time.Now().Add(handoverTimeout)
	for {
		e, err := tryTakeOver(ctx, socket)
		if err == nil || errors.Is(err, errNobody) || delivery.ErrorCode(err) != delivery.CodeUnavailable || time.Now().After(deadline) {
			return e, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func tryTakeOver(ctx context.Context, socket string) (_ *estate, err error) {
	dialer := net.Dialer{Timeout: handoverTimeout}
	c, err := dialer.DialContext(ctx, "unix", socket)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil, errNobody
	}
	if err != nil {
		return nil, err
	}
	conn := c.(*net.UnixConn)
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(handoverTimeout)); err != nil {
		return nil, err
	}
	request := "POST /handover HTTP/1.1\r\nHost: proxy\r\nConnection: Upgrade\r\nUpgrade: " + handoverUpgrade + "\r\nContent-Length: 0\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The running proxy closed its admin socket.")
	}
	if err := readSwitch(conn); err != nil {
		return nil, err
	}
	return receive(conn)
}

// readSwitch reads the answer's head byte by byte: what follows it must stay in
// the socket, because the sockets to come are tied to their bytes.
func readSwitch(conn *net.UnixConn) error {
	var head []byte
	var b [1]byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		if len(head) > 16<<10 {
			return errors.New("the answer to a handover has no end")
		}
		if _, err := io.ReadFull(conn, b[:]); err != nil {
			return delivery.Wrap(delivery.CodeUnavailable, err, "The running proxy broke off the handover.")
		}
		head = append(head, b[0])
	}
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), nil)
	if err != nil {
		return err
	}
	if response.StatusCode == http.StatusServiceUnavailable {
		return delivery.Errorf(delivery.CodeUnavailable, "The running proxy is just handing over to another one.")
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("the running proxy refused the handover: %s", response.Status)
	}
	return nil
}

// receive reads the estate and its sockets.
func receive(conn *net.UnixConn) (_ *estate, err error) {
	var length [4]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(length[:])
	if size > maxEstateBytes {
		return nil, fmt.Errorf("the estate has %d bytes", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, err
	}
	e := &estate{conn: conn, listeners: map[RouteID]*net.TCPListener{}}
	if err := json.Unmarshal(body, e); err != nil {
		return nil, err
	}
	if e.Format != estateFormat {
		return nil, fmt.Errorf("the estate's format %d is not known", e.Format)
	}
	if err := e.Config.Check(); err != nil {
		return nil, err
	}
	listeners, err := receiveSockets(conn, len(e.Doors)+1)
	defer func() {
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	var ok bool
	if e.admin, ok = listeners[0].(*net.UnixListener); !ok {
		return nil, errors.New("the first socket is no Unix socket")
	}
	for i, id := range e.Doors {
		if e.listeners[id], ok = listeners[i+1].(*net.TCPListener); !ok {
			return nil, fmt.Errorf("the socket of %s is no TCP socket", id)
		}
	}
	return e, nil
}

// receiveSockets reads n listening sockets. What it has is returned with an
// error too, to be closed.
func receiveSockets(conn *net.UnixConn, n int) (listeners []net.Listener, err error) {
	oob := make([]byte, unix.CmsgSpace(socketsPerBatch*4))
	for len(listeners) < n {
		var b [1]byte
		_, oobn, flags, _, err := conn.ReadMsgUnix(b[:], oob)
		if err != nil {
			return listeners, err
		}
		if flags&unix.MSG_CTRUNC != 0 {
			return listeners, errors.New("sockets were lost on the way: is the limit of open files too low?")
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return listeners, err
		}
		before := len(listeners)
		for _, m := range messages {
			fds, err := unix.ParseUnixRights(&m)
			if err != nil {
				return listeners, err
			}
			for _, fd := range fds {
				unix.CloseOnExec(fd)
				f := os.NewFile(uintptr(fd), "inherited socket")
				l, err := net.FileListener(f)
				_ = f.Close()
				if err != nil {
					return listeners, err
				}
				listeners = append(listeners, l)
			}
		}
		if len(listeners) == before {
			return listeners, io.ErrUnexpectedEOF
		}
	}
	return listeners, nil
}

// inherit takes an estate: its counts go on, its sockets are served.
func (s *server) inherit(ctx context.Context, e *estate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch, s.dropped = e.Epoch, e.Dropped
	for _, p := range e.Ports {
		s.ports[p.ID] = p.Listen
	}
	for _, t := range e.Counters {
		c := s.counter(t.Key)
		c.epoch, c.release, c.version, c.gone = t.Epoch, t.Release, t.Version, t.Gone
		c.base.Store(&t)
	}
	s.earlier = e.InFlight
	s.apply(ctx, e.Config, e.listeners)
	for _, u := range e.Unserved {
		if r := s.routes[u.ID]; r != nil {
			r.unserved.Add(u.Requests)
		}
	}
}

// follow takes in what the predecessor still finishes, until it ends.
func (s *server) follow(conn *net.UnixConn) {
	defer conn.Close()
	decoder := json.NewDecoder(conn)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(handoverTimeout))
		var p progress
		if err := decoder.Decode(&p); err != nil {
			break
		}
		s.mu.Lock()
		s.earlier = p.InFlight
		for _, t := range p.Counters {
			if c := s.counters[t.Key]; c != nil && c.epoch == t.Epoch {
				c.base.Store(&t)
			}
		}
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.heir.Store(false)
	s.earlier = nil
	for _, c := range s.counters {
		if base := c.base.Load(); base != nil && base.InFlight != 0 {
			rest := *base
			rest.InFlight = 0
			c.base.Store(&rest)
		}
	}
}

// tell sends the successor what is still under way here.
func (s *server) tell() {
	if s.successor == nil {
		return
	}
	s.mu.Lock()
	p := progress{InFlight: s.allUnderWay(), Counters: s.tallies()}
	s.mu.Unlock()
	_ = s.successor.SetWriteDeadline(time.Now().Add(handoverTimeout))
	if err := json.NewEncoder(s.successor).Encode(p); err != nil {
		s.log.Warn("The successor no longer listens; requests that end from now on are not counted.", "error", err)
		_ = s.successor.Close()
		s.successor = nil
	}
}
