package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// Bearer proves who asks by a secret in Authorization (RFC 6750).
func Bearer(secret string) func(*http.Request) error {
	return Header("Authorization", "Bearer "+secret)
}

// Header proves who asks by a secret in a header of its own.
func Header(name, secret string) func(*http.Request) error {
	return func(r *http.Request) error {
		r.Header.Set(name, secret)
		return nil
	}
}

// Signed proves who asks by a token that sign makes for each try.
func Signed(sign func() (string, error)) func(*http.Request) error {
	return func(r *http.Request) error {
		signed, err := sign()
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+signed)
		return nil
	}
}

// ClientCredentials is an OAuth 2 client of the seller's (RFC 6749, section 4.4).
type ClientCredentials struct {
	TokenURL, ID, Secret string
	Scopes               []string
	// Audience is sent as the parameter of that name, if it is set: some servers demand it.
	Audience string
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// early is how long before its end a token is replaced.
const early = 10 * time.Second

// OAuth proves who asks by an access token that is fetched from the client's server, and kept until it ends. Transport asks that server,
// within the time of the try that needs the token. refused forgets a token that was not accepted.
func OAuth(c ClientCredentials, transport http.RoundTripper) (authorize func(*http.Request) error, refused func(), err error) {
	if err := CheckURL(c.TokenURL); err != nil {
		return nil, nil, fmt.Errorf("the OAuth 2 server: %w", err)
	}
	if c.ID == "" || c.Secret == "" {
		return nil, nil, errors.New("an OAuth 2 client needs an id and a secret")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	config := &clientcredentials.Config{ClientID: c.ID, ClientSecret: c.Secret, TokenURL: c.TokenURL, Scopes: c.Scopes}
	if c.Audience != "" {
		config.EndpointParams = url.Values{"audience": {c.Audience}}
	}
	s := &source{config: config, client: NewHTTP(transport), now: c.Now, turn: make(chan struct{}, 1)}
	return s.authorize, s.forget, nil
}

func (s *source) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = nil
}

// source keeps one access token. One request fetches it, and the others wait for that no longer than they may.
type source struct {
	config *clientcredentials.Config
	client *http.Client
	now    func() time.Time
	turn   chan struct{}

	mu    sync.Mutex
	token *oauth2.Token
}

func (s *source) authorize(r *http.Request) error {
	t, err := s.get(r.Context())
	if err != nil {
		return err
	}
	t.SetAuthHeader(r)
	return nil
}

func (s *source) kept() *oauth2.Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == nil || !s.token.Expiry.IsZero() && !s.now().Add(early).Before(s.token.Expiry) {
		return nil
	}
	return s.token
}

func (s *source) get(ctx context.Context) (*oauth2.Token, error) {
	if t := s.kept(); t != nil {
		return t, nil
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.turn }()
	if t := s.kept(); t != nil {
		return t, nil
	}
	t, err := s.config.Token(context.WithValue(ctx, oauth2.HTTPClient, s.client))
	if err != nil {
		return nil, redacted(err)
	}
	if t.AccessToken == "" || strings.ContainsAny(t.AccessToken, "\r\n") {
		return nil, errors.New("the OAuth 2 server gave no token")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = t
	return t, nil
}

// redacted says what an OAuth 2 server did, without what it said.
func redacted(err error) error {
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok && e.Response != nil {
		return fmt.Errorf("the OAuth 2 server answered with status %d", e.Response.StatusCode)
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("the OAuth 2 server did not answer: %w", Plain(err))
	}
	return errors.New("the OAuth 2 server's answer is of no use")
}
