package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"io"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

const (
	exportFormat  = "tidegate-audit-export"
	exportVersion = 1
	exportBatch   = 500 // entries read at a time
	// exportLine is the longest line of an export, in bytes: a payload, a leaf
	// and their keys have less than half of it.
	exportLine = 128 << 10
)

// header is the first line of an export; every further line is an [Entry].
type header struct {
	Format      string `json:"format"`
	Version     int    `json:"version"`
	Origin      string `json:"origin"`
	Size        int64  `json:"size"`
	VerifierKey string `json:"verifierKey"` // for convenience: who checks uses the key he got elsewhere
	Checkpoint  string `json:"checkpoint"`
}

// Export writes the whole log as one file of JSON lines that [Verify] checks
// without the server: a header with a checkpoint of now, then every entry.
func (l *Log) Export(ctx context.Context, w io.Writer) error {
	size, err := l.reader.AuditSize(ctx)
	if err != nil {
		return err
	}
	signed, c, err := l.checkpoint(ctx, size)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriter(w)
	err = writeLine(buffered, header{
		Format: exportFormat, Version: exportVersion, Origin: c.Origin, Size: size,
		VerifierKey: l.Verifier(), Checkpoint: signed,
	})
	if err != nil {
		return err
	}
	for from := int64(0); from < size; {
		entries, err := l.reader.AuditEntries(ctx, from, int(min(exportBatch, size-from)))
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return delivery.Errorf(delivery.CodeInternal, "Audit entry %d is missing in the store: restore a backup beside it and compare.", from)
		}
		for _, e := range entries {
			if err := writeLine(buffered, e); err != nil {
				return err
			}
		}
		from += int64(len(entries))
	}
	if err := buffered.Flush(); err != nil {
		return exportFailed(err)
	}
	return nil
}

func writeLine(w *bufio.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return delivery.Wrap(delivery.CodeInternal, err, "An audit entry is not JSON any more: restore a backup beside it and compare.")
	}
	if _, err := w.Write(append(b, '\n')); err != nil {
		return exportFailed(err)
	}
	return nil
}

func exportFailed(err error) error {
	return delivery.Wrap(delivery.CodeUnavailable, err, "The export could not be written to its end; try again.")
}
