package delivery

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// ID identifies a record that Tidegate made: a UUIDv7 in its text form, made
// by the shell and handed in, so that ids sort by the time they were made.
type ID string

// Digest names content: "sha256:" and 64 lower-case hexadecimal digits.
type Digest string

var digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// Valid reports whether d has the form of a digest.
func (d Digest) Valid() bool { return digestPattern.MatchString(string(d)) }

// Short returns the first twelve hexadecimal digits, for people to read.
func (d Digest) Short() string {
	_, hexadecimal, _ := strings.Cut(string(d), ":")
	return hexadecimal[:min(12, len(hexadecimal))]
}

// Hex returns the digest without its algorithm.
func (d Digest) Hex() string {
	_, hexadecimal, _ := strings.Cut(string(d), ":")
	return hexadecimal
}

// DigestBytes returns the digest of b itself, as artifacts and blobs have it.
func DigestBytes(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// digestOf returns the digest of a value under a domain, so that two kinds of
// value never share a digest. encoding/json writes struct fields in their
// order and map keys sorted, so equal values have equal digests everywhere.
func digestOf(domain string, v any) Digest {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("delivery: %s is not JSON: %v", domain, err)) // only our own plain structs come here
	}
	return DigestBytes(append([]byte(domain+"\n"), b...))
}

// Name rules: applications, environments, services, targets and the like are
// DNS labels, so that they fit in host names, labels, paths and URLs.
var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckName returns an error of [CodeInvalid] unless name is a DNS label
// (1 to 63 lower-case letters, digits and inner hyphens). What says which name.
func CheckName(what, name string) error {
	if namePattern.MatchString(name) {
		return nil
	}
	return Errorf(CodeInvalid, "The %s name %q is not valid: use 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit.", what, name)
}

// DefaultProject is the project of everything that names none.
const DefaultProject = "default"

// Duration is a time span that is written as text ("1m30s") in documents and
// in JSON. Unit: nanoseconds.
type Duration time.Duration

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns the span as Go writes it, "1m30s".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the span as "1m30s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a span such as "300ms", "1m30s" or "24h"; it must not be negative.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return Errorf(CodeInvalid, "%q is not a duration: write it like 30s, 5m or 1h30m.", text)
	}
	*d = Duration(v)
	return nil
}
