package host

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// maxSecret bounds a secret's value in bytes; an environment can't hold more.
const maxSecret = 128 << 10

// redacted stands for a secret value wherever a person could read it.
const redacted = "[secret]"

// resolveSecrets reads the values that a workload's references name on this
// host. They go into the program's environment and nowhere else.
func resolveSecrets(references map[string]delivery.Secret) (map[string]string, error) {
	values := map[string]string{}
	for name, ref := range references {
		switch {
		case ref.File != "" && ref.Env == "":
			value, err := secretFile(ref.File)
			if err != nil {
				return nil, fmt.Errorf("secret %s: %w", name, err)
			}
			values[name] = value
		case ref.Env != "" && ref.File == "":
			value, ok := os.LookupEnv(ref.Env)
			if !ok {
				return nil, delivery.Errorf(delivery.CodeInvalid, "secret %s: the host's environment has no variable %s.", name, ref.Env)
			}
			values[name] = value
		default:
			return nil, delivery.Errorf(delivery.CodeInvalid, "secret %s: name either a file or a variable of the host.", name)
		}
	}
	return values, nil
}

// secretFile reads a file that a document names. The path is the operator's
// own choice on this machine, so links are followed.
func secretFile(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", delivery.Errorf(delivery.CodeInvalid, "the path %q of its file is not absolute.", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", delivery.Wrap(delivery.CodeInvalid, err, "the host can't read %s.", path)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", delivery.Wrap(delivery.CodeInvalid, err, "the host can't read %s.", path)
	}
	if len(b) > maxSecret || bytes.IndexByte(b, 0) >= 0 {
		return "", delivery.Errorf(delivery.CodeInvalid, "%s is longer than %d bytes or is not text.", path, maxSecret)
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}

// redactor removes secret values from what people read.
type redactor struct{ values []string }

// newRedactor takes values, and the lines of those that have several.
func newRedactor(values ...string) redactor {
	var r redactor
	for _, v := range values {
		r.values = append(r.values, v)
		if strings.Contains(v, "\n") {
			for line := range strings.SplitSeq(v, "\n") {
				if len(line) > 3 {
					r.values = append(r.values, line)
				}
			}
		}
	}
	r.values = slices.DeleteFunc(r.values, func(v string) bool { return v == "" })
	// The longest first, so that a value within another leaves no rest.
	slices.SortFunc(r.values, func(a, b string) int { return len(b) - len(a) })
	r.values = slices.Compact(r.values)
	return r
}

// clean returns one line of valid UTF-8 without secret values and control characters.
func (r redactor) clean(line string) string {
	for _, v := range r.values {
		line = strings.ReplaceAll(line, v, redacted)
	}
	return strings.Map(func(c rune) rune {
		if c == utf8.RuneError || c < ' ' && c != '\t' || c == 0x7f {
			return -1
		}
		return c
	}, line)
}

// secretsOf returns the values that a process was given, as its environment
// still shows them: the references may name other values by now.
func secretsOf(pid int, references map[string]delivery.Secret) []string {
	var values []string
	for _, v := range environment(pid) {
		name, value, _ := strings.Cut(string(v), "=")
		if _, ok := references[name]; ok {
			values = append(values, value)
		}
	}
	return values
}
