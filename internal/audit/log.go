package audit

import (
	"context"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Reader is what a [Log] reads; internal/store has it.
type Reader interface {
	AuditSize(ctx context.Context) (int64, error)
	AuditEntries(ctx context.Context, from int64, limit int) ([]Entry, error)
	AuditHashes(ctx context.Context, indexes []int64) ([][tlog.HashSize]byte, error)
}

// Log gives out signed heads, proofs and exports of what a reader has. It is
// safe for concurrent use.
type Log struct {
	reader Reader
	key    *Key

	mu     sync.Mutex
	last   Checkpoint // the head signed last, so that a log at rest has one checkpoint
	signed string
}

// NewLog returns the log that a reader has, signed with a key.
func NewLog(r Reader, k *Key) *Log { return &Log{reader: r, key: k} }

// Origin returns the log's name.
func (l *Log) Origin() string { return l.key.Origin() }

// Verifier returns the public key that checks the log, in its text form.
func (l *Log) Verifier() string { return l.key.Verifier() }

// Checkpoint returns the signed head of the log as it is now. Keep it
// elsewhere: a later export that does not contain it shows that the log was
// rewritten, even by one who has the key.
func (l *Log) Checkpoint(ctx context.Context) (string, error) {
	size, err := l.reader.AuditSize(ctx)
	if err != nil {
		return "", err
	}
	signed, _, err := l.checkpoint(ctx, size)
	return signed, err
}

// checkpoint signs the head of the first size entries.
func (l *Log) checkpoint(ctx context.Context, size int64) (string, Checkpoint, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.signed != "" && l.last.Size == size {
		return l.signed, l.last, nil
	}
	root, err := tlog.TreeHash(size, l.hashes(ctx))
	if err != nil {
		return "", Checkpoint{}, unreadable(err)
	}
	c := Checkpoint{Origin: l.Origin(), Size: size, Root: root}
	signed, err := l.key.sign(c)
	if err != nil {
		return "", c, unreadable(err)
	}
	l.last, l.signed = c, signed
	return signed, c, nil
}

// hashes reads stored hashes the way that tlog wants them.
func (l *Log) hashes(ctx context.Context) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		stored, err := l.reader.AuditHashes(ctx, indexes)
		if err != nil {
			return nil, err
		}
		hashes := make([]tlog.Hash, len(stored))
		for i, h := range stored {
			hashes[i] = h
		}
		return hashes, nil
	})
}

// entry reads one entry.
func (l *Log) entry(ctx context.Context, index, size int64) (Entry, error) {
	if index < 0 || index >= size {
		return Entry{}, delivery.Errorf(delivery.CodeNotFound, "There is no audit entry %d: the log has %d entries, from 0.", index, size)
	}
	entries, err := l.reader.AuditEntries(ctx, index, 1)
	if err != nil {
		return Entry{}, err
	}
	if len(entries) != 1 || entries[0].Index != index {
		return Entry{}, delivery.Errorf(delivery.CodeInternal, "Audit entry %d is missing in the store: verify an export of the log.", index)
	}
	return entries[0], nil
}

// unreadable says that the stored tree can't be used, unless the store said why.
func unreadable(err error) error {
	if delivery.ErrorCode(err) == delivery.CodeUnavailable {
		return err
	}
	return delivery.Wrap(delivery.CodeInternal, err, "The audit tree can't be read: verify an export of the log.")
}
