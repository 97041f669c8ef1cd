package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tidegate-cd/tidegate/internal/client"
	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

func newPromoteCmd(env *Env) *cobra.Command {
	var environment string
	var p wire.Promote
	var watch bool
	cmd := &cobra.Command{
		Use: "promote APPLICATION@VERSION --env ENVIRONMENT", Short: "Ask that a release goes to an environment", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			application, version, err := releaseReference(args[0])
			if err != nil {
				return err
			}
			key, err := env.key(application, environment)
			if err != nil {
				return err
			}
			c, err := env.client()
			if err != nil {
				return err
			}
			p.Release = version
			r, err := c.Promote(cmd.Context(), key, p)
			if err != nil {
				return err
			}
			return env.requested(cmd.Context(), c, r, watch)
		},
	}
	cmd.Flags().StringVarP(&environment, "env", "e", "", "environment")
	cmd.Flags().StringVar(&p.Reason, "reason", "", "why; recorded in the audit log")
	cmd.Flags().BoolVar(&p.Immediate, "immediate", false, "replace a deployment under way instead of waiting for it")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "follow the deployment to its end")
	return cmd
}

func newRollbackCmd(env *Env) *cobra.Command {
	var environment string
	var r wire.Rollback
	var watch bool
	cmd := &cobra.Command{
		Use: "rollback APPLICATION --env ENVIRONMENT", Short: "Go back to the last good plan, or abort what is under way", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := env.key(args[0], environment)
			if err != nil {
				return err
			}
			c, err := env.client()
			if err != nil {
				return err
			}
			got, err := c.Rollback(cmd.Context(), key, r)
			if err != nil {
				return err
			}
			return env.requested(cmd.Context(), c, got, watch)
		},
	}
	cmd.Flags().StringVarP(&environment, "env", "e", "", "environment")
	cmd.Flags().StringVar(&r.To, "to", "", "version or plan to go back to; default the last good one")
	cmd.Flags().StringVar(&r.Reason, "reason", "", "why; recorded in the audit log")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "follow the deployment to its end")
	return cmd
}

// promoteFirst promotes to the first environment of the application's path.
func (e *Env) promoteFirst(ctx context.Context, c *client.Client, application, version string, watch bool) error {
	o, err := c.Overview(ctx, e.Project, application, false)
	if err != nil {
		return err
	}
	if len(o.Environments) == 0 {
		return delivery.Errorf(delivery.CodeInvalid, "Application %s has no environment in its path.", application)
	}
	key := delivery.PlacementKey{Project: e.Project, Application: application, Environment: o.Environments[0].Environment}
	r, err := c.Promote(ctx, key, wire.Promote{Release: version})
	if err != nil {
		return err
	}
	return e.requested(ctx, c, r, watch)
}

// requested says what became of a request for a deployment and follows it if asked.
func (e *Env) requested(ctx context.Context, c *client.Client, r wire.Requested, watch bool) error {
	if !watch || e.Output != outputJSON {
		err := e.print(r, func(w io.Writer) {
			fmt.Fprintln(w, r.Message)
			printVerdicts(w, delivery.Blocking(r.Verdicts), "  ")
		})
		if err != nil || !watch {
			return err
		}
	}
	return e.watch(ctx, c, r.Deployment)
}
