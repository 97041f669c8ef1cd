package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Checkpoint is a head of the log. In its signed form it is a C2SP
// tlog-checkpoint: a note of the lines origin, size and base64 of the root.
type Checkpoint struct {
	Origin string    `json:"origin"`
	Size   int64     `json:"size"` // entries
	Root   tlog.Hash `json:"root"` // base64 in JSON
}

// text is what is signed.
func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
}

func (k *Key) sign(c Checkpoint) (string, error) {
	b, err := note.Sign(&note.Note{Text: c.text()}, k.signer)
	return string(b), err
}

// OpenCheckpoint checks the signature of a checkpoint with the public key in
// its text form (see [Key.Verifier]) and reads it.
func OpenCheckpoint(signed, verifierKey string) (Checkpoint, error) {
	verifier, err := note.NewVerifier(strings.TrimSpace(verifierKey))
	if err != nil {
		return Checkpoint{}, delivery.Wrap(delivery.CodeInvalid, err, "%q is not a public key of an audit log: it has the form name+hash+key.", verifierKey)
	}
	n, err := note.Open([]byte(signed), note.VerifierList(verifier))
	if _, ok := errors.AsType[*note.InvalidSignatureError](err); ok {
		return Checkpoint{}, delivery.Wrap(delivery.CodeInvalid, err, "The checkpoint was changed: it is not what the key of %s signed.", verifier.Name())
	}
	if _, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		return Checkpoint{}, delivery.Wrap(delivery.CodeInvalid, err, "The checkpoint is not signed by the key of %s that was given: it is another log's, or the wrong key.", verifier.Name())
	}
	if err != nil {
		return Checkpoint{}, delivery.Wrap(delivery.CodeInvalid, err, "The checkpoint is not a signed note.")
	}
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, delivery.Wrap(delivery.CodeInvalid, err, "The checkpoint that %s signed is not a checkpoint.", verifier.Name())
	}
	if c.Origin != verifier.Name() {
		return Checkpoint{}, delivery.Errorf(delivery.CodeInvalid, "The checkpoint is of the log %q, but the key is of the log %q.", c.Origin, verifier.Name())
	}
	return c, nil
}

// parseCheckpoint reads a note's text. Lines after the third are extensions,
// which the format allows and we ignore.
func parseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[0] == "" || lines[len(lines)-1] != "" {
		return Checkpoint{}, errors.New("not three lines")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return Checkpoint{}, fmt.Errorf("size %q", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return Checkpoint{}, fmt.Errorf("root %q", lines[2])
	}
	return Checkpoint{Origin: lines[0], Size: size, Root: tlog.Hash(root)}, nil
}
