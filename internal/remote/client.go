package remote

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

const (
	machineKeyFile  = "machine.key"
	machineCertFile = "machine.crt"
	machineCAFile   = "server-ca.crt"
)

// ClientOptions says how a machine reaches its server. Server, Name and Dir are required.
type ClientOptions struct {
	Server string // base URL, https://host:port
	Name   string // of the host
	Dir    string // where key and certificates are kept, mode 0700
	Token  string // enrolment token; needed while Dir has no certificate

	Log    *slog.Logger     // default: nothing is logged
	Now    func() time.Time // default time.Now
	Tick   time.Duration    // how often reports are compared with what was sent; default 500ms
	Repeat time.Duration    // how often a report is sent although nothing changed; default 10s
	Wait   [2]time.Duration // shortest and longest wait between tries; default 100ms and 5s
}

// Client is the machine's half. It is safe for concurrent use.
type Client struct {
	options ClientOptions
	base    *url.URL

	mu   sync.Mutex
	http *http.Client // nil until enrolled
	cert *x509.Certificate
}

// NewClient checks the options; it contacts nobody.
func NewClient(o ClientOptions) (*Client, error) {
	base, err := url.Parse(o.Server)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, delivery.Errorf(delivery.CodeInvalid, "%q is not the server's address: write https://HOST:PORT.", o.Server)
	}
	if err := delivery.CheckName("host", o.Name); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Tick == 0 {
		o.Tick = 500 * time.Millisecond
	}
	if o.Repeat == 0 {
		o.Repeat = 10 * time.Second
	}
	if o.Wait == [2]time.Duration{} {
		o.Wait = [2]time.Duration{100 * time.Millisecond, 5 * time.Second}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, delivery.Wrap(delivery.CodeInternal, err, "The directory %s for the host's identity can't be made.", o.Dir)
	}
	return &Client{options: o, base: base}, nil
}

// Enrolled reports whether Dir holds a certificate, and loads it.
func (c *Client) Enrolled() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil {
		return true, nil
	}
	cert, err := readCertificate(filepath.Join(c.options.Dir, machineCertFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	ca, err := readCertificate(filepath.Join(c.options.Dir, machineCAFile))
	if err != nil {
		return false, err
	}
	key, err := loadOrMakeKey(filepath.Join(c.options.Dir, machineKeyFile))
	if err != nil {
		return false, err
	}
	if cert.Subject.CommonName != c.options.Name {
		return false, delivery.Errorf(delivery.CodeInvalid, "The directory %s belongs to host %q, not %q: give another directory or the same name.", c.options.Dir, cert.Subject.CommonName, c.options.Name)
	}
	c.use(key, cert, ca)
	return true, nil
}

// use makes c speak with a certificate. c.mu is held.
func (c *Client) use(key *ecdsa.PrivateKey, cert, ca *x509.Certificate) {
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	c.cert = cert
	c.http = newHTTP(&tls.Config{
		MinVersion:   tls.VersionTLS13,
		RootCAs:      pool,
		ServerName:   serverName,
		Time:         c.options.Now,
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
	})
}

// newHTTP makes a client for one server: no proxy from the environment, no redirect.
func newHTTP(config *tls.Config) *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:           dialer.DialContext,
			TLSClientConfig:       config,
			TLSHandshakeTimeout:   5 * time.Second,
			ResponseHeaderTimeout: pollTime + 10*time.Second,
			IdleConnTimeout:       time.Minute,
			MaxIdleConnsPerHost:   4,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Enrol spends the token for a certificate. The key is kept before the token
// is sent, so that a repeat after a lost answer is the same enrolment.
func (c *Client) Enrol(ctx context.Context) error {
	token, err := ParseEnrolmentToken(c.options.Token)
	if err != nil {
		return err
	}
	key, err := loadOrMakeKey(filepath.Join(c.options.Dir, machineKeyFile))
	if err != nil {
		return delivery.Wrap(delivery.CodeInternal, err, "The host's key in %s can't be used.", c.options.Dir)
	}
	csr, err := makeCSR(key, c.options.Name)
	if err != nil {
		return err
	}
	client := newHTTP(pinned(token.Fingerprint, c.options.Now))
	defer client.CloseIdleConnections()
	var reply certificateReply
	err = call(ctx, client, c.base, pathEnrol, enrolRequest{Token: token.Secret, Name: c.options.Name, CSR: csr}, &reply)
	if errors.Is(err, errWrongServer) {
		return delivery.Wrap(delivery.CodeDenied, err, "The server at %s is not the one that made the enrolment token: check the address, or get a token from this server.", c.base.Host)
	}
	if err != nil {
		return err
	}
	return c.keep(key, reply, token.Fingerprint)
}

// keep stores a new certificate and speaks with it from now on.
func (c *Client) keep(key *ecdsa.PrivateKey, reply certificateReply, fingerprint string) error {
	wrong := func(err error) error {
		return delivery.Wrap(delivery.CodeInternal, err, "The server's answer holds no valid certificate.")
	}
	cert, err := x509.ParseCertificate(reply.Certificate)
	if err != nil {
		return wrong(err)
	}
	ca, err := x509.ParseCertificate(reply.CA)
	if err != nil {
		return wrong(err)
	}
	if public, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) || hexSum(ca.RawSubjectPublicKeyInfo) != fingerprint || cert.CheckSignatureFrom(ca) != nil {
		return wrong(errors.New("it is for another key or from another authority"))
	}
	encode := func(der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	if err := writeFile(filepath.Join(c.options.Dir, machineCAFile), encode(ca.Raw)); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(c.options.Dir, machineCertFile), encode(cert.Raw)); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.use(key, cert, ca)
	return nil
}

// renew gets the next certificate from half life on. It keeps the key.
func (c *Client) renew(ctx context.Context) error {
	c.mu.Lock()
	cert, client := c.cert, c.http
	c.mu.Unlock()
	half := cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 2)
	if c.options.Now().Before(half) {
		return nil
	}
	key, err := loadOrMakeKey(filepath.Join(c.options.Dir, machineKeyFile))
	if err != nil {
		return err
	}
	csr, err := makeCSR(key, c.options.Name)
	if err != nil {
		return err
	}
	var reply certificateReply
	if err := call(ctx, client, c.base, pathRenew, renewRequest{CSR: csr}, &reply); err != nil {
		return err
	}
	ca, err := readCertificate(filepath.Join(c.options.Dir, machineCAFile))
	if err != nil {
		return err
	}
	return c.keep(key, reply, hexSum(ca.RawSubjectPublicKeyInfo))
}

func makeCSR(key *ecdsa.PrivateKey, name string) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
}

var errWrongServer = errors.New("the server's certificate does not come from the pinned authority")

// pinned trusts only a server certificate that comes from the authority whose
// key has the fingerprint.
func pinned(fingerprint string, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         serverName,
		InsecureSkipVerify: true, // VerifyConnection does it all, against the pin
		VerifyConnection: func(state tls.ConnectionState) error {
			for _, ca := range state.PeerCertificates[1:] {
				if hexSum(ca.RawSubjectPublicKeyInfo) != fingerprint {
					continue
				}
				pool := x509.NewCertPool()
				pool.AddCert(ca)
				_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: serverName, CurrentTime: now()})
				return err
			}
			return errWrongServer
		},
	}
}

// Artifact opens an artifact from an offset in bytes on.
func (c *Client) Artifact(ctx context.Context, d delivery.Digest, offset int64) (io.ReadCloser, error) {
	client, err := c.connected()
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.JoinPath(pathArtifacts, string(d)).String(), nil)
	if err != nil {
		return nil, err
	}
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, unreachable(c.base, err)
	}
	switch {
	case offset == 0 && answer.StatusCode == http.StatusOK, offset > 0 && answer.StatusCode == http.StatusPartialContent:
		return answer.Body, nil
	case answer.StatusCode == http.StatusOK: // a middle box ignored the range
		if _, err := io.CopyN(io.Discard, answer.Body, offset); err != nil {
			answer.Body.Close()
			return nil, unreachable(c.base, err)
		}
		return answer.Body, nil
	}
	defer answer.Body.Close()
	return nil, failureOf(answer)
}

// connected returns the HTTP client of an enrolled machine.
func (c *Client) connected() (*http.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http == nil {
		return nil, delivery.Errorf(delivery.CodeUnavailable, "The host is not enrolled yet.")
	}
	return c.http, nil
}

// post sends a request as the enrolled machine.
func (c *Client) post(ctx context.Context, path string, request, reply any) error {
	client, err := c.connected()
	if err != nil {
		return err
	}
	return call(ctx, client, c.base, path, request, reply)
}

func call(ctx context.Context, client *http.Client, base *url.URL, path string, request, reply any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base.JoinPath(path).String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(r)
	if err != nil {
		return unreachable(base, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return failureOf(answer)
	}
	if reply == nil || answer.StatusCode == http.StatusNoContent {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxReply)).Decode(reply); err != nil {
		return unreachable(base, err)
	}
	return nil
}

func unreachable(base *url.URL, err error) error {
	return delivery.Wrap(delivery.CodeUnavailable, err, "The server at %s can't be reached.", base.Host)
}

// failureOf reads the error of an answer.
func failureOf(answer *http.Response) error {
	var f failure
	b, _ := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if json.Unmarshal(b, &f) != nil || f.Code == "" {
		return delivery.Errorf(delivery.CodeUnavailable, "The server answered %s: %s", answer.Status, strings.TrimSpace(string(b[:min(len(b), 200)])))
	}
	return &delivery.Error{Code: f.Code, Message: f.Message}
}
