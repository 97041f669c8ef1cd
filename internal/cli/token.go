package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

func newTokenCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Make, list and revoke tokens"}
	cmd.AddCommand(newTokenCreateCmd(env), newTokenEnrolCmd(env), newTokenListCmd(env), newTokenRevokeCmd(env))
	return cmd
}

func (e *Env) created(t wire.CreatedToken) error {
	return e.print(t, func(w io.Writer) {
		fmt.Fprintf(e.Err, "This is shown once; only its hash is stored.\n")
		fmt.Fprintln(w, t.Secret)
	})
}

func newTokenCreateCmd(env *Env) *cobra.Command {
	var n wire.NewToken
	var expires time.Duration
	cmd := &cobra.Command{
		Use: "create NAME --group GROUP", Short: "Make an API token for somebody", Args: cobra.ExactArgs(1),
		Long: "Make an API token. Groups with a meaning of their own: administrators, deployers; any other is what approval rules name.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			n.Name, n.Expires = args[0], delivery.Duration(expires)
			t, err := c.CreateToken(cmd.Context(), n)
			if err != nil {
				return err
			}
			return env.created(t)
		},
	}
	cmd.Flags().StringSliceVar(&n.Groups, "group", nil, "group; may be given several times")
	cmd.Flags().DurationVar(&expires, "expires", 0, "from now; default never")
	return cmd
}

func newTokenEnrolCmd(env *Env) *cobra.Command {
	var expires time.Duration
	cmd := &cobra.Command{
		Use: "enrol HOST", Short: "Make a one-time token with which a machine becomes a host", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			t, err := c.CreateEnrolment(cmd.Context(), wire.NewEnrolment{Host: args[0], Expires: delivery.Duration(expires)})
			if err != nil {
				return err
			}
			return env.created(t)
		},
	}
	cmd.Flags().DurationVar(&expires, "expires", time.Hour, "from now")
	return cmd
}

func newTokenListCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List tokens, without their secrets", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			list, err := c.Tokens(cmd.Context())
			if err != nil {
				return err
			}
			return env.print(list.Items, func(w io.Writer) {
				table(w, "ID\tNAME\tKIND\tGROUPS\tCREATED\tEXPIRES\tREVOKED", func(w io.Writer) {
					for _, t := range list.Items {
						fmt.Fprintf(w, "%s\t%s\t%s\t%v\t%s\t%s\t%v\n", t.ID, t.Name, t.Kind, t.Groups, stamp(t.CreatedAt), stamp(t.Expires), t.Revoked)
					}
				})
			})
		},
	}
}

func newTokenRevokeCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "Make a token worthless", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			if err := c.RevokeToken(cmd.Context(), delivery.ID(args[0])); err != nil {
				return err
			}
			return env.print(map[string]string{"revoked": args[0]}, func(w io.Writer) { fmt.Fprintln(w, "It is revoked.") })
		},
	}
}
