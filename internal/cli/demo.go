package cli

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/demo"
)

func newDemoCmd(env *Env) *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use: "demo", Short: "Run the main job in front of your eyes", Args: cobra.NoArgs,
		Long: `Run a server and a host in a temporary directory and carry a small web
application through dev, staging and production: a canary under traffic that is
promoted, one that is taken back, a release that a policy refuses, and an audit
log that is verified. It stays up at the end; --once ends it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return delivery.Wrap(delivery.CodeInternal, err, "The program's own path is not known.")
			}
			o.Self, o.Out, o.JSON = self, env.Out, env.Output == outputJSON
			_, err = demo.Run(cmd.Context(), o)
			return err
		},
	}
	cmd.Flags().BoolVar(&o.Once, "once", false, "end at the end, instead of staying up")
	cmd.Flags().StringVar(&o.Dir, "dir", "", "directory to work in and keep (default a temporary one)")
	return cmd
}
