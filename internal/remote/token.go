package remote

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

const tokenPrefix = "tge_"

// EnrolmentToken is what lets a machine enrol once. Its text form,
// "tge_SECRET.FINGERPRINT", carries the fingerprint of the server's
// certificate authority, so that the machine knows the server at first contact.
type EnrolmentToken struct {
	Secret      string // base64url of 32 random bytes; only its hash is ever stored
	Fingerprint string // hexadecimal SHA-256 of the authority's SubjectPublicKeyInfo
}

// NewEnrolmentToken makes a token for the authority with that fingerprint (see
// [Server.Fingerprint]). Store Hash under [store.Token].Hash with the kind
// "enrol" and the host's name; show String once.
func NewEnrolmentToken(fingerprint string) EnrolmentToken {
	var secret [32]byte
	rand.Read(secret[:]) // never fails: crypto/rand ends the program instead
	return EnrolmentToken{Secret: base64.RawURLEncoding.EncodeToString(secret[:]), Fingerprint: fingerprint}
}

// ParseEnrolmentToken reads what String writes.
func ParseEnrolmentToken(text string) (EnrolmentToken, error) {
	wrong := delivery.Errorf(delivery.CodeInvalid, "The enrolment token is not complete: copy the whole text, from tge_ to its end.")
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok {
		return EnrolmentToken{}, wrong
	}
	secret, fingerprint, ok := strings.Cut(rest, ".")
	if !ok {
		return EnrolmentToken{}, wrong
	}
	if b, err := base64.RawURLEncoding.Strict().DecodeString(secret); err != nil || len(b) != 32 {
		return EnrolmentToken{}, wrong
	}
	if b, err := hex.DecodeString(fingerprint); err != nil || len(b) != sha256.Size || strings.ToLower(fingerprint) != fingerprint {
		return EnrolmentToken{}, wrong
	}
	return EnrolmentToken{Secret: secret, Fingerprint: fingerprint}, nil
}

// String returns the text that a person copies to the machine.
func (t EnrolmentToken) String() string { return tokenPrefix + t.Secret + "." + t.Fingerprint }

// Hash returns what is stored of the token.
func (t EnrolmentToken) Hash() string { return HashToken(t.Secret) }

// HashToken returns the hexadecimal SHA-256 of a token's secret half.
func HashToken(secret string) string { return hexSum([]byte(secret)) }

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
