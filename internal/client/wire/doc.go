// Package wire is the requests and answers of Tidegate's front door, as plain
// values: what the API carries as JSON, what internal/client sends and gets,
// and what internal/control takes and gives. Nouns that internal/delivery has
// already are used as they are.
//
// It decides nothing, performs no I/O and imports only internal/delivery, so
// that the command line can know the API without knowing the server. Start
// reading at [Overview] and [Promote].
package wire
