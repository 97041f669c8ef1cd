package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate-cd/tidegate/internal/audit"
	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

func newAuditCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Read, export and verify the audit log"}
	cmd.AddCommand(newAuditListCmd(env), newAuditShowCmd(env), newAuditExportCmd(env), newAuditVerifyCmd(env), newAuditProofCmd(env))
	return cmd
}

func newAuditListCmd(env *Env) *cobra.Command {
	var last int
	cmd := &cobra.Command{
		Use: "list", Short: "List the newest entries", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			list, err := c.AuditEntries(cmd.Context(), wire.AuditQuery{Last: last})
			if err != nil {
				return err
			}
			return env.print(list.Items, func(w io.Writer) {
				for _, e := range list.Items {
					printEntry(w, e)
				}
			})
		},
	}
	cmd.Flags().IntVarP(&last, "lines", "n", 50, "how many")
	return cmd
}

func printEntry(w io.Writer, e wire.AuditEntry) {
	var event delivery.Event
	if len(e.Event) == 0 || json.Unmarshal(e.Event, &event) != nil {
		fmt.Fprintf(w, "%6d  (erased)\n", e.Index)
		return
	}
	fmt.Fprintf(w, "%6d  %s  %-24s %-14s %s\n", e.Index, event.At.Local().Format(time.DateTime), event.Type, event.Actor.Subject, event.Message)
}

func index(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, delivery.Errorf(delivery.CodeInvalid, "%q is not the index of an entry: 'tidegate audit list' shows them.", s)
	}
	return n, nil
}

func newAuditShowCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "show INDEX", Short: "Show one entry", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := index(args[0])
			if err != nil {
				return err
			}
			c, err := env.client()
			if err != nil {
				return err
			}
			e, err := c.AuditEntry(cmd.Context(), n)
			if err != nil {
				return err
			}
			return env.print(e, func(w io.Writer) {
				printEntry(w, e)
				fmt.Fprintf(w, "%s\nleaf %s\n", e.Event, e.Leaf)
			})
		},
	}
}

func newAuditExportCmd(env *Env) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "export", Short: "Write the whole log, for verification without the server", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			if file == "" {
				return c.AuditExport(cmd.Context(), env.Out)
			}
			f, err := os.Create(file)
			if err != nil {
				return delivery.Wrap(delivery.CodeInvalid, err, "%s can't be written: %v.", file, err)
			}
			defer f.Close()
			if err := c.AuditExport(cmd.Context(), f); err != nil {
				return err
			}
			if err := f.Sync(); err != nil {
				return delivery.Wrap(delivery.CodeUnavailable, err, "%s can't be written: %v.", file, err)
			}
			checkpoint, err := c.AuditCheckpoint(cmd.Context())
			if err != nil {
				return err
			}
			return env.print(map[string]any{"file": file, "publicKey": checkpoint.PublicKey}, func(w io.Writer) {
				fmt.Fprintf(w, "Wrote %s. Verify it anywhere:\n  tidegate audit verify %s --key %s\n", file, file, checkpoint.PublicKey)
			})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file to write (default the output)")
	return cmd
}

func newAuditVerifyCmd(env *Env) *cobra.Command {
	var key, against string
	cmd := &cobra.Command{
		Use: "verify EXPORT [--key PUBLIC_KEY]", Short: "Verify an export without the server", Args: cobra.ExactArgs(1),
		Long: `Verify an export of the audit log without the server. Without --key the export's
own key is used, which shows only that the export fits itself: keep the public
key, and checkpoints to compare --against, where the server's administrator
can't change them.`,
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return delivery.Wrap(delivery.CodeInvalid, err, "%s can't be read: %v.", args[0], err)
			}
			defer f.Close()
			older := ""
			if against != "" {
				b, err := os.ReadFile(against)
				if err != nil {
					return delivery.Wrap(delivery.CodeInvalid, err, "%s can't be read: %v.", against, err)
				}
				older = string(b)
			}
			s, err := audit.Verify(f, key, older)
			if err != nil {
				return err
			}
			return env.print(s, func(w io.Writer) {
				fmt.Fprintf(w, "Verified: %d entries of %s, none changed, removed, inserted or moved.\n", s.EntryCount, s.Origin)
				if s.OwnKey {
					fmt.Fprintln(w, "With the export's own key: give --key to know whose log it is.")
				}
			})
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "public key of the log")
	cmd.Flags().StringVar(&against, "against", "", "file with an older checkpoint that the log must go on from")
	return cmd
}

func newAuditProofCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "proof INDEX", Short: "Show and check the inclusion proof of one entry", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := index(args[0])
			if err != nil {
				return err
			}
			c, err := env.client()
			if err != nil {
				return err
			}
			p, err := c.AuditProof(cmd.Context(), n)
			if err != nil {
				return err
			}
			head, err := c.AuditCheckpoint(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := audit.VerifyProof(proof(p), head.PublicKey); err != nil {
				return err
			}
			return env.print(p, func(w io.Writer) {
				printEntry(w, p.Entry)
				fmt.Fprintf(w, "is in the log of %d entries, by %d hashes:\n", p.Size, len(p.Hashes))
				for _, h := range p.Hashes {
					fmt.Fprintf(w, "  %x\n", h)
				}
				fmt.Fprintf(w, "checkpoint:\n  %s\n", strings.ReplaceAll(strings.TrimSpace(p.Checkpoint), "\n", "\n  "))
			})
		},
	}
}

// proof turns the wire's form into the one that can be checked.
func proof(p wire.AuditProof) audit.Proof {
	out := audit.Proof{Entry: audit.Entry{Index: p.Entry.Index, Payload: p.Entry.Event, Salt: p.Entry.Salt, Leaf: p.Entry.Leaf}, Checkpoint: p.Checkpoint}
	for _, h := range p.Hashes {
		var one tlog.Hash
		copy(one[:], h)
		out.Hashes = append(out.Hashes, one)
	}
	return out
}
