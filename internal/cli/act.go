package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidegate-cd/tidegate/internal/client"
	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// placed is a command about one application in one environment.
type placed struct {
	env         *Env
	environment string
	reason      string
	step        string
	deployment  string
}

// command makes "NAME APP --env ENV [--reason TEXT]" that calls do.
func (p *placed) command(use, short string, do func(ctx context.Context, c *client.Client, key delivery.PlacementKey) (wire.Accepted, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use: use + " APPLICATION --env ENVIRONMENT", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := p.env.key(args[0], p.environment)
			if err != nil {
				return err
			}
			c, err := p.env.client()
			if err != nil {
				return err
			}
			done, err := do(cmd.Context(), c, key)
			if err != nil {
				return err
			}
			return p.env.print(done, func(w io.Writer) {
				fmt.Fprintln(w, done.Message)
				if done.Warning != "" {
					fmt.Fprintln(w, "Warning:", done.Warning)
				}
			})
		},
	}
	cmd.Flags().StringVarP(&p.environment, "env", "e", "", "environment")
	cmd.Flags().StringVar(&p.reason, "reason", "", "why; recorded in the audit log")
	return cmd
}

func newActCmds(env *Env) []*cobra.Command {
	type act func(*client.Client, context.Context, delivery.PlacementKey, wire.Act) (wire.Accepted, error)
	one := func(use, short string, do act) *cobra.Command {
		p := &placed{env: env}
		cmd := p.command(use, short, func(ctx context.Context, c *client.Client, key delivery.PlacementKey) (wire.Accepted, error) {
			return do(c, ctx, key, wire.Act{Deployment: delivery.ID(p.deployment), Step: p.step, Reason: p.reason})
		})
		cmd.Flags().StringVar(&p.deployment, "deployment", "", "which; default the active one")
		cmd.Flags().StringVar(&p.step, "step", "", "which step, e.g. web@local")
		return cmd
	}
	return []*cobra.Command{
		one("pause", "Make no further move", (*client.Client).Pause),
		one("resume", "End a pause", (*client.Client).Resume),
		one("complete", "Promote fully now, without further looks", (*client.Client).Complete),
		one("abort", "End the deployment and return to the stable version", (*client.Client).Abort),
		one("retry", "Try again what needs a person", (*client.Client).Retry),
	}
}

func newConfirmCmd(env *Env) *cobra.Command {
	p := &placed{env: env}
	cmd := p.command("confirm", "Say that a manual task was done", func(ctx context.Context, c *client.Client, key delivery.PlacementKey) (wire.Accepted, error) {
		return c.Confirm(ctx, key, wire.Act{Step: p.step, Reason: p.reason})
	})
	cmd.Flags().StringVar(&p.step, "task", "", "which; default the one that waits")
	return cmd
}

func newApproveCmd(env *Env) *cobra.Command {
	return approvalCmd(env, "approve", "Approve exactly the plan that waits", (*client.Client).Approve)
}

func newRejectCmd(env *Env) *cobra.Command {
	return approvalCmd(env, "reject", "Reject the plan that waits", (*client.Client).Reject)
}

func approvalCmd(env *Env, use, short string, do func(*client.Client, context.Context, delivery.PlacementKey, wire.Approve) (wire.Accepted, error)) *cobra.Command {
	p := &placed{env: env}
	var plan string
	cmd := p.command(use, short, func(ctx context.Context, c *client.Client, key delivery.PlacementKey) (wire.Accepted, error) {
		return do(c, ctx, key, wire.Approve{Deployment: delivery.ID(p.deployment), Plan: delivery.Digest(plan), Step: p.step, Comment: p.reason})
	})
	cmd.Flags().StringVar(&plan, "plan", "", "digest of the plan that you saw; refused if another would run")
	cmd.Flags().StringVar(&p.deployment, "deployment", "", "which; default the one that waits")
	cmd.Flags().StringVar(&p.step, "step", "", "a rollout's approval step; default the start")
	return cmd
}

func newPinCmd(env *Env) *cobra.Command {
	p := &placed{env: env}
	var release string
	cmd := p.command("pin", "Keep an environment on a release", func(ctx context.Context, c *client.Client, key delivery.PlacementKey) (wire.Accepted, error) {
		return c.Pin(ctx, key, wire.Pin{Release: release, Reason: p.reason})
	})
	cmd.Flags().StringVar(&release, "release", "", "version or digest; default what runs")
	return cmd
}

func newUnpinCmd(env *Env) *cobra.Command {
	p := &placed{env: env}
	return p.command("unpin", "Lift a pin", func(ctx context.Context, c *client.Client, key delivery.PlacementKey) (wire.Accepted, error) {
		return c.Unpin(ctx, key, wire.Act{Reason: p.reason})
	})
}

func newHoldCmd(env *Env) *cobra.Command {
	p := &placed{env: env}
	var span time.Duration
	cmd := p.command("hold", "Stop promotions to an environment", func(ctx context.Context, c *client.Client, key delivery.PlacementKey) (wire.Accepted, error) {
		return c.Hold(ctx, key, wire.Hold{Reason: p.reason, For: delivery.Duration(span)})
	})
	cmd.Flags().DurationVar(&span, "for", 0, "how long; default until a person lets go")
	return cmd
}

func newUnholdCmd(env *Env) *cobra.Command {
	p := &placed{env: env}
	return p.command("unhold", "Lift a hold", func(ctx context.Context, c *client.Client, key delivery.PlacementKey) (wire.Accepted, error) {
		return c.Unhold(ctx, key, wire.Act{Reason: p.reason})
	})
}

func newQuarantineCmd(env *Env) *cobra.Command {
	var environment, reason string
	var lift bool
	cmd := &cobra.Command{
		Use: "quarantine APPLICATION@VERSION [--env ENVIRONMENT]", Short: "Refuse a release, in one environment or everywhere", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			application, version, err := releaseReference(args[0])
			if err != nil {
				return err
			}
			c, err := env.client()
			if err != nil {
				return err
			}
			do := c.Quarantine
			if lift {
				do = c.Lift
			}
			done, err := do(cmd.Context(), delivery.PlacementKey{Project: env.Project, Application: application, Environment: environment}, wire.Quarantine{Release: version, Reason: reason})
			if err != nil {
				return err
			}
			return env.print(done, func(w io.Writer) { fmt.Fprintln(w, done.Message) })
		},
	}
	cmd.Flags().StringVarP(&environment, "env", "e", "", "environment; default every one of the path")
	cmd.Flags().StringVar(&reason, "reason", "", "why; recorded in the audit log")
	cmd.Flags().BoolVar(&lift, "lift", false, "end the quarantine")
	return cmd
}
