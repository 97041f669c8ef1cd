package audit

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

const (
	// PayloadLimit is the greatest payload of an entry, in bytes. What is
	// longer belongs beside the log, with its digest in the payload.
	PayloadLimit = 32 << 10
	// SaltSize is the length of an entry's salt, in bytes.
	SaltSize = 32
	// leafFormat is the version of the leaf's form.
	leafFormat = 1
)

// Entry is one entry of the log.
type Entry struct {
	Index   int64           `json:"index"`             // from 0, without gaps
	Payload json.RawMessage `json:"payload,omitempty"` // canonical JSON of the event; empty when erased
	Salt    []byte          `json:"salt,omitempty"`    // random; erased with the payload, so that it can't be guessed
	Leaf    []byte          `json:"leaf"`              // what the tree hashes
}

// Erased reports whether the entry's payload was erased.
func (e Entry) Erased() bool { return len(e.Payload) == 0 }

// leaf is what the tree commits to. It has no personal data: the payload is
// named by a salted digest only, so that erasing payload and salt breaks no
// proof and leaves nothing to guess from.
type leaf struct {
	Format     int                `json:"format"`
	Index      int64              `json:"index"`
	Type       delivery.EventType `json:"type"`
	At         time.Time          `json:"at"`
	Commitment string             `json:"commitment"` // hexadecimal SHA-256 of salt and payload
}

// Payload returns the canonical JSON of an event. It is invalid when it is
// longer than [PayloadLimit].
func Payload(e delivery.Event) ([]byte, error) {
	b, err := Canonical(e)
	if err != nil {
		return nil, delivery.Wrap(delivery.CodeInvalid, err, "The data of event %s (%s) is not JSON.", e.ID, e.Type)
	}
	if len(b) > PayloadLimit {
		return nil, delivery.Errorf(delivery.CodeInvalid, "Event %s (%s) has %d bytes; an audit entry holds at most %d: record long content by its digest.", e.ID, e.Type, len(b), PayloadLimit)
	}
	return b, nil
}

// NewEntry makes the entry of an event's payload at an index. Salt is
// [SaltSize] random bytes.
func NewEntry(index int64, payload, salt []byte) (Entry, error) {
	var about struct {
		Type delivery.EventType `json:"type"`
		At   time.Time          `json:"at"`
	}
	if err := json.Unmarshal(payload, &about); err != nil {
		return Entry{}, fmt.Errorf("audit: payload of entry %d: %w", index, err)
	}
	if len(salt) != SaltSize {
		return Entry{}, fmt.Errorf("audit: salt of %d bytes, want %d", len(salt), SaltSize)
	}
	b, err := Canonical(leaf{Format: leafFormat, Index: index, Type: about.Type, At: about.At.UTC(), Commitment: commitment(payload, salt)})
	if err != nil {
		return Entry{}, fmt.Errorf("audit: leaf of entry %d: %w", index, err)
	}
	return Entry{Index: index, Payload: payload, Salt: salt, Leaf: b}, nil
}

// Hashes returns the hashes that entry n adds to the stored tree, in tlog's
// order, beginning at tlog.StoredHashCount(n). The reader reads earlier ones.
func Hashes(n int64, leaf []byte, r tlog.HashReader) ([]tlog.Hash, error) {
	return tlog.StoredHashes(n, leaf, r)
}

// Check reports what is wrong with an entry that stands at index: a leaf of
// another index, or a payload that is not the one the leaf commits to.
func (e Entry) Check(index int64) error {
	if e.Index > index {
		return delivery.Errorf(delivery.CodeInvalid, "Entry %d is missing: entry %d stands in its place, so entries were removed or moved.", index, e.Index)
	}
	if e.Index < index {
		return delivery.Errorf(delivery.CodeInvalid, "Entry %d stands again in the place of entry %d: entries were inserted or moved.", e.Index, index)
	}
	var l leaf
	if err := decodeStrict(e.Leaf, &l); err != nil {
		return delivery.Wrap(delivery.CodeInvalid, err, "The leaf of entry %d is not a leaf: it was changed.", index)
	}
	if again, err := Canonical(l); err != nil || !bytes.Equal(again, e.Leaf) {
		return delivery.Errorf(delivery.CodeInvalid, "The leaf of entry %d is not in canonical form: it was changed.", index)
	}
	switch {
	case l.Format != leafFormat:
		return delivery.Errorf(delivery.CodeInvalid, "The leaf of entry %d has format %d, and this program knows format %d: use a newer tidegate.", index, l.Format, leafFormat)
	case l.Index != index:
		return delivery.Errorf(delivery.CodeInvalid, "The leaf of entry %d belongs to entry %d: entries were moved.", index, l.Index)
	case e.Erased() && len(e.Salt) == 0:
		return nil
	case e.Erased() || len(e.Salt) == 0:
		return delivery.Errorf(delivery.CodeInvalid, "Entry %d has only one of payload and salt: it was changed.", index)
	case len(e.Salt) != SaltSize:
		return delivery.Errorf(delivery.CodeInvalid, "The salt of entry %d has %d bytes instead of %d: it was changed.", index, len(e.Salt), SaltSize)
	case subtle.ConstantTimeCompare([]byte(commitment(e.Payload, e.Salt)), []byte(l.Commitment)) != 1:
		return delivery.Errorf(delivery.CodeInvalid, "The payload of entry %d is not the one that was logged: it was changed.", index)
	}
	return nil
}

func commitment(payload, salt []byte) string {
	h := sha256.New()
	h.Write(salt)
	h.Write(payload)
	return hex.EncodeToString(h.Sum(nil))
}

// Canonical returns v as JSON with sorted keys and without spaces, so that equal
// values are equal bytes. Unlike RFC 8785, numbers keep the text they were
// written with, and <, > and & are escaped as encoding/json does, so that a
// canonical value that is embedded in other JSON keeps its bytes.
func Canonical(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var generic any
	if err := d.Decode(&generic); err != nil {
		return nil, err
	}
	return json.Marshal(generic)
}

// decodeStrict reads exactly one JSON value without unknown keys.
func decodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}
