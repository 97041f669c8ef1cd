// Package host is the supervisor that runs on a host target: it makes real what
// effects ask for (programs, their instances, the shares of the traffic,
// command tasks), keeps it so, and says what is there.
//
// It is level-triggered: an effect changes the wanted state, durably and once
// per key, and returns; one reconciler brings programs and router to the wanted
// state and keeps them there, whether the server is reachable or not. Programs
// and the router are processes of their own that outlive the supervisor; after
// a restart it adopts what runs, by process id and start time, and never kills
// what it does not know.
//
// It decides nothing about deployments, holds no secret on disk and never runs
// a release as root unless it is told to. Start reading at [Supervisor].
package host
