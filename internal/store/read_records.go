package store

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// auditPage is the most audit entries of one call.
const auditPage = 10_000

// Effects implements [Reader].
func (s *core) Effects(ctx context.Context, target string) ([]delivery.Effect, error) {
	var rows []effectRow
	err := s.backend.view(ctx, func(t tables) (err error) {
		rows, err = t.pendingOnTarget(target)
		return err
	})
	if err != nil {
		return nil, err
	}
	return decodeEffects(rows)
}

// Report implements [Reader].
func (s *core) Report(ctx context.Context, target string) (delivery.Report, error) {
	return get[delivery.Report](ctx, s, func() error {
		return delivery.Errorf(delivery.CodeNotFound, "Target %q has not reported yet; start its host.", target)
	}, func(t tables) ([]byte, error) { return t.report(target) })
}

// Reports implements [Reader].
func (s *core) Reports(ctx context.Context) ([]delivery.Report, error) {
	return all[delivery.Report](ctx, s, tables.reports)
}

// Decision implements [Reader].
func (s *core) Decision(ctx context.Context, id delivery.ID) (delivery.Decision, error) {
	var doc, input []byte
	var d delivery.Decision
	err := s.backend.view(ctx, func(t tables) (err error) {
		if doc, err = t.decision(id); err != nil || doc == nil {
			return err
		}
		if err := json.Unmarshal(doc, &d); err != nil {
			return internalError(err, "decoding decision %s", id)
		}
		input, err = t.input(d.InputDigest)
		return err
	})
	if err != nil {
		return d, err
	}
	if doc == nil {
		return d, delivery.Errorf(delivery.CodeNotFound, "There is no decision %q.", id)
	}
	d.Input = input
	return d, nil
}

// Decisions implements [Reader]. The list leaves the inputs out.
func (s *core) Decisions(ctx context.Context, project string, p Page) ([]delivery.Decision, string, error) {
	return newest[delivery.Decision](ctx, s, p, func(t tables, before int64, limit int) ([]seqDoc, error) {
		return t.decisions(project, before, limit)
	})
}

// Inventory implements [Reader]: in the order in which the entries began to be
// true. An entry's times are in microseconds.
func (s *core) Inventory(ctx context.Context, f InventoryFilter, p Page) ([]delivery.InventoryEntry, string, error) {
	after, err := p.sequence(0)
	if err != nil {
		return nil, "", err
	}
	q := inventoryQuery{f.Project, f.Application, f.Environment, f.Artifact, micros(f.At), f.History}
	var rows []inventoryRow
	err = s.backend.view(ctx, func(t tables) (err error) {
		rows, err = t.inventory(q, after, p.limit()+1)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	rows, cursor := turnPage(rows, p.limit(), func(r inventoryRow) string { return strconv.FormatInt(r.seq, 10) })
	var entries []delivery.InventoryEntry
	for _, r := range rows {
		var e delivery.InventoryEntry
		if err := json.Unmarshal(r.doc, &e); err != nil {
			return nil, "", internalError(err, "decoding an inventory entry")
		}
		e.Since, e.Until = fromMicros(r.since), fromMicros(r.until)
		entries = append(entries, e)
	}
	return entries, cursor, nil
}

// TokenByHash implements [Reader].
func (s *core) TokenByHash(ctx context.Context, hash string) (Token, error) {
	return get[Token](ctx, s, func() error {
		return delivery.Errorf(delivery.CodeNotFound, "There is no such token.")
	}, func(t tables) ([]byte, error) { return t.tokenByHash(hash) })
}

// Tokens implements [Reader].
func (s *core) Tokens(ctx context.Context) ([]Token, error) {
	return all[Token](ctx, s, tables.tokens)
}

// Host implements [Reader].
func (s *core) Host(ctx context.Context, name string) (Host, error) {
	return get[Host](ctx, s, func() error {
		return delivery.Errorf(delivery.CodeNotFound, "Host %q is not enrolled.", name)
	}, func(t tables) ([]byte, error) { return t.host(name) })
}

// Hosts implements [Reader].
func (s *core) Hosts(ctx context.Context) ([]Host, error) {
	return all[Host](ctx, s, tables.hosts)
}

// Remembered implements [Reader].
func (s *core) Remembered(ctx context.Context, key string) (Idempotency, error) {
	var row idempotencyRow
	var found bool
	err := s.backend.view(ctx, func(t tables) (err error) {
		row, found, err = t.remembered(key)
		return err
	})
	if err != nil {
		return Idempotency{}, err
	}
	if !found {
		return Idempotency{}, delivery.Errorf(delivery.CodeNotFound, "No request with this idempotency key is remembered.")
	}
	return Idempotency{Key: row.key, Request: row.request, Response: row.response, At: fromMicros(row.at)}, nil
}

// AuditSize implements [Reader].
func (s *core) AuditSize(ctx context.Context) (int64, error) {
	var n int64
	err := s.backend.view(ctx, func(t tables) (err error) {
		n, err = t.auditSize()
		return err
	})
	return n, err
}

// AuditEntries implements [Reader]. It gives at most 10,000 entries.
func (s *core) AuditEntries(ctx context.Context, from int64, limit int) ([]AuditEntry, error) {
	if from < 0 || limit < 0 {
		return nil, delivery.Errorf(delivery.CodeInvalid, "There are no audit entries from %d, limit %d.", from, limit)
	}
	var entries []AuditEntry
	err := s.backend.view(ctx, func(t tables) (err error) {
		entries, err = t.auditEntries(from, min(limit, auditPage))
		return err
	})
	return entries, err
}

// AuditHashes implements [Reader].
func (s *core) AuditHashes(ctx context.Context, indexes []int64) ([][32]byte, error) {
	var hashes [][32]byte
	err := s.backend.view(ctx, func(t tables) (err error) {
		hashes, err = t.hashes(indexes)
		return err
	})
	return hashes, err
}
