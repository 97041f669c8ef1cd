package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/tidegate-cd/tidegate/internal/app"
	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/config"
	"github.com/tidegate-cd/tidegate/internal/control"
	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/policy"
)

func newInitCmd(env *Env) *cobra.Command {
	var name, out string
	cmd := &cobra.Command{
		Use: "init BINARY_OR_DIR", Short: "Write a first Application document for a program", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if name == "" {
				name = strings.ToLower(strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0])))
			}
			b, err := config.Init(name, args[0])
			if err != nil {
				return err
			}
			if out == "" {
				out = name + ".yaml"
			}
			f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if errors.Is(err, os.ErrExist) {
				return delivery.Errorf(delivery.CodeConflict, "%s is there already: choose another file with --file.", out)
			}
			if err != nil {
				return delivery.Wrap(delivery.CodeInvalid, err, "%s can't be written: %v.", out, err)
			}
			defer f.Close()
			if _, err := f.Write(b); err != nil {
				return delivery.Wrap(delivery.CodeUnavailable, err, "%s can't be written: %v.", out, err)
			}
			return env.print(map[string]string{"file": out}, func(w io.Writer) {
				fmt.Fprintf(w, "Wrote %s. Next: tidegate apply -f %s\n", out, out)
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the application (default the program's)")
	cmd.Flags().StringVarP(&out, "file", "f", "", "file to write (default NAME.yaml)")
	return cmd
}

func newApplyCmd(env *Env) *cobra.Command {
	var file string
	var dry bool
	cmd := &cobra.Command{
		Use: "apply -f FILE_OR_DIR", Short: "Make documents the configuration: all of them, or none", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			files, err := load(file)
			if err != nil {
				return err
			}
			c, err := env.client()
			if err != nil {
				return err
			}
			a := wire.Apply{DryRun: dry}
			for _, f := range files {
				a.Files = append(a.Files, wire.File{Name: f.Name, Content: string(f.Content)})
			}
			done, err := c.Apply(cmd.Context(), env.Project, a)
			if err != nil {
				return err
			}
			return env.print(done, func(w io.Writer) {
				for _, d := range done.Documents {
					fmt.Fprintf(w, "%s %s %s (revision %d)\n", d.Kind, d.Name, d.Action, d.Revision)
				}
			})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file or directory")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "check and compare only")
	return cmd
}

func load(file string) ([]config.File, error) {
	if file == "" {
		return nil, delivery.Errorf(delivery.CodeInvalid, "No file was given: add -f FILE_OR_DIR.")
	}
	return config.Load(file)
}

func newValidateCmd(env *Env) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "validate -f FILE_OR_DIR", Short: "Check documents and policies, without a server", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			files, err := load(file)
			if err != nil {
				return err
			}
			var in []control.File
			for _, f := range files {
				in = append(in, control.File{Name: f.Name, Content: f.Content})
			}
			objects, err := app.Parse(cmd.Context(), in, func(delivery.Kind, string, string) bool { return false })
			if err != nil {
				return err
			}
			return env.print(map[string]int{"documents": len(objects)}, func(w io.Writer) {
				fmt.Fprintf(w, "%d documents are valid.\n", len(objects))
			})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file or directory")
	return cmd
}

func newSchemaCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "schema KIND", Short: "Print the JSON Schema of a kind of document, or of a policy's input (PolicyInput)", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var b []byte
			var err error
			if args[0] == "PolicyInput" {
				b, err = policy.Schema()
			} else {
				b, err = config.Schema(delivery.Kind(args[0]))
			}
			if err != nil {
				return err
			}
			fmt.Fprintln(env.Out, string(b))
			return nil
		},
	}
}

func newGetCmd(env *Env) *cobra.Command {
	var revision int64
	cmd := &cobra.Command{
		Use: "get KIND [NAME]", Short: "Show stored documents", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				list, err := c.Objects(cmd.Context(), env.Project, delivery.Kind(args[0]), wire.Page{Limit: 1000})
				if err != nil {
					return err
				}
				return env.print(list.Items, func(w io.Writer) {
					table(w, "NAME\tREVISION\tCHANGED\tBY", func(w io.Writer) {
						for _, o := range list.Items {
							fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", o.Name, o.Revision, stamp(o.UpdatedAt), o.UpdatedBy.Subject)
						}
					})
				})
			}
			o, err := c.Object(cmd.Context(), env.Project, delivery.Kind(args[0]), args[1], revision)
			if err != nil {
				return err
			}
			return env.print(o, func(w io.Writer) { printObject(w, o) })
		},
	}
	cmd.Flags().Int64Var(&revision, "revision", 0, "as it was at this revision")
	return cmd
}

func printObject(w io.Writer, o delivery.Object) {
	var spec any
	if err := yaml.Unmarshal(o.Spec, &spec); err != nil { // JSON is YAML
		fmt.Fprintln(w, string(o.Spec))
		return
	}
	b, err := yaml.Marshal(map[string]any{"apiVersion": delivery.APIVersion, "kind": o.Kind, "metadata": map[string]any{"name": o.Name, "project": o.Project}, "spec": spec})
	if err != nil {
		fmt.Fprintln(w, string(o.Spec))
		return
	}
	fmt.Fprintf(w, "# revision %d, %s by %s\n%s", o.Revision, stamp(o.UpdatedAt), o.UpdatedBy.Subject, b)
}

func newDeleteCmd(env *Env) *cobra.Command {
	var revision int64
	cmd := &cobra.Command{
		Use: "delete KIND NAME", Short: "Delete a document that nothing uses", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			if err := c.DeleteObject(cmd.Context(), env.Project, delivery.Kind(args[0]), args[1], revision); err != nil {
				return err
			}
			return env.print(map[string]string{"deleted": args[1]}, func(w io.Writer) { fmt.Fprintf(w, "%s %s is deleted.\n", args[0], args[1]) })
		},
	}
	cmd.Flags().Int64Var(&revision, "revision", 0, "only if it is at this revision")
	return cmd
}

func newPolicyCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Check policies"}
	cmd.AddCommand(&cobra.Command{
		Use: "check FILE...", Short: "Compile Rego modules as the server would, without a server", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			modules, err := readModules(cmd.Context(), args)
			if err != nil {
				return err
			}
			if err := policy.Check(cmd.Context(), "check", modules); err != nil {
				return err
			}
			return env.print(map[string]int{"modules": len(modules)}, func(w io.Writer) { fmt.Fprintf(w, "%d modules are good.\n", len(modules)) })
		},
	})
	return cmd
}

func readModules(_ context.Context, names []string) (map[string]string, error) {
	modules := map[string]string{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, delivery.Wrap(delivery.CodeInvalid, err, "%s can't be read: %v.", name, err)
		}
		modules[name] = string(b)
	}
	return modules, nil
}
