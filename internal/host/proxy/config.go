package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Limits of a configuration, so that a mistake of the supervisor cannot make
// the proxy use up the machine.
const (
	maxConfigBytes = 16 << 20
	maxRoutes      = 2000
	maxGroups      = 64
	maxBackends    = 1000
	maxText        = 256
)

// Config is the whole of what a proxy shall serve. It replaces the one before;
// a route that is missing from it is closed after its requests under way.
type Config struct {
	Revision int64   `json:"revision"` // the supervisor's own number for it, given back in [Status]
	Routes   []Route `json:"routes"`
}

// RouteID names a route: one service of one placement.
type RouteID struct {
	Placement delivery.PlacementKey `json:"placement"`
	Service   string                `json:"service"`
}

// String returns "project/application@environment/service".
func (id RouteID) String() string { return id.Placement.String() + "/" + id.Service }

// Route is one service's door: where its requests come in and which workloads
// share them.
type Route struct {
	ID     RouteID `json:"id"`
	Listen string  `json:"listen,omitempty"` // host:port; "" or port 0: a port that the proxy allots and keeps (see [RouteStatus.Listen]); "" is on 127.0.0.1
	Groups []Group `json:"groups,omitempty"` // none, or all at 0 percent: every request is answered with 503
}

// Group is one workload's part of a route. The percents of a route's groups
// add up to 100, or all are 0.
type Group struct {
	Workload delivery.Digest `json:"workload"`
	Release  delivery.Digest `json:"release"`
	Version  string          `json:"version"`
	Percent  int             `json:"percent"`            // 0 to 100; 0 gets no new request
	Backends []Backend       `json:"backends,omitempty"` // only the ready ones
}

// Backend is one instance that answers requests.
type Backend struct {
	ID      string `json:"id"`      // unique in the configuration; never used again for another process
	Address string `json:"address"` // host:port
}

// DecodeConfig reads a configuration and checks it. Unknown fields and
// anything after the document are refused; every refusal is an error of
// [delivery.CodeInvalid] with a sentence that says what to change.
func DecodeConfig(r io.Reader) (Config, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxConfigBytes+1))
	if err != nil {
		return Config{}, delivery.Wrap(delivery.CodeInvalid, err, "The proxy's configuration could not be read to its end: send it again.")
	}
	if len(body) > maxConfigBytes {
		return Config{}, delivery.Errorf(delivery.CodeInvalid, "The proxy's configuration is larger than %d MiB: give it fewer routes or backends.", maxConfigBytes>>20)
	}
	var c Config
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil {
		return Config{}, delivery.Wrap(delivery.CodeInvalid, err, "The proxy's configuration is not the JSON document that is expected (%s): send a proxy.Config.", decodeReason(err))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Config{}, delivery.Errorf(delivery.CodeInvalid, "The proxy's configuration has more after its end: send one JSON document.")
	}
	if err := c.Check(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// decodeReason says in a few words what the decoder stumbled over.
func decodeReason(err error) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("%s is a %s, not a %s", e.Field, e.Value, e.Type)
	}
	if errors.Is(err, io.EOF) {
		return "it is empty"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// Check returns an error of [delivery.CodeInvalid] that names the first thing
// that is wrong with c. It does not look whether an address is free.
func (c Config) Check() error {
	if len(c.Routes) > maxRoutes {
		return delivery.Errorf(delivery.CodeInvalid, "The proxy's configuration has %d routes: at most %d are possible.", len(c.Routes), maxRoutes)
	}
	routes, backends := map[RouteID]bool{}, map[string]bool{}
	for i, r := range c.Routes {
		if err := r.check(backends); err != nil {
			return err
		}
		if routes[r.ID] {
			return delivery.Errorf(delivery.CodeInvalid, "Route %d of the proxy's configuration, %s, is there twice: give each service one route.", i+1, r.ID)
		}
		routes[r.ID] = true
	}
	return nil
}

func (r Route) check(backends map[string]bool) error {
	for _, part := range []struct{ what, name string }{
		{"project", r.ID.Placement.Project}, {"application", r.ID.Placement.Application},
		{"environment", r.ID.Placement.Environment}, {"service", r.ID.Service},
	} {
		if err := delivery.CheckName(part.what, part.name); err != nil {
			return err
		}
	}
	if r.Listen != "" {
		if err := checkAddress(r.Listen, true); err != nil {
			return delivery.Errorf(delivery.CodeInvalid, "Route %s cannot listen on %q (%w): write host:port, or leave it empty for a port that is allotted.", r.ID, r.Listen, err)
		}
	}
	if len(r.Groups) > maxGroups {
		return delivery.Errorf(delivery.CodeInvalid, "Route %s has %d workloads: at most %d are possible.", r.ID, len(r.Groups), maxGroups)
	}
	sum, workloads := 0, map[delivery.Digest]bool{}
	for _, g := range r.Groups {
		if workloads[g.Workload] {
			return delivery.Errorf(delivery.CodeInvalid, "Route %s has workload %s twice: give each workload one group.", r.ID, g.Workload.Short())
		}
		workloads[g.Workload] = true
		if err := g.check(r.ID, backends); err != nil {
			return err
		}
		sum += g.Percent
	}
	if sum != 0 && sum != 100 {
		return delivery.Errorf(delivery.CodeInvalid, "The percents of route %s add up to %d: they must add up to 100, or all be 0.", r.ID, sum)
	}
	return nil
}

func (g Group) check(id RouteID, backends map[string]bool) error {
	switch {
	case !g.Workload.Valid():
		return delivery.Errorf(delivery.CodeInvalid, "Route %s has a group whose workload %.80q is not a digest: write sha256: and 64 hexadecimal digits.", id, g.Workload)
	case g.Release != "" && !g.Release.Valid():
		return delivery.Errorf(delivery.CodeInvalid, "Route %s has a group whose release %.80q is not a digest: write sha256: and 64 hexadecimal digits.", id, g.Release)
	case len(g.Version) > maxText:
		return delivery.Errorf(delivery.CodeInvalid, "Route %s has a version of %d bytes: at most %d are possible.", id, len(g.Version), maxText)
	case g.Percent < 0 || g.Percent > 100:
		return delivery.Errorf(delivery.CodeInvalid, "Route %s gives workload %s %d percent: use 0 to 100.", id, g.Workload.Short(), g.Percent)
	case len(g.Backends) > maxBackends:
		return delivery.Errorf(delivery.CodeInvalid, "Route %s has %d backends for workload %s: at most %d are possible.", id, len(g.Backends), g.Workload.Short(), maxBackends)
	}
	for _, b := range g.Backends {
		if b.ID == "" || len(b.ID) > maxText {
			return delivery.Errorf(delivery.CodeInvalid, "Route %s has a backend with the id %.80q: use 1 to %d bytes.", id, b.ID, maxText)
		}
		if backends[b.ID] {
			return delivery.Errorf(delivery.CodeInvalid, "Backend %q is there twice: give each instance its own id.", b.ID)
		}
		backends[b.ID] = true
		if err := checkAddress(b.Address, false); err != nil {
			return delivery.Errorf(delivery.CodeInvalid, "Backend %q of route %s has the address %q (%w): write host:port.", b.ID, id, b.Address, err)
		}
	}
	return nil
}

// checkAddress refuses what is not host:port. Only a listen address may leave
// out the host (all interfaces) or have port 0 (allotted).
func checkAddress(address string, listen bool) error {
	if len(address) > maxText {
		return errors.New("too long")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("not host:port")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return errors.New("the port is not a number from 1 to 65535")
	}
	if listen {
		return nil
	}
	if n == 0 {
		return errors.New("the port is 0")
	}
	if host == "" || strings.ContainsAny(host, "/\\@?# \t\r\n%") {
		return errors.New("the host is not a name or an address")
	}
	return nil
}
