package store

import (
	"crypto/rand"
	"io"
	"time"
)

// Options are what a store is given. The zero value is usable.
type Options struct {
	// Now is the time that leases are measured on; default time.Now. The store
	// rounds it down to microseconds.
	Now func() time.Time

	// Fault is asked at each durability boundary: "commit.before",
	// "commit.after", "claim.before" and "claim.after". Its error is returned
	// as it is. Before, nothing was written; after, everything was, as if the
	// process had died between writing and hearing of it. May be nil.
	Fault func(point string) error

	// Random gives the salts of audit entries; default crypto/rand.
	Random io.Reader
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Fault == nil {
		o.Fault = func(string) error { return nil }
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	return o
}
