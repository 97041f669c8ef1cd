// Package client speaks Tidegate's API (/api/v1, JSON over HTTP). It owns the
// way there and back: addresses, the bearer token, idempotency keys, repeats
// after a lost connection, errors, lists and the resumable event stream. It
// decides nothing and knows nothing of the server but internal/client/wire.
//
// Start reading at [Client].
package client
