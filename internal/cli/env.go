package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/tidegate-cd/tidegate/internal/client"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

const (
	outputText = "text"
	outputJSON = "json"

	defaultServer = "http://127.0.0.1:7420"
)

// Env is what every command has: streams and the options of the root command.
type Env struct {
	In       io.Reader
	Out, Err io.Writer

	Server, Token, Project, Output string
}

func (e *Env) check() error {
	if e.Output != outputText && e.Output != outputJSON {
		return delivery.Errorf(delivery.CodeInvalid, "--output %q is not known: use text or json.", e.Output)
	}
	return delivery.CheckName("project", e.Project)
}

// client connects to the server that the options, the environment or this
// machine's default name.
func (e *Env) client() (*client.Client, error) {
	server := first(e.Server, os.Getenv("TIDEGATE_SERVER"), defaultServer)
	token := first(e.Token, os.Getenv("TIDEGATE_TOKEN"))
	if token == "" {
		b, err := os.ReadFile(filepath.Join(defaultDir(), "server", "admin.token"))
		if err != nil {
			return nil, delivery.Errorf(delivery.CodeDenied, "No token was given: use --token or TIDEGATE_TOKEN; a server's first one is in the file admin.token of its data directory.")
		}
		token = strings.TrimSpace(string(b))
	}
	return client.New(client.Options{Address: server, Token: token, Channel: delivery.ChannelCLI})
}

// defaultDir is where server and host keep their data unless told otherwise.
func defaultDir() string {
	if dir := os.Getenv("TIDEGATE_DIR"); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "tidegate")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "tidegate-data"
	}
	return filepath.Join(home, ".local", "state", "tidegate")
}

// key names the placement of an application in an environment.
func (e *Env) key(application, environment string) (delivery.PlacementKey, error) {
	if environment == "" {
		return delivery.PlacementKey{}, delivery.Errorf(delivery.CodeInvalid, "No environment was given: add --env NAME.")
	}
	return delivery.PlacementKey{Project: e.Project, Application: application, Environment: environment}, nil
}

// print writes v as JSON, or as text by that function.
func (e *Env) print(v any, text func(w io.Writer)) error {
	if e.Output == outputJSON {
		encoder := json.NewEncoder(e.Out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(v)
	}
	text(e.Out)
	return nil
}

// table aligns tab-separated columns.
func table(w io.Writer, header string, rows func(w io.Writer)) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if header != "" {
		fmt.Fprintln(t, header)
	}
	rows(t)
	t.Flush()
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// reference splits "application@version"; without "@" the version is "".
func reference(s string) (application, version string) {
	application, version, _ = strings.Cut(s, "@")
	return application, version
}

// releaseReference requires "application@version".
func releaseReference(s string) (application, version string, err error) {
	application, version = reference(s)
	if application == "" || version == "" {
		return "", "", delivery.Errorf(delivery.CodeInvalid, "%q names no release: write APPLICATION@VERSION, e.g. shop@1.2.", s)
	}
	return application, version, nil
}
