package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// release makes release version and promotes it to dev, from where automatic
// edges carry it to staging.
func (d *demo) release(ctx context.Context, version string) error {
	file := filepath.Join(d.site.dir, "shop-"+version)
	if err := d.site.built(version); err != nil {
		return err
	}
	d.command("release create shop@%s --artifact %s --promote", version, file)
	f, err := os.Open(file)
	if err != nil {
		return delivery.Wrap(delivery.CodeUnavailable, err, "%s can't be read: %v.", file, err)
	}
	defer f.Close()
	a, err := d.ana.UploadArtifact(ctx, f, -1, "")
	if err != nil {
		return err
	}
	r, err := d.ana.CreateRelease(ctx, project, application, wire.NewRelease{Version: version, Artifacts: map[string]wire.Artifact{"": {Digest: a.Digest}}})
	if err != nil {
		return err
	}
	d.say("  %s is %s", r.Reference(), r.Digest.Short())
	asked, err := d.ana.Promote(ctx, key(delivery.EnvironmentDev), wire.Promote{Release: version})
	if err != nil {
		return err
	}
	if _, err := d.follow(ctx, asked.Deployment); err != nil {
		return err
	}
	return d.forecast(ctx, version)
}

// forecast shows what later environments would say, as the first deployment does.
func (d *demo) forecast(ctx context.Context, version string) error {
	f, err := d.ana.Forecast(ctx, project, application, version)
	if err != nil {
		return err
	}
	for _, e := range f.Environments {
		if e.Outcome != wire.ProspectDeny {
			continue
		}
		d.command("forecast shop@%s", version)
		for _, v := range delivery.Blocking(e.Verdicts) {
			if v.Outcome == delivery.OutcomeDeny {
				d.say("  %s will refuse it: %s\n    at %s; mend: %s", e.Environment, v.Reason, v.Path, v.Hint)
			}
		}
	}
	return nil
}

func key(environment string) delivery.PlacementKey {
	return delivery.PlacementKey{Project: project, Application: application, Environment: environment}
}

// automatic follows the deployment of a version that an automatic edge began.
func (d *demo) automatic(ctx context.Context, version, environment string) error {
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		list, err := d.ana.Deployments(ctx, wire.DeploymentQuery{Project: project, Environment: environment}, wire.Page{Limit: 5})
		if err != nil {
			return err
		}
		for _, x := range list.Items {
			if x.Version == version && x.RequestedBy.IsSystem() {
				_, err := d.follow(ctx, x.ID)
				return err
			}
		}
		if err := rest(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return delivery.Errorf(delivery.CodeUnavailable, "Release %s did not come to %s by itself.", version, environment)
}

// promote asks for production, has ben approve unless told otherwise, and
// returns the deployment.
func (d *demo) promote(ctx context.Context, version string, approve bool) (delivery.ID, error) {
	d.command("promote shop@%s --env production", version)
	asked, err := d.ana.Promote(ctx, key(production), wire.Promote{Release: version})
	if err != nil {
		return "", err
	}
	d.say("  ana: %s", asked.Message)
	if !approve {
		return asked.Deployment, nil
	}
	if err := d.until(ctx, "the plan", func() (bool, error) {
		x, err := d.ben.Deployment(ctx, asked.Deployment)
		return x.Plan != "", ignoreMissing(err)
	}); err != nil {
		return "", err
	}
	d.command("approve shop --env production        # as ben; ana can't approve her own")
	done, err := d.ben.Approve(ctx, key(production), wire.Approve{Deployment: asked.Deployment, Comment: "looks good"})
	if err != nil {
		return "", err
	}
	d.say("  ben: %s", done.Message)
	return asked.Deployment, nil
}

func ignoreMissing(err error) error {
	if delivery.ErrorCode(err) == delivery.CodeNotFound {
		return nil
	}
	return err
}

// first is part 1: release 1 through all three environments.
func (d *demo) first(ctx context.Context) error {
	d.say("\n── 1. Release 1 goes to dev and staging by itself, to production by a promotion")
	if err := d.release(ctx, "1"); err != nil {
		return err
	}
	if err := d.automatic(ctx, "1", delivery.EnvironmentStaging); err != nil {
		return err
	}
	id, err := d.promote(ctx, "1", true)
	if err != nil {
		return err
	}
	if _, err := d.follow(ctx, id); err != nil {
		return err
	}
	status, err := d.ana.Placement(ctx, key(production))
	if err != nil {
		return err
	}
	if len(status.Services) == 0 || status.Services[0].Address == "" {
		return delivery.Errorf(delivery.CodeUnavailable, "Release 1 has no address in production.")
	}
	d.load.start(ctx, "http://"+status.Services[0].Address+"/", "1")
	return nil
}

// canary is part 2: release 2 as a canary under traffic, with the server killed on the way.
func (d *demo) canary(ctx context.Context) error {
	d.say("\n── 2. Release 2 goes to production as a canary under live traffic, approved by a second identity")
	if err := d.release(ctx, "2"); err != nil {
		return err
	}
	if err := d.automatic(ctx, "2", delivery.EnvironmentStaging); err != nil {
		return err
	}
	id, err := d.promote(ctx, "2", !d.o.Unasked)
	if err != nil {
		return err
	}
	if d.o.Unasked {
		if err := rest(ctx, 3*time.Second); err != nil {
			return err
		}
		why, err := d.ana.Why(ctx, key(production), "2")
		if err != nil {
			return err
		}
		d.command("why shop@2 --env production")
		d.say("  %s", why.Message)
		return nil
	}
	killed := make(chan error, 1)
	go func() { killed <- d.killAt(ctx, id, 30) }() // ends before the part does: see below
	x, err := d.follow(ctx, id)
	if err == nil {
		err = <-killed
	}
	if x.Phase == delivery.PhaseSucceeded {
		d.load.stable("2")
	}
	return err
}

// killAt kills the server with -9 when the canary has that share, and starts it again.
func (d *demo) killAt(ctx context.Context, id delivery.ID, percent int) error {
	ended := false
	err := d.until(ctx, "the canary", func() (bool, error) {
		x, err := d.ben.Deployment(ctx, id)
		ended = x.Phase.Terminal()
		return ended || x.MaxWeight >= percent, ignoreMissing(err)
	})
	if err != nil || ended {
		return err
	}
	d.say("  (kill -9 of the server: traffic goes on, and so will the deployment)")
	return d.site.restartServer(ctx)
}

// harm is part 3: release 3 fails some requests and is taken back.
func (d *demo) harm(ctx context.Context) error {
	d.say("\n── 3. Release 3 answers %s of its requests with errors", d.errors3())
	if err := d.release(ctx, "3"); err != nil {
		return err
	}
	if err := d.automatic(ctx, "3", delivery.EnvironmentStaging); err != nil {
		return err
	}
	id, err := d.promote(ctx, "3", true)
	if err != nil {
		return err
	}
	x, err := d.follow(ctx, id)
	if err != nil {
		return err
	}
	if x.Phase == delivery.PhaseSucceeded {
		d.load.stable("3")
		return nil
	}
	d.command("promote shop@3 --env production       # again")
	if _, err := d.ana.Promote(ctx, key(production), wire.Promote{Release: "3"}); err != nil {
		if delivery.ErrorCode(err) != delivery.CodeDenied {
			return err
		}
		d.say("  refused: %v", err)
	}
	return nil
}

func (d *demo) errors3() string {
	if d.o.Healthy3 {
		return "none"
	}
	return fmt.Sprintf("%g %%", d.site.errors3)
}

// policy is part 4: release 4 breaks a production policy.
func (d *demo) policy(ctx context.Context) error {
	d.say("\n── 4. Release 4 turns DEBUG on, which production's policy forbids")
	if err := d.apply(ctx, !d.o.Within4); err != nil {
		return err
	}
	if err := d.release(ctx, "4"); err != nil {
		return err
	}
	if err := d.automatic(ctx, "4", delivery.EnvironmentStaging); err != nil {
		return err
	}
	id, err := d.promote(ctx, "4", d.o.Within4)
	if err != nil {
		return err
	}
	x, err := d.follow(ctx, id)
	if x.Phase == delivery.PhaseSucceeded {
		d.load.stable("4")
	}
	return err
}

// audit is part 5: the log is verified from an export, and one entry proved.
func (d *demo) audit(ctx context.Context) error {
	d.say("\n── 5. The audit log, verified without the server")
	head, err := d.admin.AuditCheckpoint(ctx)
	if err != nil {
		return err
	}
	file := filepath.Join(d.site.dir, "audit.jsonl")
	d.command("audit export -f %s && tidegate audit verify %s --key %s", file, file, head.PublicKey)
	s, err := d.verify(ctx, file, head.PublicKey)
	d.result.Audit = Audit{Entries: s.EntryCount, Verified: err == nil}
	if err != nil {
		d.say("  NOT verified: %v", err)
		return nil
	}
	d.say("  verified: %d entries, none changed, removed, inserted or moved", s.EntryCount)
	return d.prove(ctx)
}

// prove shows the inclusion proof of the last rollback's entry, or of the last entry.
func (d *demo) prove(ctx context.Context) error {
	list, err := d.admin.AuditEntries(ctx, wire.AuditQuery{Last: 500})
	if err != nil || len(list.Items) == 0 {
		return err
	}
	index := list.Items[len(list.Items)-1].Index
	for _, e := range list.Items {
		if strings.Contains(string(e.Event), string(delivery.EventDeploymentRolledBack)) {
			index = e.Index
		}
	}
	p, err := d.admin.AuditProof(ctx, index)
	if err != nil {
		return err
	}
	d.command("audit proof %d", index)
	d.say("  entry %d is in the log of %d entries, by %d hashes, the first %x", index, p.Size, len(p.Hashes), p.Hashes[0])
	d.say("  %s", strings.ReplaceAll(strings.TrimSpace(p.Checkpoint), "\n", "\n  "))
	return nil
}
