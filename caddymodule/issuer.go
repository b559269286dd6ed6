package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/token/remote"
)

// Issuer is an endpoint of the seller's that gives out what the buyers of a plan get, in place of an access token of ours. It is asked
// once the payment is settled.
type Issuer struct {
	// The address of the endpoint, which may be a placeholder. It must be https, unless it is on this machine. Redirects are not followed.
	URL string `json:"url"`
	// What proves to the endpoint who asks. Default: nothing.
	Auth *EndpointAuth `json:"auth,omitempty"`
	// How long it may take to answer. Default: 15s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
	// How often it is asked again when it fails, with the same Idempotency-Key. What took too long is not. Default: 2.
	Retries *int `json:"retries,omitempty"`
	// Further members of what it is asked, such as those that the endpoint wants to know of the plan, of any value that JSON has. None can
	// replace a member of ours. Placeholders in texts are replaced.
	Fields map[string]json.RawMessage `json:"fields,omitempty"`
}

// EndpointAuth is what proves to an endpoint of the seller's who asks. Secrets are placeholders, such as `{env.ISSUER_SECRET}`.
type EndpointAuth struct {
	// `bearer`: the secret in Authorization. `header`: the secret in the header of that name. `jwt`: a token that the key of tokens signs,
	// good for a minute; the endpoint verifies it by /.well-known/jwks.json. `oauth2`: client credentials of an OAuth 2 server.
	Type string `json:"type"`
	// The secret of `bearer` and `header`.
	Secret string `json:"secret,omitempty"`
	// The name of the header, for `header`.
	Header string `json:"header,omitempty"`
	// For `jwt`, the token's audience. Default: scheme and host of the endpoint. For `oauth2` the parameter of this name, if it is set.
	Audience string `json:"audience,omitempty"`
	// Where the OAuth 2 server gives tokens, for `oauth2`. It must be https, unless it is on this machine.
	TokenURL string `json:"token_url,omitempty"`
	// The name of the client at that server, for `oauth2`.
	ClientID string `json:"client_id,omitempty"`
	// The secret of that client, for `oauth2`.
	ClientSecret string `json:"client_secret,omitempty"`
	// What the client asks for, for `oauth2`. Default: what the server gives.
	Scopes []string `json:"scopes,omitempty"`
}

// serviceTTL is how long the token of `auth jwt` is good for.
const serviceTTL = time.Minute

// granter makes what gives out what a plan buys; nil: that is a token of ours.
func (h *Handler) granter(p *Plan) (paywall.Granter, error) {
	if p.Issuer == nil {
		return nil, nil
	}
	i := p.Issuer
	transport := remote.NewTransport()
	h.app.closers = append(h.app.closers, transport.CloseIdleConnections)
	address, err := resolve("the issuer's address", i.URL)
	if err != nil {
		return nil, err
	}
	c := remote.Config{URL: address, Timeout: time.Duration(i.Timeout), Retries: remote.DefaultRetries, Transport: transport}
	if i.Retries != nil {
		c.Retries = *i.Retries
	}
	if c.Authorize, c.Refused, err = i.Auth.authorize(h.app, "issuer", address, transport); err != nil {
		return nil, err
	}
	if c.Extra, err = i.extra(); err != nil {
		return nil, err
	}
	client, err := remote.New(c)
	if err != nil {
		return nil, err
	}
	if longest := client.Longest(); longest >= time.Duration(h.app.MinAge) {
		return nil, fmt.Errorf("the issuer may take %s with all its tries, and payments are held for refund after min_age %s, maybe while it is asked; "+
			"write a longer min_age, or a shorter timeout", longest.Round(time.Second), time.Duration(h.app.MinAge))
	}
	return &granter{client: client, price: "$" + strings.TrimPrefix(p.Price, "$")}, nil
}

// extra are the fields as the endpoint gets them.
func (i *Issuer) extra() (map[string]any, error) {
	all := make(map[string]any, len(i.Fields))
	for name, value := range i.Fields {
		var text *string
		if err := json.Unmarshal(value, &text); err != nil || text == nil || *text == "" {
			all[name] = value
			continue
		}
		resolved, err := resolve("the issuer's field "+name, *text)
		if err != nil {
			return nil, err
		}
		all[name] = resolved
	}
	return all, nil
}

// granter asks an endpoint for what a plan buys.
type granter struct {
	client *remote.Client
	price  string
}

// Longest implements paywall.Granter.
func (g *granter) Longest() time.Duration { return g.client.Longest() }

// Grant implements paywall.Granter.
func (g *granter) Grant(ctx context.Context, s paywall.Sale) (paywall.Credential, error) {
	c, err := g.client.Issue(ctx, &remote.Sale{
		Key:       s.Payment,
		RequestID: s.RequestID, ChallengeID: s.ChallengeID, ResourceID: s.ResourceID, PlanID: s.Plan, TxHash: s.Transaction.Hex(),
		UnitAmount: g.price, PaymentID: s.Payment, WalletAddress: s.Payer.Hex(), Amount: s.Amount, Asset: s.Asset.Hex(),
		Network: s.Network, TTLSeconds: int64(s.TTL / time.Second),
	})
	return paywall.Credential{Token: c.Token, Type: c.Type}, err
}

// authorize makes what proves to the endpoint at address who asks; what names it in errors.
func (e *EndpointAuth) authorize(
	app *App, what, address string, transport http.RoundTripper,
) (authorize func(*http.Request) error, refused func(), err error) {
	if e == nil || e.Type == "" || e.Type == "none" {
		return nil, nil, nil
	}
	secret := func(name, value string) (string, error) {
		return Secret(fmt.Sprintf("the %s's %s", what, name), value, app.localOnly())
	}
	switch e.Type {
	case "bearer":
		s, err := secret("secret", e.Secret)
		return remote.Bearer(s), nil, err
	case "header":
		if textproto.TrimString(e.Header) == "" || strings.ContainsAny(e.Header, " \t:\r\n") {
			return nil, nil, fmt.Errorf("the %s's auth header %q is no name of a header", what, e.Header)
		}
		s, err := secret("secret", e.Secret)
		return remote.Header(e.Header, s), nil, err
	case "jwt":
		return remote.Signed(e.signer(app, address)), nil, nil
	case "oauth2":
		return e.oauth(what, secret, transport)
	}
	return nil, nil, fmt.Errorf("the %s's auth %q is neither bearer nor header nor jwt nor oauth2", what, e.Type)
}

// signer signs a token for each try, with the key that signs then.
func (e *EndpointAuth) signer(app *App, address string) func() (string, error) {
	audience := e.Audience
	if u, err := url.Parse(address); audience == "" && err == nil {
		audience = u.Scheme + "://" + u.Host
	}
	return func() (string, error) {
		t, err := app.tokens()
		if err != nil {
			return "", errors.New("the keys of tokens can't be read")
		}
		return t.Issuer.Service(audience, serviceTTL, app.now())
	}
}

func (e *EndpointAuth) oauth(
	what string, secret func(name, value string) (string, error), transport http.RoundTripper,
) (authorize func(*http.Request) error, refused func(), err error) {
	c := remote.ClientCredentials{Scopes: e.Scopes, Audience: e.Audience}
	if c.TokenURL, err = resolve("the "+what+"'s token_url", e.TokenURL); err != nil {
		return nil, nil, err
	}
	if c.ID, err = resolve("the "+what+"'s client_id", e.ClientID); err != nil {
		return nil, nil, err
	}
	if c.Secret, err = secret("client_secret", e.ClientSecret); err != nil {
		return nil, nil, err
	}
	if authorize, refused, err = remote.OAuth(c, transport); err != nil {
		return nil, nil, fmt.Errorf("the %s's auth: %w", what, err)
	}
	return authorize, refused, nil
}

// Interface guard.
var _ paywall.Granter = (*granter)(nil)
