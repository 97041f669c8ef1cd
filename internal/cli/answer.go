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

// question makes "NAME APPLICATION[@VERSION] --env ENV".
func (e *Env) question(use, short string, ask func(ctx context.Context, c *client.Client, key delivery.PlacementKey, version string) error) *cobra.Command {
	var environment string
	cmd := &cobra.Command{
		Use: use + " APPLICATION[@VERSION] --env ENVIRONMENT", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			application, version := reference(args[0])
			key, err := e.key(application, environment)
			if err != nil {
				return err
			}
			c, err := e.client()
			if err != nil {
				return err
			}
			return ask(cmd.Context(), c, key, version)
		},
	}
	cmd.Flags().StringVarP(&environment, "env", "e", "", "environment")
	return cmd
}

func newWhyCmd(env *Env) *cobra.Command {
	return env.question("why", "Show every gate: what is unmet, who can clear it, and how", func(ctx context.Context, c *client.Client, key delivery.PlacementKey, version string) error {
		why, err := c.Why(ctx, key, version)
		if err != nil {
			return err
		}
		return env.print(why, func(w io.Writer) {
			fmt.Fprintln(w, why.Message)
			printVerdicts(w, why.Verdicts, "  ")
		})
	})
}

func newWhenCmd(env *Env) *cobra.Command {
	return env.question("when", "Say the earliest time at which a release could start (a lower bound)", func(ctx context.Context, c *client.Client, key delivery.PlacementKey, version string) error {
		when, err := c.When(ctx, key, version)
		if err != nil {
			return err
		}
		return env.print(when, func(w io.Writer) {
			fmt.Fprintln(w, when.Message)
			printVerdicts(w, delivery.Blocking(when.Verdicts), "  ")
		})
	})
}

func newForecastCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "forecast APPLICATION@VERSION", Short: "Say what every later environment would do with a release", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			application, version, err := releaseReference(args[0])
			if err != nil {
				return err
			}
			c, err := env.client()
			if err != nil {
				return err
			}
			f, err := c.Forecast(cmd.Context(), env.Project, application, version)
			if err != nil {
				return err
			}
			return env.print(f, func(w io.Writer) { printForecast(w, f) })
		},
	}
}

func printForecast(w io.Writer, f wire.ForecastOfRelease) {
	fmt.Fprintf(w, "%s@%s\n", f.Application, f.Version)
	for _, environment := range f.Environments {
		fmt.Fprintf(w, "  %-12s %-10s %s\n", environment.Environment, environment.Outcome, environment.Message)
		if environment.Outcome == wire.ProspectDeny || environment.Outcome == wire.ProspectUnknown {
			printVerdicts(w, delivery.Blocking(environment.Verdicts), "    ")
		}
	}
}

func newPlanCmd(env *Env) *cobra.Command {
	return env.question("plan", "Show exactly what a promotion would do, without doing it", func(ctx context.Context, c *client.Client, key delivery.PlacementKey, version string) error {
		if version == "" {
			return delivery.Errorf(delivery.CodeInvalid, "No release was given: write APPLICATION@VERSION.")
		}
		dry, err := c.DryRun(ctx, key, version)
		if err != nil {
			return err
		}
		return env.print(dry, func(w io.Writer) {
			fmt.Fprintf(w, "Plan %s of %s@%s for %s\n", dry.Plan.Digest.Short(), key.Application, dry.Plan.Version, key.Environment)
			printPlan(w, dry.Plan)
			printChanges(w, dry.Changes)
			printVerdicts(w, dry.Verdicts, "  ")
		})
	})
}

func printPlan(w io.Writer, p delivery.Plan) {
	for i, wave := range p.Waves {
		fmt.Fprintf(w, "  wave %d\n", i+1)
		for _, s := range wave.Steps {
			if s.Rollout == nil {
				fmt.Fprintf(w, "    %s\n", s.Name)
				continue
			}
			fmt.Fprintf(w, "    %s: %s, %d instance(s):", s.Name, s.Rollout.Strategy, s.Rollout.Instances)
			for _, m := range s.Rollout.Moves {
				switch {
				case m.Kind == delivery.MoveShift:
					fmt.Fprintf(w, " %d%%", m.Weight)
				case m.For > 0:
					fmt.Fprintf(w, " %s %s", m.Kind, m.For)
				default:
					fmt.Fprintf(w, " %s", m.Kind)
				}
			}
			fmt.Fprintln(w)
		}
	}
	if p.Bake > 0 {
		fmt.Fprintf(w, "  bake %s\n", p.Bake)
	}
}

func printChanges(w io.Writer, changes []wire.Difference) {
	for _, d := range changes {
		fmt.Fprintf(w, "  ~ %s: %s -> %s\n", d.Path, orNone(d.Before), orNone(d.After))
	}
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

func newDiffCmd(env *Env) *cobra.Command {
	var with, environment string
	cmd := env.question("diff", "Compare what runs with a release, or with another environment", nil)
	cmd.Flags().StringVar(&with, "with", "", "compare with this environment instead of a release")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		application, version := reference(args[0])
		environment = cmd.Flag("env").Value.String()
		key, err := env.key(application, environment)
		if err != nil {
			return err
		}
		c, err := env.client()
		if err != nil {
			return err
		}
		d, err := c.Diff(cmd.Context(), key, wire.DiffQuery{Release: version, With: with})
		if err != nil {
			return err
		}
		return env.print(d, func(w io.Writer) {
			fmt.Fprintf(w, "%s %s -> %s %s\n", d.From.Environment, orNone(d.From.Version), d.To.Environment, orNone(d.To.Version))
			if len(d.Changes) == 0 {
				fmt.Fprintln(w, "  no difference")
			}
			printChanges(w, d.Changes)
		})
	}
	return cmd
}
