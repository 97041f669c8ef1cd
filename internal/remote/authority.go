package remote

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Lifetimes of certificates. A machine renews at half life; the authority
// outlives them all, because machines pin its key.
const (
	authorityLife = 30 * 365 * 24 * time.Hour
	serverLife    = 90 * 24 * time.Hour
	machineLife   = 365 * 24 * time.Hour
	clockSkew     = time.Hour // certificates count from this long before they were made
)

const (
	authorityKeyFile  = "ca.key"
	authorityCertFile = "ca.crt"
)

// authority is the server's own certificate authority: an ECDSA P-256 key in a
// file of mode 0600, made at first start.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	now  func() time.Time
}

// openAuthority reads the authority in dir, or makes it.
func openAuthority(dir string, now func() time.Time) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make %s: %w", dir, err)
	}
	key, err := loadOrMakeKey(filepath.Join(dir, authorityKeyFile))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, authorityCertFile)
	cert, err := readCertificate(path)
	if errors.Is(err, os.ErrNotExist) {
		cert, err = makeAuthority(path, key, now())
	}
	if err != nil {
		return nil, err
	}
	if public, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return nil, fmt.Errorf("%s does not belong to %s: restore both from one backup", authorityCertFile, authorityKeyFile)
	}
	return &authority{key: key, cert: cert, now: now}, nil
}

func makeAuthority(path string, key *ecdsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: "Tidegate server authority"},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	if err := writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// fingerprint names the authority: the hexadecimal SHA-256 of its SubjectPublicKeyInfo.
func (a *authority) fingerprint() string { return hexSum(a.cert.RawSubjectPublicKeyInfo) }

// serverCertificate makes the certificate of a listener. Its key never leaves memory.
func (a *authority) serverCertificate(hosts []string) (certificate []byte, key *ecdsa.PrivateKey, expires time.Time, err error) {
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, time.Time{}, err
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: "Tidegate server"},
		DNSNames:     []string{serverName},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     now.Add(serverLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if h != "" {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	certificate, err = x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	return certificate, key, template.NotAfter, err
}

// machineCertificate signs a machine's request: the name is the server's
// choice, and the certificate serves for client authentication only. Previous,
// where set, is the fingerprint of the certificate that it renews.
func (a *authority) machineCertificate(csr *x509.CertificateRequest, name, previous string) ([]byte, error) {
	now := a.now()
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     now.Add(machineLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if previous != "" {
		template.URIs = []*url.URL{{Scheme: renewalScheme, Opaque: previous}}
	}
	return x509.CreateCertificate(rand.Reader, template, a.cert, csr.PublicKey, a.key)
}

// renewalScheme marks the URI in a renewed certificate that names the one
// before. The server takes the new one for the host's at its first use, so
// that a renewal whose answer was lost locks nobody out.
const renewalScheme = "tidegate-renews"

func renewedFrom(cert *x509.Certificate) string {
	for _, u := range cert.URIs {
		if u.Scheme == renewalScheme {
			return u.Opaque
		}
	}
	return ""
}

// parseCSR reads a request and checks that the sender has its key.
func parseCSR(der []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, err
	}
	if key, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the key is not ECDSA P-256")
	}
	return csr, nil
}

func newSerial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n.Add(n, big.NewInt(1))
}

// loadOrMakeKey reads a private key, or makes one of mode 0600.
func loadOrMakeKey(path string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		return key, writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds no ECDSA key", path)
	}
	return key, nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return x509.ParseCertificate(block.Bytes)
}

// writeFile replaces path durably with mode 0600: after a crash there is the
// former content or the new one, never a part.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+strings.TrimPrefix(filepath.Base(path), ".")+"-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
