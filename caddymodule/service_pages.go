package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
)

// The paths of x402_service.
const (
	pathJWKS      = "/.well-known/jwks.json"
	pathHealth    = "/health"
	pathPayments  = "/x402/payments/"
	pathAccess    = "/x402/access"
	pathDiscover  = "/discover"
	pathWellKnown = "/.well-known/x402"
	pathAgent     = "/.well-known/agent.json"
	pathAgentCard = "/.well-known/agent-card.json"
	pathLLMs      = "/llms.txt"
	pathSkills    = "/skills.md"
)

// ownPath reports whether a path is the service's, so that no route can have it.
func ownPath(path string) bool {
	return slices.Contains([]string{
		pathJWKS, pathHealth, pathAccess, pathDiscover, pathWellKnown, pathAgent, pathAgentCard, pathLLMs, pathSkills,
	}, path) || strings.HasPrefix(path, pathPayments)
}

// The parts of the service that may be left out.
const (
	partAccess    = "access"
	partDiscover  = "discover"
	partWellKnown = "well_known"
	partAgentCard = "agent_card"
	partLLMs      = "llms"
	partSkills    = "skills"
)

var serviceParts = []string{partAccess, partDiscover, partWellKnown, partAgentCard, partLLMs, partSkills}

func (s *Service) on(part string) bool { return !slices.Contains(s.Off, part) }

// page is what answers at a path, by method.
type page map[string]func(http.ResponseWriter, *http.Request) error

// methods in the order in which people read them.
func (p page) methods() (list []string) {
	for _, m := range [...]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
		if p[m] != nil {
			list = append(list, m)
		}
	}
	return list
}

func reading(f func(http.ResponseWriter, *http.Request) error) page {
	return page{http.MethodGet: f, http.MethodHead: f}
}

// page finds what answers to r.
func (s *Service) page(r *http.Request) (page, bool) {
	paper := func(part string, d func(*shelf) *document) (page, bool) {
		if !s.on(part) {
			return nil, false
		}
		return reading(func(w http.ResponseWriter, r *http.Request) error { return d(s.stock()).serve(w, r) }), true
	}
	switch r.URL.Path {
	case pathJWKS:
		return reading(s.serveJWKS), true
	case pathHealth:
		return reading(s.serveHealth), true
	case pathAccess:
		return page{http.MethodPost: s.serveAccess}, s.on(partAccess)
	case pathDiscover:
		return paper(partDiscover, func(s *shelf) *document { return &s.discover })
	case pathWellKnown:
		return paper(partWellKnown, func(s *shelf) *document { return &s.wellKnown })
	case pathAgent, pathAgentCard:
		return paper(partAgentCard, func(s *shelf) *document { return &s.card })
	case pathLLMs:
		return paper(partLLMs, func(s *shelf) *document { return &s.llms })
	case pathSkills:
		return paper(partSkills, func(s *shelf) *document { return &s.skills })
	}
	id, ok := strings.CutPrefix(r.URL.Path, pathPayments)
	if !ok || id == "" {
		return nil, false
	}
	p := reading(func(w http.ResponseWriter, r *http.Request) error { return s.servePayment(w, r, id) })
	if paywall.IsChallenge(id) {
		p[http.MethodDelete] = func(w http.ResponseWriter, r *http.Request) error { return s.cancelChallenge(w, r, id) }
	}
	return p, true
}

// cancelChallenge withdraws what was asked for and not paid. Who knows the id has asked for it.
func (s *Service) cancelChallenge(w http.ResponseWriter, r *http.Request, id string) error {
	e, release, err := s.app.acquire()
	if err != nil {
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	defer release()
	status, err := e.CancelChallenge(r.Context(), id)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return writeJSON(w, r, http.StatusNotFound, refuseAccess(0, "CHALLENGE_NOT_FOUND", "There is no challenge with this id"))
	case errors.Is(err, paywall.ErrNotPending):
		return writeJSON(w, r, http.StatusConflict, status)
	case err != nil:
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	return writeJSON(w, r, http.StatusOK, status)
}

// prepare gives the defaults, and refuses what makes no sense.
func (s *Service) prepare() error {
	if s.Name == "" {
		s.Name = "x402 Service"
	}
	if s.Version == "" {
		s.Version = "1.0.0"
	}
	if s.Provider == "" {
		s.Provider = s.Name
	}
	if s.ChallengeTTL == 0 {
		s.ChallengeTTL = caddy.Duration(15 * time.Minute)
	}
	if d := time.Duration(s.ChallengeTTL); d < time.Second || d > 24*time.Hour {
		return errors.New("challenge_ttl must be between 1s and 24h")
	}
	for _, part := range s.Off {
		if !slices.Contains(serviceParts, part) {
			return fmt.Errorf("x402_service has no part %q to turn off; it has %s", part, strings.Join(serviceParts, ", "))
		}
	}
	for what, address := range map[string]string{
		"provider": s.ProviderURL, "resource_endpoint": strings.Replace(s.ResourceEndpoint, "{resourceId}", "x", 1),
	} {
		u, err := url.Parse(address)
		if address != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil) {
			return fmt.Errorf("%s: %q is not an address such as https://example.com", what, address)
		}
	}
	return nil
}

// UnmarshalCaddyfile reads
//
//	x402_service {
//		name        <text>
//		description <text>
//		version     <text>
//		provider    <name> [<url>]
//		challenge_ttl     <duration>
//		resource_endpoint <url>
//		access|discover|well_known|agent_card|llms|skills on|off   # or true|false, as in Key0's environment
//	}
func (s *Service) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	known := map[string]func() error{
		"name":        one(d, &s.Name),
		"description": one(d, &s.Description),
		"version":     one(d, &s.Version),
		"provider": func() error {
			args := d.RemainingArgs()
			if len(args) < 1 || len(args) > 2 {
				return d.ArgErr()
			}
			s.Provider, s.ProviderURL = args[0], strings.Join(args[1:], "")
			return nil
		},
		"challenge_ttl":     duration(d, &s.ChallengeTTL),
		"resource_endpoint": one(d, &s.ResourceEndpoint),
	}
	for _, part := range serviceParts {
		known[part] = func() error {
			var word string
			if err := one(d, &word)(); err != nil {
				return err
			}
			switch word {
			case "on", "true":
			case "off", "false":
				s.Off = append(s.Off, part)
			default:
				return d.Errf("%s is neither on nor off", word)
			}
			return nil
		}
	}
	return subdirectives(d, "x402_service", known)
}
