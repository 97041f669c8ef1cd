// Package proxy is the data plane of a host target: a process of its own that
// takes the requests of every service on the host and shares them among the
// workloads by the weights it was last given. It owns the listening sockets,
// the weights as they are applied, and the counts that analysis judges. It
// decides nothing: it knows neither releases' merits nor processes, and it goes
// on with its last configuration when the supervisor or the server is gone.
//
// The supervisor speaks to it through [Client] over a Unix socket; the process
// itself is [Run]. Start reading at [Config] (what it is told), then [Status]
// (what it says), then server in server.go (how it serves).
package proxy
