package remote

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// ServerOptions says how the server half works. Backend and Dir are required.
type ServerOptions struct {
	Backend Backend
	Dir     string           // where the certificate authority is kept; made if missing
	Hosts   []string         // names and addresses that the listener is reached under
	Log     *slog.Logger     // default: nothing is logged
	Now     func() time.Time // default time.Now
	Poll    time.Duration    // longest wait of an effects request; default 25s
}

// Server is the server half. It serves the routes under /remote/v1/ and must
// be served with its own TLSConfig: it trusts what that verified.
type Server struct {
	options   ServerOptions
	authority *authority
	mux       *http.ServeMux

	mu      sync.Mutex
	cert    *tls.Certificate // of the listener; made anew at half life
	renewAt time.Time
	logs    map[string]*logWait            // by id
	asked   map[string]map[string]struct{} // host → ids not handed out yet
	wake    map[string]chan struct{}       // host → closed when a log request arrives
}

// NewServer opens the certificate authority in Dir, or makes it at first start.
func NewServer(o ServerOptions) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Poll == 0 {
		o.Poll = pollTime
	}
	a, err := openAuthority(o.Dir, o.Now)
	if err != nil {
		return nil, delivery.Wrap(delivery.CodeInternal, err, "The server's certificate authority in %s can't be opened; check the files and their permissions.", o.Dir)
	}
	s := &Server{
		options: o, authority: a, mux: http.NewServeMux(),
		logs: map[string]*logWait{}, asked: map[string]map[string]struct{}{}, wake: map[string]chan struct{}{},
	}
	for _, r := range s.routes() {
		s.mux.Handle(r.pattern, s.authenticated(r))
	}
	return s, nil
}

// access names how a route is authenticated. A route without one does not exist.
type access int

const (
	byToken       access = iota + 1 // an enrolment token in the body
	byCertificate                   // the current certificate of an enrolled host
)

type route struct {
	pattern string
	access  access
	serve   func(w http.ResponseWriter, r *http.Request, host string) error
}

func (s *Server) routes() []route {
	return []route{
		{"POST " + pathEnrol, byToken, s.enrol},
		{"POST " + pathRenew, byCertificate, s.renew},
		{"POST " + pathEffects, byCertificate, s.effects},
		{"POST " + pathDeliver, byCertificate, s.deliver},
		{"POST " + pathLogs, byCertificate, s.answerLogs},
		{"GET " + pathArtifacts + "{digest}", byCertificate, s.artifact},
	}
}

// ServeHTTP serves the protocol.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Fingerprint names the certificate authority for [NewEnrolmentToken].
func (s *Server) Fingerprint() string { return s.authority.fingerprint() }

// TLSConfig is what the listener must use: TLS 1.3, a certificate of the
// authority, and machines' certificates verified when they show one.
func (s *Server) TLSConfig() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.authority.cert)
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      pool,
		Time:           s.options.Now,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate() },
		// Resumed connections would skip verification of a certificate that
		// expired meanwhile; a long poll reconnects too rarely to need them.
		SessionTicketsDisabled: true,
	}
}

// certificate returns the listener's certificate, a fresh one from half life on.
func (s *Server) certificate() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.options.Now()
	if s.cert != nil && now.Before(s.renewAt) {
		return s.cert, nil
	}
	der, key, expires, err := s.authority.serverCertificate(s.options.Hosts)
	if err != nil {
		return nil, err
	}
	s.cert = &tls.Certificate{Certificate: [][]byte{der, s.authority.cert.Raw}, PrivateKey: key}
	s.renewAt = now.Add(expires.Sub(now) / 2)
	return s.cert, nil
}

// authenticated admits a request as its route says, with limits on the body.
func (s *Server) authenticated(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		host, err := "", error(nil)
		switch rt.access {
		case byToken: // checked by the route itself
		case byCertificate:
			host, err = s.identify(r)
		default:
			err = errors.New("a route names no authentication")
		}
		if err == nil {
			err = rt.serve(w, r, host)
		}
		if err != nil {
			s.fail(w, r, host, err)
		}
	})
}

// identify returns the enrolled host whose current certificate the connection showed.
func (s *Server) identify(r *http.Request) (string, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", delivery.Errorf(delivery.CodeDenied, "This machine is not enrolled here: enrol it with a token from this server.")
	}
	cert := r.TLS.VerifiedChains[0][0]
	host := cert.Subject.CommonName
	removed := delivery.Errorf(delivery.CodeDenied, "The certificate of host %q is not in force any more: enrol the host again with a new token.", host)
	if now := s.options.Now(); now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
		return "", removed // the connection may be older than that
	}
	shown := hexSum(cert.Raw)
	known, err := s.options.Backend.Known(r.Context(), host, shown)
	if err != nil || known {
		return host, err
	}
	previous := renewedFrom(cert)
	if previous == "" {
		return "", removed
	}
	if err := s.options.Backend.Replace(r.Context(), host, previous, shown); err != nil {
		if code := delivery.ErrorCode(err); code == delivery.CodeConflict || code == delivery.CodeNotFound {
			return "", removed
		}
		return "", err
	}
	return host, nil
}

// statuses gives each error code its HTTP status.
var statuses = map[delivery.Code]int{
	delivery.CodeInvalid:     http.StatusBadRequest,
	delivery.CodeNotFound:    http.StatusNotFound,
	delivery.CodeConflict:    http.StatusConflict,
	delivery.CodeDenied:      http.StatusForbidden,
	delivery.CodeUnavailable: http.StatusServiceUnavailable,
	delivery.CodeInternal:    http.StatusInternalServerError,
}

// fail answers with an error; internal causes are logged, not shown.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, host string, err error) {
	if r.Context().Err() != nil {
		return // nobody listens
	}
	answer := failure{Code: delivery.CodeInternal, Message: "The server failed; its log has the cause."}
	if e, ok := errors.AsType[*delivery.Error](err); ok {
		answer = failure{Code: e.Code, Message: e.Message}
	}
	if answer.Code == delivery.CodeInternal {
		s.options.Log.Error("remote request failed", "path", r.URL.Path, "host", host, "error", err, "cause", errors.Unwrap(err))
	}
	writeJSON(w, statuses[answer.Code], answer)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the other end is gone: it asks again
}

// readJSON reads a request's body strictly.
func readJSON(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	if err := d.Decode(v); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return delivery.Errorf(delivery.CodeInvalid, "The request is longer than %d bytes.", maxRequest)
		}
		return delivery.Wrap(delivery.CodeInvalid, err, "The request is not the JSON that %s takes; use a host of the server's version.", r.URL.Path)
	}
	return nil
}

// enrol gives a machine with a token its certificate.
func (s *Server) enrol(w http.ResponseWriter, r *http.Request, _ string) error {
	var q enrolRequest
	if err := readJSON(r, &q); err != nil {
		return err
	}
	if err := delivery.CheckName("host", q.Name); err != nil {
		return err
	}
	csr, err := parseCSR(q.CSR)
	if err != nil {
		return delivery.Wrap(delivery.CodeInvalid, err, "The certificate request is not valid.")
	}
	der, err := s.authority.machineCertificate(csr, q.Name, "")
	if err != nil {
		return err
	}
	err = s.options.Backend.Enrol(r.Context(), Enrolment{
		TokenHash: HashToken(q.Token), Name: q.Name, Key: hexSum(csr.RawSubjectPublicKeyInfo), Certificate: hexSum(der),
	})
	if err != nil {
		return err
	}
	s.options.Log.Info("host enrolled", "host", q.Name)
	writeJSON(w, http.StatusOK, certificateReply{Certificate: der, CA: s.authority.cert.Raw})
	return nil
}

// renew gives an enrolled host its next certificate, which takes effect at its first use.
func (s *Server) renew(w http.ResponseWriter, r *http.Request, host string) error {
	var q renewRequest
	if err := readJSON(r, &q); err != nil {
		return err
	}
	csr, err := parseCSR(q.CSR)
	if err != nil {
		return delivery.Wrap(delivery.CodeInvalid, err, "The certificate request is not valid.")
	}
	der, err := s.authority.machineCertificate(csr, host, hexSum(r.TLS.VerifiedChains[0][0].Raw))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, certificateReply{Certificate: der, CA: s.authority.cert.Raw})
	return nil
}

// artifact sends an artifact, or the rest of it (Range).
func (s *Server) artifact(w http.ResponseWriter, r *http.Request, _ string) error {
	digest := delivery.Digest(r.PathValue("digest"))
	if !digest.Valid() {
		return delivery.Errorf(delivery.CodeInvalid, "%q is not a digest.", r.PathValue("digest"))
	}
	f, _, err := s.options.Backend.Artifact(r.Context(), digest)
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+digest.Hex()+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}
