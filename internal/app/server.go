// Package app wires one process together: which store, which front door, which
// listeners, in which order they start and stop. Every part that lives long has
// Run(ctx) and is owned here.
//
// Start reading at [RunServer].
package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"
	_ "time/tzdata" // calendars name zones, also where the machine has no database of them

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tidegate-cd/tidegate/internal/api"
	"github.com/tidegate-cd/tidegate/internal/artifact"
	"github.com/tidegate-cd/tidegate/internal/audit"
	"github.com/tidegate-cd/tidegate/internal/auth"
	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/config"
	"github.com/tidegate-cd/tidegate/internal/control"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/facts"
	"github.com/tidegate-cd/tidegate/internal/policy"
	"github.com/tidegate-cd/tidegate/internal/remote"
	"github.com/tidegate-cd/tidegate/internal/runner"
	"github.com/tidegate-cd/tidegate/internal/store"
)

// The addresses that a server listens on unless told otherwise.
const (
	DefaultListen = "127.0.0.1:7420" // API
	DefaultRemote = "127.0.0.1:7421" // hosts, mutually authenticated TLS
)

// stopTime is how long requests under way may take when the server stops.
const stopTime = 10 * time.Second

// ServerOptions says how a server runs. Dir is required.
type ServerOptions struct {
	Dir               string // data directory, made if missing
	Listen            string
	Remote            string
	RemoteNames       []string // further names and addresses that hosts reach Remote under
	CertFile, KeyFile string   // TLS of Listen; required unless it is loopback
	FetchPrivate      bool     // artifacts may come from loopback and private addresses
	Log               *slog.Logger
	Started           func(Addresses) // called once, when it answers
}

// Addresses are where a server answers.
type Addresses struct{ API, Remote string }

// NewID makes a UUIDv7.
func NewID() delivery.ID {
	id, err := uuid.NewV7()
	if err != nil {
		panic(fmt.Sprintf("app: no randomness: %v", err)) // crypto/rand does not fail
	}
	return delivery.ID(id.String())
}

// RunServer runs a server until ctx ends. It returns an error when it can't
// start, or when a part of it failed.
func RunServer(ctx context.Context, o ServerOptions) error {
	s, err := newServer(ctx, o)
	if err != nil {
		return err
	}
	defer s.close()
	return s.run(ctx)
}

type server struct {
	o       ServerOptions
	root    *os.Root
	store   store.Store
	files   *artifact.Store
	runner  *runner.Runner
	api     *api.API
	remote  *remote.Server
	apiAt   net.Listener
	hostsAt net.Listener
}

func newServer(ctx context.Context, o ServerOptions) (_ *server, err error) {
	s := &server{o: o}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The data directory %s can't be made: %v.", o.Dir, err)
	}
	if s.root, err = os.OpenRoot(o.Dir); err != nil {
		return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The data directory %s can't be opened: %v.", o.Dir, err)
	}
	if s.store, err = store.OpenSQLite(ctx, filepath.Join(o.Dir, "tidegate.db"), store.Options{}); err != nil {
		return nil, err
	}
	if s.files, err = artifact.Open(filepath.Join(o.Dir, "artifacts")); err != nil {
		return nil, err
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	return s, s.wire(ctx)
}

// listen opens the listeners; one that is not loopback needs TLS.
func (s *server) listen() (err error) {
	host, _, err := net.SplitHostPort(s.o.Listen)
	if err != nil {
		return delivery.Wrap(delivery.CodeInvalid, err, "--listen %q is not host:port.", s.o.Listen)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) && s.o.CertFile == "" {
		return delivery.Errorf(delivery.CodeInvalid, "--listen %s is not loopback and there is no TLS: add --tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy.", s.o.Listen)
	}
	if s.apiAt, err = net.Listen("tcp", s.o.Listen); err != nil {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The server can't listen on %s: %v.", s.o.Listen, err)
	}
	if s.hostsAt, err = net.Listen("tcp", s.o.Remote); err != nil {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The server can't listen on %s: %v.", s.o.Remote, err)
	}
	return nil
}

// wire makes the parts and gives them to each other.
func (s *server) wire(ctx context.Context) error {
	key, err := audit.OpenKey(s.root, "", nil)
	if err != nil {
		return err
	}
	tokens := &auth.Tokens{Store: s.store, NewID: NewID}
	if err := tokens.EnsureAdministrator(ctx, s.root); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(s.hostsAt.Addr().String())
	if err != nil {
		return delivery.Wrap(delivery.CodeInternal, err, "The listener for hosts has no address.")
	}
	s.remote, err = remote.NewServer(remote.ServerOptions{
		Backend: remote.NewStoreBackend(remote.StoreBackendOptions{Store: s.store, Artifacts: s.files, NewID: NewID}),
		Dir:     filepath.Join(s.o.Dir, "authority"), Hosts: append([]string{host, "localhost", "127.0.0.1"}, s.o.RemoteNames...), Log: s.o.Log,
	})
	if err != nil {
		return err
	}
	f := facts.New(facts.Options{Store: s.store, NewID: NewID})
	s.runner = runner.New(runner.Options{Store: s.store, Facts: f, Calls: runner.NewHTTPCaller(), Holder: string(NewID()), NewID: NewID, Log: s.o.Log})
	front := control.New(control.Options{
		Store: s.store, Facts: f, Artifacts: artifacts{s.files, s.o.FetchPrivate}, Audit: audit.NewLog(s.store, key),
		Hosts: s.remote, Tokens: tokens, Parse: Parse, NewID: NewID, Log: s.o.Log,
	})
	s.api = api.New(api.Options{Control: front, Memory: s.store, Version: Version(), Log: s.o.Log})
	now, err := s.store.Now(ctx)
	if err != nil {
		return err
	}
	_, err = s.store.Commit(ctx, store.Change{Events: []delivery.Event{{
		ID: NewID(), Type: delivery.EventServerStarted, Project: delivery.DefaultProject, Actor: delivery.System(), At: now,
		Message: "The server started (" + Version().Version + ").",
	}}})
	return err
}

// run serves until ctx ends, then lets requests and turns under way finish.
func (s *server) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	front := &http.Server{Handler: s.api, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, BaseContext: func(net.Listener) context.Context { return ctx }}
	hosts := &http.Server{Handler: s.remote, TLSConfig: s.remote.TLSConfig(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return ctx }}
	group.Go(func() error { return s.runner.Run(ctx) })
	group.Go(func() error {
		if s.o.CertFile != "" {
			return closed(front.ServeTLS(s.apiAt, s.o.CertFile, s.o.KeyFile))
		}
		return closed(front.Serve(s.apiAt))
	})
	group.Go(func() error { return closed(hosts.Serve(tls.NewListener(s.hostsAt, hosts.TLSConfig))) })
	group.Go(func() error {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		return errors.Join(front.Shutdown(last), hosts.Shutdown(last))
	})
	if s.o.Started != nil {
		scheme := "http://"
		if s.o.CertFile != "" {
			scheme = "https://"
		}
		s.o.Started(Addresses{API: scheme + s.apiAt.Addr().String(), Remote: "https://" + s.hostsAt.Addr().String()})
	}
	return group.Wait()
}

func closed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *server) close() {
	for _, l := range []net.Listener{s.apiAt, s.hostsAt} {
		if l != nil {
			l.Close() // closed already after an orderly end
		}
	}
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.o.Log.Error("the store did not close well", "error", err)
		}
	}
	if s.files != nil {
		s.files.Close()
	}
	if s.root != nil {
		s.root.Close()
	}
}

// artifacts says from where artifacts may be fetched.
type artifacts struct {
	*artifact.Store
	private bool
}

// Fetch stores what a URL has.
func (a artifacts) Fetch(ctx context.Context, url string, want delivery.Digest) (delivery.Artifact, error) {
	return a.Store.Fetch(ctx, url, want, artifact.FetchOptions{AllowPrivate: a.private})
}

// Parse checks documents, policies included, and returns the objects they are.
func Parse(ctx context.Context, files []control.File, exists func(delivery.Kind, string, string) bool) ([]delivery.Object, error) {
	var in []config.File
	for _, f := range files {
		in = append(in, config.File{Name: f.Name, Content: f.Content})
	}
	known := config.Known{
		Environment: func(project, name string) bool { return exists(delivery.KindEnvironment, project, name) },
		Calendar:    func(project, name string) bool { return exists(delivery.KindCalendar, project, name) },
	}
	set, err := config.Parse(in, known)
	if err != nil {
		return nil, err
	}
	for _, d := range set.Documents {
		if s, ok := d.Spec.(delivery.PolicySet); ok {
			if err := policy.Check(ctx, d.Name, s.Modules); err != nil {
				return nil, err
			}
		}
	}
	return set.Objects()
}

// Version says which program this is.
func Version() wire.Version {
	v := wire.Version{Version: "development", Go: runtime.Version(), API: "v1"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Commit = s.Value
		}
	}
	return v
}
