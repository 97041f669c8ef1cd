package remote

import (
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// The routes. All carry JSON but artifacts.
const (
	pathEnrol     = "/remote/v1/enrol"
	pathRenew     = "/remote/v1/renew"
	pathEffects   = "/remote/v1/effects"
	pathDeliver   = "/remote/v1/deliver"
	pathLogs      = "/remote/v1/logs"
	pathArtifacts = "/remote/v1/artifacts/"
)

// Limits of the protocol.
const (
	pollTime      = 25 * time.Second // longest wait of an effects request; below the usual 30 s of middle boxes
	maxRequest    = 4 << 20          // bytes of a machine's request
	maxReply      = 16 << 20         // bytes of a server's JSON reply
	maxEffects    = 256              // effects in one reply; the rest come with the next poll
	maxLogLines   = 5000             // lines of one log answer
	maxLineLength = 4096             // bytes of one log line that are kept
)

// serverName is the name in every server certificate of a Tidegate server.
// Machines check it instead of the address they dialled: the certificate
// authority is this server's own, so whoever shows the name is the server,
// also behind a forwarded port or a changed address.
const serverName = "server.tidegate.internal"

type enrolRequest struct {
	Token string `json:"token"` // the secret half of the enrolment token
	Name  string `json:"name"`
	CSR   []byte `json:"csr"` // DER
}

type renewRequest struct {
	CSR []byte `json:"csr"` // DER
}

// certificateReply answers enrol and renew.
type certificateReply struct {
	Certificate []byte `json:"certificate"` // DER
	CA          []byte `json:"ca"`          // DER
}

type effectsRequest struct {
	InFlight []delivery.EffectKey `json:"inFlight,omitempty"` // received, and no result acknowledged yet
}

type effectsReply struct {
	Targets []string          `json:"targets"` // that the machine answers for
	Effects []delivery.Effect `json:"effects,omitempty"`
	Logs    []logRequest      `json:"logs,omitempty"`
}

type deliverRequest struct {
	Results []delivery.Result `json:"results,omitempty"`
	Reports []delivery.Report `json:"reports,omitempty"`
}

type logRequest struct {
	ID    string   `json:"id"`
	Query LogQuery `json:"query"`
}

type logAnswer struct {
	ID    string    `json:"id"`
	Lines []LogLine `json:"lines,omitempty"`
	Error string    `json:"error,omitempty"`
}

// LogQuery asks for the last lines that a service's instances wrote.
type LogQuery struct {
	Placement delivery.PlacementKey `json:"placement"`
	Service   string                `json:"service"`
	Target    string                `json:"target,omitempty"`   // "": every target of the machine
	Workload  delivery.Digest       `json:"workload,omitempty"` // "": every workload
	Lines     int                   `json:"lines,omitempty"`    // per instance; default 100, at most 5000
}

// LogLine is one line of an instance's output, with secret values removed.
type LogLine struct {
	Target   string          `json:"target"`
	Workload delivery.Digest `json:"workload"`
	Version  string          `json:"version"`
	Instance string          `json:"instance"`
	Text     string          `json:"text"`
}

// failure is the body of every answer that is not 2xx.
type failure struct {
	Code    delivery.Code `json:"code"`
	Message string        `json:"message"`
}
