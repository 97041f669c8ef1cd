package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidegate-cd/tidegate/internal/client"
	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

func newReleaseCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "release", Short: "Create, list and show releases"}
	cmd.AddCommand(newReleaseCreateCmd(env), newReleaseListCmd(env), newReleaseShowCmd(env))
	return cmd
}

type releaseCreateOptions struct {
	env       *Env
	artifacts []string
	source    delivery.Source
	labels    map[string]string
	promote   bool
	watch     bool
}

func newReleaseCreateCmd(env *Env) *cobra.Command {
	o := &releaseCreateOptions{env: env}
	cmd := &cobra.Command{
		Use:   "create APPLICATION@VERSION --artifact [SERVICE=]FILE",
		Short: "Make an immutable release of an application's document and its artifacts",
		Example: `  tidegate release create shop@1.4 --artifact ./shop
  tidegate release create shop@1.4 --artifact web=./web.tar.gz --artifact api=https://example.com/api#sha256:...
  tidegate release create shop@1.4 --artifact ./shop --promote --watch`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.artifacts, "artifact", nil, "executable or tar archive of a service: a file, or URL#sha256:DIGEST")
	f.StringVar(&o.source.Repository, "repository", "", "where the source is")
	f.StringVar(&o.source.Commit, "commit", "", "commit it was built from")
	f.StringSliceVar(&o.source.Authors, "author", nil, "who wrote it; may not approve it")
	f.StringToStringVar(&o.labels, "label", nil, "NAME=VALUE")
	f.BoolVar(&o.promote, "promote", false, "and promote it to the first environment of the path")
	f.BoolVarP(&o.watch, "watch", "w", false, "with --promote: follow the deployment to its end")
	return cmd
}

func (o *releaseCreateOptions) run(ctx context.Context, ref string) error {
	application, version, err := releaseReference(ref)
	if err != nil {
		return err
	}
	if len(o.artifacts) == 0 {
		return delivery.Errorf(delivery.CodeInvalid, "No artifact was given: add --artifact FILE, or --artifact SERVICE=FILE for each service.")
	}
	c, err := o.env.client()
	if err != nil {
		return err
	}
	n := wire.NewRelease{Version: version, Artifacts: map[string]wire.Artifact{}, Source: o.source, Labels: o.labels}
	for _, a := range o.artifacts {
		service, place := artifactFlag(a)
		if _, twice := n.Artifacts[service]; twice {
			return delivery.Errorf(delivery.CodeInvalid, "--artifact names service %q twice.", service)
		}
		if n.Artifacts[service], err = o.env.artifact(ctx, c, place); err != nil {
			return err
		}
	}
	r, err := c.CreateRelease(ctx, o.env.Project, application, n)
	if err != nil {
		return err
	}
	if err := o.env.print(r, func(w io.Writer) { fmt.Fprintf(w, "Release %s is %s.\n", r.Reference(), r.Digest.Short()) }); err != nil || !o.promote {
		return err
	}
	return o.env.promoteFirst(ctx, c, application, version, o.watch)
}

// artifactFlag splits "[service=]place". A "=" inside a URL or a path that
// begins with "." or "/" belongs to the place.
func artifactFlag(s string) (service, place string) {
	name, rest, ok := strings.Cut(s, "=")
	if !ok || strings.ContainsAny(name, "./:") {
		return "", s
	}
	return name, rest
}

// artifact uploads a file, unless the server has it, or names a URL.
func (e *Env) artifact(ctx context.Context, c *client.Client, place string) (wire.Artifact, error) {
	if strings.HasPrefix(place, "http://") || strings.HasPrefix(place, "https://") {
		address, digest, _ := strings.Cut(place, "#")
		if !delivery.Digest(digest).Valid() {
			return wire.Artifact{}, delivery.Errorf(delivery.CodeInvalid, "%s has no digest: write URL#sha256:... so that what arrives can be checked.", place)
		}
		return wire.Artifact{URL: address, Digest: delivery.Digest(digest)}, nil
	}
	f, err := os.Open(place)
	if err != nil {
		return wire.Artifact{}, delivery.Wrap(delivery.CodeInvalid, err, "The artifact %s cannot be read: %v.", place, err)
	}
	defer f.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, f)
	if err != nil {
		return wire.Artifact{}, delivery.Wrap(delivery.CodeInvalid, err, "The artifact %s cannot be read: %v.", place, err)
	}
	digest := delivery.Digest("sha256:" + hex.EncodeToString(hash.Sum(nil)))
	if has, err := c.HasArtifact(ctx, digest); err != nil || has {
		return wire.Artifact{Digest: digest}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return wire.Artifact{}, delivery.Wrap(delivery.CodeInternal, err, "The artifact %s cannot be read again.", place)
	}
	if _, err := c.UploadArtifact(ctx, f, size, digest); err != nil {
		return wire.Artifact{}, err
	}
	return wire.Artifact{Digest: digest}, nil
}

func newReleaseListCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "list APPLICATION", Short: "List an application's releases, newest first", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			list, err := c.Releases(cmd.Context(), env.Project, args[0], wire.Page{})
			if err != nil {
				return err
			}
			return env.print(list.Items, func(w io.Writer) {
				table(w, "VERSION\tDIGEST\tCREATED\tBY", func(w io.Writer) {
					for _, r := range list.Items {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Version, r.Digest.Short(), stamp(r.CreatedAt), r.CreatedBy.Subject)
					}
				})
			})
		},
	}
}

func newReleaseShowCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "show APPLICATION@VERSION", Short: "Show a release", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			application, version, err := releaseReference(args[0])
			if err != nil {
				return err
			}
			c, err := env.client()
			if err != nil {
				return err
			}
			r, err := c.Release(cmd.Context(), env.Project, application, version)
			if err != nil {
				return err
			}
			return env.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "%s  %s\ncreated %s by %s\n", r.Reference(), r.Digest, stamp(r.CreatedAt), r.CreatedBy.Subject)
				for _, s := range r.Services {
					fmt.Fprintf(w, "service %s: %s %s (%d bytes)\n", s.Name, s.Artifact.Kind, s.Artifact.Digest, s.Artifact.Size)
				}
				if r.Source.Commit != "" {
					fmt.Fprintf(w, "source %s %s\n", r.Source.Repository, r.Source.Commit)
				}
			})
		},
	}
}
