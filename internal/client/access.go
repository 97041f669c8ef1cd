package client

import (
	"context"
	"net/http"

	"github.com/tidegate-cd/tidegate/internal/client/wire"
	"github.com/tidegate-cd/tidegate/internal/delivery"
)

// Version says which program answers.
func (c *Client) Version(ctx context.Context) (wire.Version, error) {
	return get[wire.Version](ctx, c, "/version", nil)
}

// Health reports whether the server lives.
func (c *Client) Health(ctx context.Context) (wire.Health, error) {
	return get[wire.Health](ctx, c, "/health", nil)
}

// Ready reports whether the server can do its work; unavailable if not.
func (c *Client) Ready(ctx context.Context) (wire.Health, error) {
	return get[wire.Health](ctx, c, "/ready", nil)
}

// Actor says who the token acts as.
func (c *Client) Actor(ctx context.Context) (delivery.Actor, error) {
	return get[delivery.Actor](ctx, c, "/actor", nil)
}

// Tokens lists all tokens, without secrets.
func (c *Client) Tokens(ctx context.Context) (wire.List[wire.Token], error) {
	return get[wire.List[wire.Token]](ctx, c, "/tokens", nil)
}

// CreateToken makes an API token. Its secret is in the answer and nowhere else;
// a repeat of the request is answered without it.
func (c *Client) CreateToken(ctx context.Context, n wire.NewToken) (wire.CreatedToken, error) {
	return post[wire.CreatedToken](ctx, c, "/tokens", n)
}

// RevokeToken makes a token useless at once. It takes the token's id.
func (c *Client) RevokeToken(ctx context.Context, id delivery.ID) error {
	return c.call(ctx, request{method: http.MethodDelete, path: path("tokens", string(id))}, nil)
}

// CreateEnrolment makes a one-time token with which a machine becomes a host.
func (c *Client) CreateEnrolment(ctx context.Context, n wire.NewEnrolment) (wire.CreatedToken, error) {
	return post[wire.CreatedToken](ctx, c, "/enrolments", n)
}

// Hosts lists the enrolled hosts.
func (c *Client) Hosts(ctx context.Context) (wire.List[wire.Host], error) {
	return get[wire.List[wire.Host]](ctx, c, "/hosts", nil)
}

// RemoveHost makes a host's certificate useless at once.
func (c *Client) RemoveHost(ctx context.Context, name string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: path("hosts", name)}, nil)
}
