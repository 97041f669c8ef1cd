// Package delivery is Tidegate's vocabulary: the nouns that every other
// package speaks of, with their validation and their digests, and nothing
// else. It performs no I/O, reads no clock, makes no identifiers and imports
// no third party, so that a decision can be tested, stored and repeated from
// its values alone.
//
// Start reading at [Release] (what is delivered), [Plan] (exactly what a
// deployment will do) and [Placement] (the unit that is reconciled).
package delivery
