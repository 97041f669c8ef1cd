package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Summary is what [Verify] found to be true.
type Summary struct {
	Checkpoint
	Verifier   string `json:"verifier"`            // the public key that was used
	OwnKey     bool   `json:"ownKey,omitempty"`    // it was the export's own: that shows only that the export fits itself
	Erased     int64  `json:"erased"`              // entries whose payload was erased
	OlderSize  int64  `json:"olderSize,omitempty"` // entries of the older checkpoint that it continues
	EntryCount int64  `json:"entries"`             // entries that were checked: all of them
	Signed     string `json:"signedCheckpoint"`    // to keep for the next time
}

// Verify checks an export without the server: every payload is the one its
// leaf commits to, every leaf stands at its index, and all leaves together give
// the root that the checkpoint signs with verifierKey, the public key in its
// text form; "" takes the export's own. Older is a signed checkpoint from an
// earlier time, "" for none: the log must go on from it. The error is invalid
// and one sentence, with the index of the entry where one can be told. Nothing
// can be told of one entry when a forger made leaves anew: then the root differs.
func Verify(r io.Reader, verifierKey, older string) (Summary, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), exportLine)
	s, err := verifyHeader(lines, verifierKey)
	if err != nil {
		return s, err
	}
	var before *Checkpoint
	if older != "" {
		c, err := OpenCheckpoint(older, s.Verifier)
		if err != nil {
			return s, delivery.Wrap(delivery.CodeInvalid, err, "The older checkpoint can't be used. %s", err)
		}
		if c.Size > s.Size {
			return s, delivery.Errorf(delivery.CodeInvalid, "Entries were removed: the older checkpoint signs %d entries, and this log has only %d, so entry %d is missing.", c.Size, s.Size, s.Size)
		}
		before = &c
	}
	var tree tree
	if err := checkOlder(before, &tree); err != nil {
		return s, err
	}
	for s.EntryCount < s.Size {
		e, err := readEntry(lines, s.EntryCount, s.Size)
		if err != nil {
			return s, err
		}
		if e.Erased() {
			s.Erased++
		}
		tree.add(e.Leaf)
		s.EntryCount++
		if err := checkOlder(before, &tree); err != nil {
			return s, err
		}
	}
	if lines.Scan() {
		return s, delivery.Errorf(delivery.CodeInvalid, "Entry %d stands after the end: the checkpoint signs %d entries, so it was added.", s.Size, s.Size)
	}
	if err := lines.Err(); err != nil {
		return s, brokenOff(err, s.Size)
	}
	if tree.root() != s.Root {
		return s, forged(before, s.Size)
	}
	if before != nil {
		s.OlderSize = before.Size
	}
	return s, nil
}

func verifyHeader(lines *bufio.Scanner, verifierKey string) (Summary, error) {
	notExport := func(cause error) error {
		return delivery.Wrap(delivery.CodeInvalid, cause, "This is not an export of an audit log: its first line is no header; make one with tidegate audit export.")
	}
	if !lines.Scan() {
		return Summary{}, notExport(lines.Err())
	}
	var h header
	if err := decodeStrict(lines.Bytes(), &h); err != nil {
		return Summary{}, notExport(err)
	}
	if again, err := json.Marshal(h); err != nil || !bytes.Equal(again, lines.Bytes()) || h.Format != exportFormat {
		return Summary{}, notExport(err)
	}
	if h.Version != exportVersion {
		return Summary{}, delivery.Errorf(delivery.CodeInvalid, "The export has version %d, and this program knows version %d: use the tidegate that made it.", h.Version, exportVersion)
	}
	s := Summary{Verifier: verifierKey, Signed: h.Checkpoint}
	if verifierKey == "" {
		s.Verifier, s.OwnKey = h.VerifierKey, true
	}
	c, err := OpenCheckpoint(h.Checkpoint, s.Verifier)
	if err != nil {
		return s, err
	}
	s.Checkpoint = c
	if h.VerifierKey != strings.TrimSpace(s.Verifier) {
		return s, delivery.Errorf(delivery.CodeInvalid, "The header was changed: it names the public key %s, and the checkpoint is signed by %s.", h.VerifierKey, s.Verifier)
	}
	if h.Size != c.Size || h.Origin != c.Origin {
		return s, delivery.Errorf(delivery.CodeInvalid, "The header was changed: it says %d entries of %q, and the checkpoint signs %d of %q.", h.Size, h.Origin, c.Size, c.Origin)
	}
	return s, nil
}

// readEntry reads and checks the entry that must come next.
func readEntry(lines *bufio.Scanner, index, size int64) (Entry, error) {
	if !lines.Scan() {
		if err := lines.Err(); err != nil {
			return Entry{}, brokenOff(err, index)
		}
		return Entry{}, delivery.Errorf(delivery.CodeInvalid, "The export ends before entry %d, and the checkpoint signs %d entries: entries were removed, or the file was cut off.", index, size)
	}
	e, err := decodeEntry(lines.Bytes())
	if err != nil {
		return e, delivery.Wrap(delivery.CodeInvalid, err, "Entry %d is not written as an export writes it: its line was changed or cut off.", index)
	}
	return e, e.Check(index)
}

func brokenOff(err error, index int64) error {
	if errors.Is(err, bufio.ErrTooLong) {
		return delivery.Wrap(delivery.CodeInvalid, err, "Entry %d is longer than an entry can be: its line was changed.", index)
	}
	return delivery.Wrap(delivery.CodeUnavailable, err, "The export could not be read at entry %d; try again.", index)
}

// checkOlder compares the tree with the older checkpoint when it has its size.
func checkOlder(before *Checkpoint, t *tree) error {
	if before == nil || before.Size != t.size || t.root() == before.Root {
		return nil
	}
	return delivery.Errorf(delivery.CodeInvalid, "The log was rewritten (a fork): an entry from 0 to %d is not what it was when the older checkpoint was signed.", before.Size-1)
}

// forged is the error for leaves that fit their payloads but not the root.
func forged(before *Checkpoint, size int64) error {
	first := int64(0)
	if before != nil {
		first = before.Size
	}
	if size == 0 {
		return delivery.Errorf(delivery.CodeInvalid, "The checkpoint does not sign an empty log.")
	}
	return delivery.Errorf(delivery.CodeInvalid, "An entry from %d to %d was changed together with its leaf: all of them do not give the root that the checkpoint signs.", first, size-1)
}

// tree computes the root of leaves as they come (RFC 6962, section 2.1): the
// roots of its complete subtrees, largest first.
type tree struct {
	size  int64
	roots []tlog.Hash
}

func (t *tree) add(leaf []byte) {
	h := tlog.RecordHash(leaf)
	for n := t.size; n&1 == 1; n >>= 1 { // each set bit is a complete subtree
		h = tlog.NodeHash(t.roots[len(t.roots)-1], h)
		t.roots = t.roots[:len(t.roots)-1]
	}
	t.roots = append(t.roots, h)
	t.size++
}

func (t *tree) root() tlog.Hash {
	if t.size == 0 {
		empty, _ := tlog.TreeHash(0, nil) // reads nothing
		return empty
	}
	h := t.roots[len(t.roots)-1]
	for i := len(t.roots) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.roots[i], h)
	}
	return h
}
