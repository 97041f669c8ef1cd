package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

const (
	keyFile = "audit.key"
	// keyFileLimit is far more than a key has, in bytes.
	keyFileLimit = 4096
)

// Key signs the log's checkpoints (Ed25519, signed-note format).
type Key struct {
	signer   note.Signer
	verifier string
}

// Origin names the log, in the first line of each checkpoint. It is the key's name.
func (k *Key) Origin() string { return k.signer.Name() }

// Verifier returns the public key in the text form that [Verify] takes:
// name, "+", key hash, "+", base64.
func (k *Key) Verifier() string { return k.verifier }

// OpenKey reads the key from the file audit.key in the data directory, and makes
// it (mode 0600) where there is none. Name is the origin of a new log; "" gives
// it a random one. A log keeps its name for ever. Random may be nil for
// crypto/rand.
func OpenKey(dir *os.Root, name string, random io.Reader) (*Key, error) {
	text, err := readKey(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(dir, name, random); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		text, err = readKey(dir) // perhaps another process' key: the first one counts
	}
	if err != nil {
		if _, ok := errors.AsType[*delivery.Error](err); ok {
			return nil, err
		}
		return nil, delivery.Wrap(delivery.CodeUnavailable, err, "The audit key %s can't be read: check who may read the data directory.", keyFile)
	}
	return parseKey(strings.TrimSpace(string(text)))
}

func readKey(dir *os.Root) ([]byte, error) {
	file, err := dir.Open(keyFile)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, delivery.Errorf(delivery.CodeInvalid, "The audit key %s may be read by others (mode %04o): give it mode 0600, and if others were on this machine, start a new log.", keyFile, mode)
	}
	return io.ReadAll(io.LimitReader(file, keyFileLimit))
}

// makeKey writes a new key so that the file is complete as soon as it has its
// name, and an existing one is never replaced.
func makeKey(dir *os.Root, name string, random io.Reader) error {
	if random == nil {
		random = rand.Reader
	}
	suffix := make([]byte, 8)
	if _, err := io.ReadFull(random, suffix); err != nil {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The system gives no random numbers for the audit key; try again.")
	}
	if name == "" {
		name = "tidegate-" + hex.EncodeToString(suffix)
	}
	secret, public, err := note.GenerateKey(random, name)
	if err != nil {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The system gives no random numbers for the audit key; try again.")
	}
	if _, err := note.NewVerifier(public); err != nil {
		return delivery.Wrap(delivery.CodeInvalid, err, "%q can't name an audit log: use letters, digits, dots, slashes and hyphens.", name)
	}
	part := keyFile + "." + hex.EncodeToString(suffix)
	err = writeFile(dir, part, secret+"\n")
	if err == nil {
		err = dir.Link(part, keyFile)
	}
	if removing := dir.Remove(part); err == nil {
		err = removing
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The audit key can't be written: check that the data directory may be written and has space.")
	}
	return err
}

func writeFile(dir *os.Root, name, text string) error {
	file, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Sync(), file.Close())
}

// parseKey reads note's text form of a private key, whose last field is the
// algorithm's byte and the seed, and derives the public key, which note does not give.
func parseKey(text string) (*Key, error) {
	damaged := func(cause error) error {
		return delivery.Wrap(delivery.CodeInvalid, cause, "The audit key %s is damaged: restore it from a backup.", keyFile)
	}
	signer, err := note.NewSigner(text)
	if err != nil {
		return nil, damaged(err)
	}
	// base64 may have a "+" of its own: cut only what stands before it.
	fields := strings.SplitN(text, "+", 5)
	seed, err := base64.StdEncoding.DecodeString(fields[len(fields)-1])
	if err != nil || len(seed) != 1+ed25519.SeedSize {
		return nil, damaged(fmt.Errorf("seed of %d bytes: %w", len(seed), err))
	}
	public, ok := ed25519.NewKeyFromSeed(seed[1:]).Public().(ed25519.PublicKey)
	if !ok {
		return nil, damaged(errors.New("no Ed25519 key"))
	}
	verifier, err := note.NewEd25519VerifierKey(signer.Name(), public)
	if err != nil {
		return nil, damaged(err)
	}
	return &Key{signer: signer, verifier: verifier}, nil
}
