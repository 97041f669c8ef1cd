// Package cli is the command line: it turns arguments into calls of
// internal/client, and answers into text or JSON. It decides nothing.
//
// A command is a file's function newXCmd(env) that fills options and a run
// function that does it. Start reading at [Main] and [Env].
package cli
