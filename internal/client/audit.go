package client

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// AuditEntries returns entries of the audit log in the order of their index.
func (c *Client) AuditEntries(ctx context.Context, q wire.AuditQuery) (wire.List[wire.AuditEntry], error) {
	v := values()
	for name, n := range map[string]int64{"from": q.From, "limit": int64(q.Limit), "last": int64(q.Last)} {
		if n != 0 {
			v.Set(name, fmt.Sprint(n))
		}
	}
	return get[wire.List[wire.AuditEntry]](ctx, c, "/audit/entries", v)
}

// AuditEntry returns one entry.
func (c *Client) AuditEntry(ctx context.Context, index int64) (wire.AuditEntry, error) {
	return get[wire.AuditEntry](ctx, c, path("audit", "entries", fmt.Sprint(index)), nil)
}

// AuditProof returns the proof that an entry is in the log.
func (c *Client) AuditProof(ctx context.Context, index int64) (wire.AuditProof, error) {
	return get[wire.AuditProof](ctx, c, path("audit", "entries", fmt.Sprint(index), "proof"), nil)
}

// AuditCheckpoint returns the signed head of the log and the public key.
func (c *Client) AuditCheckpoint(ctx context.Context) (wire.Checkpoint, error) {
	return get[wire.Checkpoint](ctx, c, "/audit/checkpoint", nil)
}

// AuditExport writes the whole log, with what is needed to verify it without a
// server (audit.Verify), to w. What was written is useless if it returns an error.
func (c *Client) AuditExport(ctx context.Context, w io.Writer) error {
	r := request{method: http.MethodGet, path: "/audit/export", header: http.Header{"Accept": {"application/octet-stream"}}}
	response, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(w, response.Body); err != nil {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The export of the audit log ended early (%s); try again.", rootCause(err))
	}
	return nil
}
