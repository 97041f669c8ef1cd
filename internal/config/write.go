package config

import (
	"fmt"
	"os"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Init returns a first Application document for a program: a file, or a
// directory that is to become a tar archive.
func Init(name, program string) ([]byte, error) {
	if err := delivery.CheckName("application", name); err != nil {
		return nil, err
	}
	info, err := os.Stat(program)
	if err != nil {
		return nil, unreadable(program, err)
	}
	command, artifact := "", program
	if info.IsDir() {
		command, artifact = "\n      command: bin/"+name+"        # the program inside the archive", name+".tar.gz"
	}
	return fmt.Appendf(nil, initDocument, delivery.APIVersion, name, name, command, artifact), nil
}

const initDocument = `apiVersion: %s
kind: Application
metadata:
  name: %s
spec:
  services:
    - name: %s%s
      # Tidegate gives every instance a port of its own, here and in $PORT.
      args: ["--listen", "127.0.0.1:${PORT}"]
      # env: {LOG_LEVEL: info}
      # secrets: {DATABASE_URL: {file: /etc/secrets/database}}
      # readiness: {http: /healthz}   # default: the port accepts connections
      # instances: 2
  # The path is dev -> staging -> production unless you say otherwise:
  # path:
  #   - environment: dev
  #   - environment: staging
  #     soak: 10m
  #   - environment: production
  #     promotion: manual
  #     approvals: [{count: 1, group: approvers}]
#
# Next:  tidegate apply -f FILE
#        tidegate release create %[2]s@1 --artifact %[5]s --promote --watch
`
