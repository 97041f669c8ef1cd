// Package audit is the arithmetic of the audit log: how an event becomes a
// leaf, the Merkle tree over the leaves (RFC 6962, by
// golang.org/x/mod/sumdb/tlog), its signed heads (C2SP tlog-checkpoint), proofs
// and the verification of an export without a server.
//
// It stores nothing and decides nothing: internal/store writes the entries in
// the transaction of the change that they record, and [Log] reads them through
// the small interface [Reader]. Start reading at [Entry], then [Verify].
package audit
