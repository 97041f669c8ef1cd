// Package remote is the one protocol between Tidegate's server and the
// machines that act for it: a host today, an agent beside a cluster later. The
// machine always dials out, over mutually authenticated TLS 1.3; it claims
// effects by a long poll, does them, and returns results and reports. Whatever
// is lost on the way is asked for or sent again: effects are idempotent by
// their key, results are sent until acknowledged, reports replace each other.
//
// It owns the identity of machines (the server's certificate authority,
// one-time enrolment, renewal) and the wire format. It decides nothing about
// deployments and keeps no state but keys and certificates: what the server
// knows is behind [Backend], what a machine does is behind [Machine].
//
// Start reading at [Server] (one end) and [Client] (the other).
package remote
