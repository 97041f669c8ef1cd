package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// The exit codes: one for each code of [delivery.Error], and one for a
// deployment that was watched and did not succeed.
const (
	ExitOK          = 0
	ExitInternal    = 1
	ExitInvalid     = 2
	ExitNotFound    = 3
	ExitConflict    = 4
	ExitDenied      = 5
	ExitUnavailable = 6
	ExitUnsuccess   = 7
)

// ExitCode returns the exit code of an error.
func ExitCode(err error) int {
	if errors.Is(err, errUnsuccessful) {
		return ExitUnsuccess
	}
	switch delivery.ErrorCode(err) {
	case "":
		return ExitOK
	case delivery.CodeInvalid:
		return ExitInvalid
	case delivery.CodeNotFound:
		return ExitNotFound
	case delivery.CodeConflict:
		return ExitConflict
	case delivery.CodeDenied:
		return ExitDenied
	case delivery.CodeUnavailable:
		return ExitUnavailable
	}
	return ExitInternal
}

// errUnsuccessful ends a watched deployment that did not succeed; what there
// was to say has been printed.
var errUnsuccessful = errors.New("the deployment did not succeed")

// Main runs the command line and returns the exit code.
func Main(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	env := &Env{In: in, Out: out, Err: errOut}
	root := newRootCmd(env)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err != nil && !errors.Is(err, errUnsuccessful) {
		env.fail(err)
	}
	return ExitCode(err)
}

// fail prints an error, as JSON where that was asked for.
func (e *Env) fail(err error) {
	if e.Output == outputJSON {
		de, ok := errors.AsType[*delivery.Error](err)
		if !ok {
			de = &delivery.Error{Code: delivery.ErrorCode(err), Message: err.Error()}
		}
		b, _ := json.Marshal(map[string]any{"error": de}) // a struct of texts cannot fail
		fmt.Fprintln(e.Err, string(b))
		return
	}
	fmt.Fprintln(e.Err, "tidegate:", err)
	if de, ok := errors.AsType[*delivery.Error](err); ok {
		printVerdicts(e.Err, delivery.Blocking(de.Verdicts), "  ")
	}
}

func newRootCmd(env *Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "tidegate",
		Short: "Carry releases through environments under policy",
		Long: `Tidegate takes an immutable release through environments under policy,
approvals, calendars and progressive delivery, and rolls it back by itself.

Try it:  tidegate demo`,
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return env.check() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return delivery.Errorf(delivery.CodeInvalid, "%v. See '%s --help'.", err, c.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&env.Server, "server", "", "address of the server (default $TIDEGATE_SERVER, else http://127.0.0.1:7420)")
	f.StringVar(&env.Token, "token", "", "API token (default $TIDEGATE_TOKEN, else the administrator token of a server on this machine)")
	f.StringVar(&env.Project, "project", delivery.DefaultProject, "project")
	f.StringVarP(&env.Output, "output", "o", outputText, "text or json")
	root.AddGroup(&cobra.Group{ID: "deliver", Title: "Deliver:"}, &cobra.Group{ID: "ask", Title: "Ask:"},
		&cobra.Group{ID: "steer", Title: "Steer:"}, &cobra.Group{ID: "configure", Title: "Configure:"}, &cobra.Group{ID: "run", Title: "Run:"})
	add(root, "deliver", newReleaseCmd(env), newPlanCmd(env), newPromoteCmd(env), newRollbackCmd(env), newApproveCmd(env), newRejectCmd(env), newConfirmCmd(env))
	add(root, "ask", newStatusCmd(env), newHistoryCmd(env), newLogsCmd(env), newWhyCmd(env), newWhenCmd(env), newForecastCmd(env), newDiffCmd(env), newInventoryCmd(env), newAuditCmd(env))
	add(root, "steer", newActCmds(env)...)
	add(root, "steer", newPinCmd(env), newUnpinCmd(env), newHoldCmd(env), newUnholdCmd(env), newQuarantineCmd(env))
	add(root, "configure", newInitCmd(env), newApplyCmd(env), newValidateCmd(env), newSchemaCmd(env), newGetCmd(env), newDeleteCmd(env), newPolicyCmd(env), newTokenCmd(env))
	add(root, "run", newServerCmd(env), newHostCmd(env), newDemoCmd(env), newVersionCmd(env))
	argErrors(root)
	return root
}

func add(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		root.AddCommand(c)
	}
}

// argErrors makes a wrong number of arguments an invalid request with the way to help.
func argErrors(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return delivery.Errorf(delivery.CodeInvalid, "%v: the form is '%s'.", err, c.UseLine())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		argErrors(sub)
	}
}
