package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Proof shows, without the server, that an entry is in the log that a
// checkpoint signs (RFC 6962, section 2.1.1). It has all that [VerifyProof]
// needs but the public key.
type Proof struct {
	Entry      Entry       `json:"entry"`
	Hashes     []tlog.Hash `json:"hashes"` // from the leaf's sibling up
	Checkpoint string      `json:"checkpoint"`
}

// Consistency shows that the log which Checkpoint signs begins with the Size
// entries of an older checkpoint (RFC 6962, section 2.1.2).
type Consistency struct {
	Size       int64       `json:"size"`
	Hashes     []tlog.Hash `json:"hashes"`
	Checkpoint string      `json:"checkpoint"`
}

// InclusionProof returns the proof of the entry at index under a checkpoint of
// the log as it is now. It is not_found for an index beyond the log.
func (l *Log) InclusionProof(ctx context.Context, index int64) (Proof, error) {
	size, err := l.reader.AuditSize(ctx)
	if err != nil {
		return Proof{}, err
	}
	entry, err := l.entry(ctx, index, size)
	if err != nil {
		return Proof{}, err
	}
	signed, _, err := l.checkpoint(ctx, size)
	if err != nil {
		return Proof{}, err
	}
	hashes, err := tlog.ProveRecord(size, index, l.hashes(ctx))
	if err != nil {
		return Proof{}, unreadable(err)
	}
	return Proof{Entry: entry, Hashes: hashes, Checkpoint: signed}, nil
}

// ConsistencyProof returns the proof that the log as it is now begins with the
// size entries it once had. It is invalid for a size that the log never had.
func (l *Log) ConsistencyProof(ctx context.Context, size int64) (Consistency, error) {
	now, err := l.reader.AuditSize(ctx)
	if err != nil {
		return Consistency{}, err
	}
	if size < 1 || size > now {
		return Consistency{}, delivery.Errorf(delivery.CodeInvalid, "There is no proof from %d entries: the log has %d, and a proof begins at 1.", size, now)
	}
	signed, _, err := l.checkpoint(ctx, now)
	if err != nil {
		return Consistency{}, err
	}
	hashes, err := tlog.ProveTree(now, size, l.hashes(ctx))
	if err != nil {
		return Consistency{}, unreadable(err)
	}
	return Consistency{Size: size, Hashes: hashes, Checkpoint: signed}, nil
}

// VerifyProof checks a proof with the log's public key in its text form and
// returns the checkpoint that the entry stands under.
func VerifyProof(p Proof, verifierKey string) (Checkpoint, error) {
	c, err := OpenCheckpoint(p.Checkpoint, verifierKey)
	if err != nil {
		return c, err
	}
	if err := p.Entry.Check(p.Entry.Index); err != nil {
		return c, err
	}
	if err := tlog.CheckRecord(p.Hashes, c.Size, c.Root, p.Entry.Index, tlog.RecordHash(p.Entry.Leaf)); err != nil {
		return c, delivery.Wrap(delivery.CodeInvalid, err, "The proof does not hold: entry %d is not in the log of %d entries that %s signed.", p.Entry.Index, c.Size, c.Origin)
	}
	return c, nil
}

// VerifyConsistency checks that the log of a consistency proof begins with the
// entries of an older signed checkpoint, with the log's public key.
func VerifyConsistency(older string, p Consistency, verifierKey string) error {
	before, err := OpenCheckpoint(older, verifierKey)
	if err != nil {
		return err
	}
	now, err := OpenCheckpoint(p.Checkpoint, verifierKey)
	if err != nil {
		return err
	}
	if before.Size != p.Size {
		return delivery.Errorf(delivery.CodeInvalid, "The proof begins at %d entries, but the older checkpoint has %d.", p.Size, before.Size)
	}
	if err := tlog.CheckTree(p.Hashes, now.Size, now.Root, before.Size, before.Root); err != nil {
		return delivery.Wrap(delivery.CodeInvalid, err, "The log was rewritten: its %d entries do not begin with the %d that the older checkpoint signs.", now.Size, before.Size)
	}
	return nil
}

// proofHeader is the first line of a C2SP tlog-proof.
const proofHeader = "c2sp.org/tlog-proof@v1"

// Text returns the proof as a C2SP tlog-proof; the entry is its extra data.
func (p Proof) Text() (string, error) {
	entry, err := json.Marshal(p.Entry)
	if err != nil {
		return "", delivery.Wrap(delivery.CodeInvalid, err, "Entry %d is not JSON.", p.Entry.Index)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nextra %s\nindex %d\n", proofHeader, base64.StdEncoding.EncodeToString(entry), p.Entry.Index)
	for _, h := range p.Hashes {
		fmt.Fprintf(&b, "%s\n", h)
	}
	fmt.Fprintf(&b, "\n%s", p.Checkpoint)
	return b.String(), nil
}

// proofHashes is more than a log of any size needs.
const proofHashes = 64

// ParseProof reads what [Proof.Text] writes. It does not check it: see [VerifyProof].
func ParseProof(text string) (Proof, error) {
	bad := func(what string) (Proof, error) {
		return Proof{}, delivery.Errorf(delivery.CodeInvalid, "This is not a proof of an audit entry: %s.", what)
	}
	head, checkpoint, ok := strings.Cut(text, "\n\n")
	if !ok {
		return bad("it has no checkpoint")
	}
	lines := strings.Split(head, "\n")
	if len(lines) < 3 || lines[0] != proofHeader {
		return bad("its first line is not " + proofHeader)
	}
	extra, ok := strings.CutPrefix(lines[1], "extra ")
	if !ok {
		return bad("its second line has no entry")
	}
	encoded, err := base64.StdEncoding.Strict().DecodeString(extra)
	if err != nil {
		return bad("its second line is not base64")
	}
	p := Proof{Checkpoint: checkpoint}
	if p.Entry, err = decodeEntry(encoded); err != nil {
		return bad("its second line is not an entry")
	}
	if lines[2] != "index "+strconv.FormatInt(p.Entry.Index, 10) {
		return bad("its third line is not the entry's index")
	}
	if len(lines)-3 > proofHashes {
		return bad("it has too many hashes")
	}
	for i, line := range lines[3:] {
		h, err := tlog.ParseHash(line)
		if err != nil || h.String() != line { // ParseHash reads bits that mean nothing
			return bad(fmt.Sprintf("line %d is not a hash", i+4))
		}
		p.Hashes = append(p.Hashes, h)
	}
	return p, nil
}

// decodeEntry reads an entry that is written exactly as we write it, so that
// there is one reading of it.
func decodeEntry(b []byte) (Entry, error) {
	var e Entry
	if err := decodeStrict(b, &e); err != nil {
		return e, err
	}
	again, err := json.Marshal(e)
	if err != nil {
		return e, err
	}
	if !bytes.Equal(again, b) {
		return e, fmt.Errorf("entry %d is not in its canonical form", e.Index)
	}
	return e, nil
}
