package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

func newStatusCmd(env *Env) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "status [APPLICATION]", Short: "Show what runs where, what is under way, and what waits", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			for {
				var all []wire.Overview
				if len(args) == 1 {
					o, err := c.Overview(cmd.Context(), env.Project, args[0], true)
					if err != nil {
						return err
					}
					all = []wire.Overview{o}
				} else {
					list, err := c.Overviews(cmd.Context(), env.Project, wire.Page{})
					if err != nil {
						return err
					}
					all = list.Items
				}
				if err := env.print(all, func(w io.Writer) { printOverviews(w, all) }); err != nil || !watch {
					return err
				}
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(time.Second):
				}
			}
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "print it again each second")
	return cmd
}

func printOverviews(w io.Writer, all []wire.Overview) {
	if len(all) == 0 {
		fmt.Fprintln(w, "No application yet. Write one with 'tidegate init NAME FILE', then 'tidegate apply -f'.")
	}
	for _, o := range all {
		fmt.Fprintf(w, "%s\n", o.Application)
		table(w, "  ENVIRONMENT\tSTABLE\tSINCE\tUNDER WAY\tMARKS", func(w io.Writer) {
			for _, p := range o.Environments {
				stable, since := "-", "-"
				if p.Stable != nil {
					stable, since = p.Stable.Version, stamp(p.Stable.Since)
				}
				fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", p.Environment, stable, since, underWay(p), marks(p))
			}
		})
		for _, p := range o.Environments {
			for _, s := range p.Services {
				fmt.Fprintf(w, "  %s %s on %s: http://%s\n", p.Environment, s.Service, s.Target, s.Address)
			}
			for _, d := range p.Queue {
				printVerdicts(w, delivery.Blocking(d.Verdicts), "    ")
			}
		}
		if o.Forecast != nil {
			for _, f := range o.Forecast.Environments {
				if f.Outcome == wire.ProspectDeny {
					fmt.Fprintf(w, "  forecast: %s will refuse %s\n", f.Environment, o.Forecast.Version)
					printVerdicts(w, delivery.Blocking(f.Verdicts), "    ")
				}
			}
		}
	}
}

func underWay(p wire.PlacementStatus) string {
	switch {
	case p.Active != nil:
		weight := 0
		for _, s := range p.Active.Steps {
			weight = max(weight, s.Weight)
		}
		return fmt.Sprintf("%s %s %d %%", p.Active.Version, p.Active.Phase, weight)
	case len(p.Queue) > 0:
		return fmt.Sprintf("%s waits: %s", p.Queue[0].Version, p.Queue[0].Message)
	}
	return "-"
}

func marks(p wire.PlacementStatus) string {
	s := ""
	if p.Pin != nil {
		s += "pinned to " + p.Pin.Version + " "
	}
	if p.Hold != nil {
		s += "held "
	}
	for _, q := range p.Quarantine {
		s += "quarantine " + q.Version + " "
	}
	return s
}

func newHistoryCmd(env *Env) *cobra.Command {
	var q wire.DeploymentQuery
	cmd := &cobra.Command{
		Use: "history [APPLICATION]", Short: "List deployments, newest first", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			q.Project = env.Project
			if len(args) == 1 {
				q.Application = args[0]
			}
			list, err := c.Deployments(cmd.Context(), q, wire.Page{})
			if err != nil {
				return err
			}
			return env.print(list.Items, func(w io.Writer) {
				table(w, "REQUESTED\tAPPLICATION\tENVIRONMENT\tRELEASE\tPHASE\tBY\tWHY", func(w io.Writer) {
					for _, d := range list.Items {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", stamp(d.RequestedAt), d.Key.Application, d.Key.Environment, d.Version, d.Phase, d.RequestedBy.Subject, d.Message)
					}
				})
			})
		},
	}
	cmd.Flags().StringVarP(&q.Environment, "env", "e", "", "environment")
	cmd.Flags().BoolVar(&q.Active, "active", false, "only those that have not ended")
	return cmd
}

func newLogsCmd(env *Env) *cobra.Command {
	var environment string
	var q wire.LogQuery
	cmd := &cobra.Command{
		Use: "logs APPLICATION --env ENVIRONMENT", Short: "Show the last lines that instances wrote", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := env.key(args[0], environment)
			if err != nil {
				return err
			}
			c, err := env.client()
			if err != nil {
				return err
			}
			list, err := c.Logs(cmd.Context(), key, q)
			if err != nil {
				return err
			}
			return env.print(list.Items, func(w io.Writer) {
				for _, l := range list.Items {
					fmt.Fprintf(w, "%s %s %s | %s\n", l.Service, l.Version, l.Instance, l.Text)
				}
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&environment, "env", "e", "", "environment")
	f.StringVar(&q.Service, "service", "", "default every service")
	f.StringVar(&q.Target, "target", "", "default every target")
	f.StringVar(&q.Release, "release", "", "default every release that runs")
	f.IntVarP(&q.Lines, "lines", "n", 100, "how many of each instance")
	return cmd
}

func newInventoryCmd(env *Env) *cobra.Command {
	var q wire.InventoryQuery
	var at, artifact string
	cmd := &cobra.Command{
		Use: "inventory", Short: "Show what runs where, now or at a past time", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			if at != "" {
				if q.At, err = time.Parse(time.RFC3339, at); err != nil {
					return delivery.Errorf(delivery.CodeInvalid, "--at %q is no time: write it like 2026-11-20T15:04:05Z.", at)
				}
			}
			q.Project, q.Artifact = env.Project, delivery.Digest(artifact)
			list, err := c.Inventory(cmd.Context(), q, wire.Page{})
			if err != nil {
				return err
			}
			return env.print(list.Items, func(w io.Writer) {
				table(w, "ENVIRONMENT\tAPPLICATION\tSERVICE\tTARGET\tRELEASE\tARTIFACT\tSINCE\tUNTIL", func(w io.Writer) {
					for _, i := range list.Items {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", i.Key.Environment, i.Key.Application, i.Service, i.Target, i.Version, i.Artifact.Short(), stamp(i.Since), stamp(i.Until))
					}
				})
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&q.Environment, "env", "e", "", "environment")
	f.StringVar(&q.Application, "application", "", "application")
	f.StringVar(&artifact, "artifact", "", "digest: where does it run")
	f.StringVar(&at, "at", "", "as of this time (RFC 3339)")
	f.BoolVar(&q.History, "history", false, "also what ended")
	return cmd
}
