package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidegate-cd/tidegate/internal/app"
	"github.com/tidegate-cd/tidegate/internal/client"
	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/host"
	"github.com/tidegate-cd/tidegate/internal/host/proxy"
)

// logger writes the process' log to its error output.
func (e *Env) logger(verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	if e.Output == outputJSON {
		return slog.New(slog.NewJSONHandler(e.Err, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(slog.NewTextHandler(e.Err, &slog.HandlerOptions{Level: level}))
}

func newServerCmd(env *Env) *cobra.Command {
	var o app.ServerOptions
	var verbose bool
	var local string
	cmd := &cobra.Command{
		Use: "server", Short: "Run a server (SQLite)", Args: cobra.NoArgs,
		Long: `Run a server. Its data is in --dir; at the first start an administrator's token
is written to the file admin.token there. It listens on loopback unless it has TLS.

With --local-host NAME it also starts a host on this machine, which is enough to
deliver to this machine.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := filepath.Abs(o.Dir)
			if err != nil {
				return delivery.Wrap(delivery.CodeInvalid, err, "The directory %s is not known.", o.Dir)
			}
			o.Dir, o.Log = dir, env.logger(verbose)
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			ended := make(chan struct{})
			close(ended)
			o.Started = func(a app.Addresses) {
				fmt.Fprintf(env.Out, "Tidegate answers at %s (hosts: %s).\nThe administrator's token is in %s.\n", a.API, a.Remote, filepath.Join(o.Dir, "admin.token"))
				if local != "" {
					ended = make(chan struct{})
					go func() { // ends with ctx, before RunE returns
						defer close(ended)
						env.localHost(ctx, o, a, local)
					}()
				}
			}
			err = app.RunServer(ctx, o)
			stop()
			<-ended
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", filepath.Join(defaultDir(), "server"), "data directory")
	f.StringVar(&o.Listen, "listen", app.DefaultListen, "address of the API")
	f.StringVar(&o.Remote, "remote-listen", app.DefaultRemote, "address for hosts (mutually authenticated TLS)")
	f.StringSliceVar(&o.RemoteNames, "remote-name", nil, "further name or address that hosts reach it under")
	f.StringVar(&o.CertFile, "tls-cert", "", "certificate of the API")
	f.StringVar(&o.KeyFile, "tls-key", "", "key of the API's certificate")
	f.BoolVar(&o.FetchPrivate, "fetch-private", false, "artifacts may be fetched from loopback and private addresses")
	f.StringVar(&local, "local-host", "", "also run a host of this name on this machine")
	f.BoolVarP(&verbose, "verbose", "v", false, "log more")
	return cmd
}

// localHost keeps a host process beside the server until ctx ends. The host is
// a process of its own, so that what it runs outlives the server.
func (e *Env) localHost(ctx context.Context, o app.ServerOptions, a app.Addresses, name string) {
	dir := filepath.Join(filepath.Dir(o.Dir), "host-"+name)
	for ctx.Err() == nil {
		token, err := enrolment(ctx, o.Dir, a.API, name)
		if err != nil {
			o.Log.Error("no enrolment token for the local host", "error", err)
			return
		}
		cmd, err := hostCommand(dir, a.Remote, name, token)
		if err == nil {
			cmd.Stdout, cmd.Stderr = e.Err, e.Err
			err = cmd.Start()
		}
		if err == nil {
			stopped := context.AfterFunc(ctx, func() { cmd.Process.Signal(syscall.SIGTERM) })
			err = cmd.Wait()
			stopped()
		}
		if ctx.Err() == nil {
			o.Log.Error("the local host ended; it is started again", "error", err)
			wait(ctx, time.Second)
		}
	}
}

// enrolment makes an enrolment token with the administrator's token of a server on this machine.
func enrolment(ctx context.Context, serverDir, api, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(serverDir, "admin.token"))
	if err != nil {
		return "", err
	}
	c, err := client.New(client.Options{Address: api, Token: strings.TrimSpace(string(b))})
	if err != nil {
		return "", err
	}
	t, err := c.CreateEnrolment(ctx, wire.NewEnrolment{Host: name})
	return t.Secret, err
}

// hostCommand is the command line of a host; the token travels in the environment.
func hostCommand(dir, remote, name, token string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "host", "--dir", dir, "--connect", remote, "--name", name)
	cmd.Env = append(os.Environ(), "TIDEGATE_ENROL="+token)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func newHostCmd(env *Env) *cobra.Command {
	var o host.Options
	var verbose bool
	cmd := &cobra.Command{
		Use: "host", Short: "Run this machine as a host: a supervisor and a proxy", Args: cobra.NoArgs,
		Long: `Run this machine as a host. It dials out to a server, which must have made an
enrolment token for it ('tidegate token enrol NAME'); give that once with --enrol
or in TIDEGATE_ENROL. When the host or its server dies, what it runs goes on.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return delivery.Wrap(delivery.CodeInternal, err, "The program's own path is not known.")
			}
			if o.Token == "" {
				o.Token = os.Getenv("TIDEGATE_ENROL")
			}
			os.Unsetenv("TIDEGATE_ENROL") // nothing that runs here needs it
			o.Log = env.logger(verbose)
			if o.Dir, err = filepath.Abs(o.Dir); err != nil {
				return delivery.Wrap(delivery.CodeInvalid, err, "The directory %s is not known.", o.Dir)
			}
			o.ProxyCommand = []string{self, "host", "proxy", "--dir", o.Dir}
			return host.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", filepath.Join(defaultDir(), "host"), "data directory")
	f.StringVar(&o.Server, "connect", "https://"+app.DefaultRemote, "the server's address for hosts")
	f.StringVar(&o.Name, "name", "local", "name of the host; environments name it as their target")
	f.StringVar(&o.Token, "enrol", "", "enrolment token, needed once (default $TIDEGATE_ENROL)")
	f.StringVar(&o.User, "user", "", "system user that releases run as when the host is root (default nobody)")
	f.BoolVarP(&verbose, "verbose", "v", false, "log more")
	cmd.AddCommand(newHostProxyCmd(env))
	return cmd
}

func newHostProxyCmd(env *Env) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "proxy", Short: "Run a host's proxy (the supervisor starts it)", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return proxy.Run(cmd.Context(), proxy.Options{Dir: host.ProxyDir(dir), Socket: host.ProxySocket(dir), Log: env.logger(false)})
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "data directory of the host")
	return cmd
}

func newVersionCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Say which program this is", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := app.Version()
			return env.print(v, func(w io.Writer) { fmt.Fprintf(w, "tidegate %s %s %s\n", v.Version, v.Commit, v.Go) })
		},
	}
}
