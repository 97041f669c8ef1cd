package artifact

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// FetchOptions says what may be fetched.
type FetchOptions struct {
	AllowPrivate bool  // loopback and private addresses too; link-local never
	Limit        int64 // bytes; default [MaxSize]
}

// Fetch stores what an http or https URL has, which must have that digest.
// Addresses are checked when they are dialled, after names were resolved and
// at each redirect, so that no URL reaches what only this server can reach.
func (s *Store) Fetch(ctx context.Context, address string, want delivery.Digest, o FetchOptions) (delivery.Artifact, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return delivery.Artifact{}, delivery.Errorf(delivery.CodeInvalid, "%q is not an http or https URL without credentials.", address)
	}
	if !want.Valid() {
		return delivery.Artifact{}, delivery.Errorf(delivery.CodeInvalid, "The artifact at %s has no digest: what arrives could not be checked.", u.Redacted())
	}
	if a, err := s.Stat(want); err == nil {
		return a, nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return delivery.Artifact{}, delivery.Wrap(delivery.CodeInvalid, err, "%s can't be asked for.", u.Redacted())
	}
	response, err := o.client().Do(request)
	if err != nil {
		return delivery.Artifact{}, delivery.Wrap(delivery.CodeUnavailable, err, "%s can't be fetched: %v.", u.Redacted(), err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return delivery.Artifact{}, delivery.Errorf(delivery.CodeUnavailable, "%s answered %s.", u.Redacted(), response.Status)
	}
	return s.Put(ctx, response.Body, want, o.Limit)
}

func (o FetchOptions) client() *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error { return o.allowed(address) }}
	return &http.Client{
		Timeout:   10 * time.Minute,
		Transport: &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 30 * time.Second, DisableKeepAlives: true},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > 5 {
				return fmt.Errorf("more than five redirects")
			}
			return nil
		},
	}
}

// allowed refuses addresses that are not the internet's.
func (o FetchOptions) allowed(address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := at.Addr().Unmap()
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || !o.AllowPrivate && (ip.IsLoopback() || ip.IsPrivate()) {
		return fmt.Errorf("the address %s is not allowed", ip)
	}
	return nil
}
