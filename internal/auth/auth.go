// Package auth decides who somebody is: it makes tokens and turns a token into
// an actor. What the actor may do is internal/control's matter.
//
// Only hashes of tokens are stored. Start reading at [Tokens].
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
	"github.com/tidegate-cd/tidegate/internal/store"
)

const (
	prefix = "tg_"
	// Issuer is who vouches for the subjects of Tidegate's own tokens.
	Issuer = "tidegate"
	// KindAPI is the kind of a token that speaks to the API.
	KindAPI = "api"
	// adminFile holds the first administrator's token, readable by its owner only.
	adminFile = "admin.token"
)

// Tokens makes and checks API tokens.
type Tokens struct {
	Store store.Store
	NewID func() delivery.ID
}

// Secret makes a new token's text: "tg_" and 32 random bytes.
func Secret() string {
	var b [32]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return prefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// Hash is what is stored of a token: its hexadecimal SHA-256. The token has 256
// random bits, so a fast hash is enough.
func Hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// errUnknown is one answer for every token that does not count, so that nobody
// learns which part was wrong.
var errUnknown = delivery.Errorf(delivery.CodeDenied, "The token is not known, has expired or was revoked: ask an administrator for another.")

// Authenticate returns who acts with a token.
func (t *Tokens) Authenticate(ctx context.Context, secret string) (delivery.Actor, error) {
	if !strings.HasPrefix(secret, prefix) || len(secret) != len(prefix)+43 {
		return delivery.Actor{}, errUnknown
	}
	hash := Hash(secret)
	token, err := t.Store.TokenByHash(ctx, hash)
	if delivery.ErrorCode(err) == delivery.CodeNotFound {
		return delivery.Actor{}, errUnknown
	}
	if err != nil {
		return delivery.Actor{}, err
	}
	now, err := t.Store.Now(ctx)
	if err != nil {
		return delivery.Actor{}, err
	}
	if subtle.ConstantTimeCompare([]byte(token.Hash), []byte(hash)) != 1 || token.Kind != KindAPI || token.Revoked ||
		token.Name == "" || !token.Expires.IsZero() && !now.Before(token.Expires) {
		return delivery.Actor{}, errUnknown
	}
	return delivery.Actor{Subject: token.Name, Issuer: Issuer, Groups: token.Groups, Channel: delivery.ChannelAPI}, nil
}

// EnsureAdministrator makes an administrator's token at the first start and
// writes it into dir, readable by the owner only.
func (t *Tokens) EnsureAdministrator(ctx context.Context, dir *os.Root) error {
	if b, err := dir.ReadFile(adminFile); err == nil {
		if _, err := t.Authenticate(ctx, strings.TrimSpace(string(b))); err == nil || delivery.ErrorCode(err) != delivery.CodeDenied {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The file %s in the data directory can't be read.", adminFile)
	}
	tokens, err := t.Store.Tokens(ctx)
	if err != nil {
		return err
	}
	for _, token := range tokens {
		if token.Kind == KindAPI && !token.Revoked {
			return nil // the file was put away on purpose: others can sign in
		}
	}
	now, err := t.Store.Now(ctx)
	if err != nil {
		return err
	}
	return t.writeAdministrator(ctx, dir, now)
}

func (t *Tokens) writeAdministrator(ctx context.Context, dir *os.Root, now time.Time) error {
	secret := Secret()
	f, err := dir.OpenFile(adminFile, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The file %s in the data directory can't be written: %v.", adminFile, err)
	}
	defer f.Close()
	if _, err := f.WriteString(secret + "\n"); err != nil {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The file %s in the data directory can't be written: %v.", adminFile, err)
	}
	if err := f.Sync(); err != nil {
		return delivery.Wrap(delivery.CodeUnavailable, err, "The file %s in the data directory can't be written: %v.", adminFile, err)
	}
	token := store.Token{
		ID: t.NewID(), Hash: Hash(secret), Name: "administrator", Kind: KindAPI,
		Groups: []string{delivery.GroupAdministrators}, CreatedAt: now, CreatedBy: delivery.System(),
	}
	_, err = t.Store.Commit(ctx, store.Change{Tokens: []store.Token{token}, Events: []delivery.Event{{
		ID: t.NewID(), Type: delivery.EventTokenCreated, Project: delivery.DefaultProject, Actor: delivery.System(), At: now,
		Message: "The first administrator's token was made.",
	}}})
	return err
}
