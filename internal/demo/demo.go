// Package demo is the guided run of the main job: a real server, a real host
// and a small real web application, carried through dev, staging and production
// under policy while requests come in. It does nothing that a user could not do
// with the command line, and it stages nothing: outcomes come from the engine,
// percentages from the proxy's counters.
//
// Start reading at [Run].
package demo

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/tidegate-cd/tidegate/internal/audit"
	"github.com/tidegate-cd/tidegate/internal/client"
	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Options says how the demo runs. The fields after Out are inputs that a test
// changes to see the outcome change.
type Options struct {
	Self string    // the tidegate program
	Dir  string    // of everything that the demo makes; "": a temporary one
	Once bool      // end at the end, instead of staying up
	JSON bool      // events as JSON lines and one object at the end
	Out  io.Writer // where it shows what happens

	Errors3   float64 // percent of release 3's requests that fail; default 5
	Healthy3  bool    // release 3 fails nothing
	Within4   bool    // release 4 meets the policy
	Unasked   bool    // nobody approves release 2
	Tamper    bool    // one byte of the audit log's export is changed
	PartsOnly int     // stop after so many parts; 0: all
}

// Result is what came of it: the last line of the JSON output.
type Result struct {
	Deployments []Deployment `json:"deployments"`
	Requests    Requests     `json:"requests"`
	Audit       Audit        `json:"audit"`
	DurationMS  int64        `json:"duration_ms"`
}

// Deployment is one deployment's end.
type Deployment struct {
	Release     string `json:"release"`
	Environment string `json:"environment"`
	Outcome     string `json:"outcome"`
	Reason      string `json:"reason"`
	MaxWeight   int    `json:"max_weight"`
	DurationMS  int64  `json:"duration_ms"`
}

// Requests are the production requests that the demo made.
type Requests struct {
	Total                  int64 `json:"total"`
	Failed                 int64 `json:"failed"`
	FailedOutsideCandidate int64 `json:"failed_outside_candidate"` // not answered by a release that was being tried
}

// Audit is what verifying the export said.
type Audit struct {
	Entries  int64 `json:"entries"`
	Verified bool  `json:"verified"`
}

const (
	project     = delivery.DefaultProject
	application = "shop"
	production  = delivery.EnvironmentProduction
)

// patience is how long the demo waits for anything.
const patience = 45 * time.Second

type demo struct {
	o      Options
	site   *site
	admin  *client.Client
	ana    *client.Client // deploys
	ben    *client.Client // approves
	load   *load
	result Result
}

// Run runs the demo. The error is that of a step which could not be done; an
// outcome that differs from the usual is none.
func Run(ctx context.Context, o Options) (Result, error) {
	begin := time.Now()
	d := &demo{o: o}
	s, err := newSite(ctx, o, d.say)
	if err != nil {
		return d.result, err
	}
	d.site = s
	defer s.close()
	if err := d.start(ctx); err != nil {
		return d.result, err
	}
	for i, part := range []func(context.Context) error{d.first, d.canary, d.harm, d.policy, d.audit} {
		if o.PartsOnly > 0 && i >= o.PartsOnly {
			break
		}
		if err := part(ctx); err != nil {
			return d.result, err
		}
	}
	d.load.stop()
	d.result.Requests = d.load.requests()
	d.result.DurationMS = time.Since(begin).Milliseconds()
	err = d.collect(ctx)
	if err == nil {
		d.finish()
	}
	if err == nil && !o.Once {
		d.say("\nIt stays up: tidegate --server %s --token $(cat %s) status shop\nProduction answers at %s. Ctrl-C ends it.", s.api, filepath.Join(s.dir, "server", "admin.token"), d.load.url)
		<-ctx.Done()
	}
	return d.result, err
}

// say shows a line to a person.
func (d *demo) say(format string, args ...any) {
	if !d.o.JSON {
		fmt.Fprintf(d.o.Out, format+"\n", args...)
	}
}

// command shows what a user would type.
func (d *demo) command(format string, args ...any) {
	d.say("\n$ tidegate "+format, args...)
}

func (d *demo) start(ctx context.Context) (err error) {
	d.say("Starting a server (SQLite) and a host (supervisor and proxy) in %s", d.site.dir)
	if err := d.site.startServer(ctx); err != nil {
		return err
	}
	if d.admin, err = d.site.client("administrator"); err != nil {
		return err
	}
	if err := d.site.startHost(ctx, d.admin); err != nil {
		return err
	}
	if d.ana, err = d.identity(ctx, "ana", "deployers"); err != nil {
		return err
	}
	if d.ben, err = d.identity(ctx, "ben", "approvers"); err != nil {
		return err
	}
	d.load = newLoad()
	return d.apply(ctx, false)
}

// identity makes a token and a client that acts with it.
func (d *demo) identity(ctx context.Context, name, group string) (*client.Client, error) {
	d.command("token create %s --group %s", name, group)
	t, err := d.admin.CreateToken(ctx, wire.NewToken{Name: name, Groups: []string{group}})
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Address: d.site.api, Token: t.Secret, Channel: delivery.ChannelCLI})
}

//go:embed shop.yaml
var document string

//go:embed production.rego
var rego string

//go:embed shop/main.go
var source []byte

// apply applies the application's document; with debug, its service says DEBUG.
func (d *demo) apply(ctx context.Context, debug bool) error {
	text := document
	if debug {
		text = debugOn(document)
	}
	for name, content := range map[string]string{"shop.yaml": text, "production.rego": rego} {
		if err := os.WriteFile(filepath.Join(d.site.dir, "config", name), []byte(content), 0o644); err != nil {
			return delivery.Wrap(delivery.CodeUnavailable, err, "The demo's configuration can't be written: %v.", err)
		}
	}
	d.command("apply -f %s", filepath.Join(d.site.dir, "config"))
	done, err := d.admin.Apply(ctx, project, wire.Apply{Files: []wire.File{{Name: "shop.yaml", Content: text}, {Name: "production.rego", Content: rego}}})
	if err != nil {
		return err
	}
	for _, o := range done.Documents {
		d.say("  %s %s %s", o.Kind, o.Name, o.Action)
	}
	return nil
}

// collect lists every deployment, oldest first.
func (d *demo) collect(ctx context.Context) error {
	list, err := d.admin.Deployments(ctx, wire.DeploymentQuery{Project: project}, wire.Page{Limit: 1000})
	if err != nil {
		return err
	}
	for i := len(list.Items) - 1; i >= 0; i-- {
		x := list.Items[i]
		one := Deployment{Release: x.Version, Environment: x.Key.Environment, Outcome: string(x.Phase), Reason: x.Message, MaxWeight: x.MaxWeight}
		if !x.FinishedAt.IsZero() {
			one.DurationMS = x.FinishedAt.Sub(x.RequestedAt).Milliseconds()
		}
		d.result.Deployments = append(d.result.Deployments, one)
	}
	return nil
}

func (d *demo) finish() {
	if d.o.JSON {
		json.NewEncoder(d.o.Out).Encode(d.result) // plain numbers and texts
		return
	}
	d.say("\nWhat happened:")
	for _, x := range d.result.Deployments {
		d.say("  release %s  %-11s %-12s at most %3d %%  %5.1f s  %s", x.Release, x.Environment, x.Outcome, x.MaxWeight, float64(x.DurationMS)/1000, x.Reason)
	}
	r := d.result.Requests
	d.say("  %d requests to production; %d failed, %d of them outside the candidate", r.Total, r.Failed, r.FailedOutsideCandidate)
	d.say("  %d audit entries, verified: %v; the whole took %.0f s", d.result.Audit.Entries, d.result.Audit.Verified, float64(d.result.DurationMS)/1000)
}

// verify exports the audit log, changes a byte if asked to, and verifies the file.
func (d *demo) verify(ctx context.Context, file, key string) (audit.Summary, error) {
	f, err := os.Create(file)
	if err != nil {
		return audit.Summary{}, delivery.Wrap(delivery.CodeUnavailable, err, "%s can't be written: %v.", file, err)
	}
	defer f.Close()
	if err := d.admin.AuditExport(ctx, f); err != nil {
		return audit.Summary{}, err
	}
	if d.o.Tamper {
		if err := tamper(f); err != nil {
			return audit.Summary{}, err
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return audit.Summary{}, delivery.Wrap(delivery.CodeUnavailable, err, "%s can't be read again: %v.", file, err)
	}
	return audit.Verify(f, key, "")
}
