package doctor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/x402"
)

func siteItems() []Item {
	return []Item{
		{
			ID: "public_url.set", Title: "public_url is the address that clients use, with https",
			Why:  "It is the base of all that clients are given, and the issuer of tokens. Payments travel in headers: without TLS anybody on the way can use them.",
			Do:   "Write `public_url https://api.example.com` into the global option x402.",
			look: lookPublicURL,
		},
		{
			ID: "public_url.reached", Title: "public_url can be reached, with a certificate that is good for two weeks", Depth: Live,
			Why:  "What is told to clients must work for them.",
			Do:   "Look at DNS, at the firewall, and at Caddy's log for its certificate.",
			look: lookReached,
		},
		{
			ID: "public_url.told", Title: "What agents are told leads to public_url", Depth: Live,
			Why:  "An agent card with another address sends agents, and their money, elsewhere.",
			Do:   "Correct public_url, and put x402_service on that site.",
			look: lookTold,
		},
		{
			ID: "health.on", Title: "x402_service answers on a site, with a health check",
			Why: "Without GET /health a load balancer sends payers to an instance that can take no payment.",
			Do:  "Write `x402_service` into the site, and give its /health to the load balancer and the container (HEALTH_URL).",
			look: func(_ context.Context, s *Subject) Verdict {
				if !s.Service {
					return bad("x402_service is on no site")
				}
				return good("GET /health")
			},
		},
		{
			ID: "health.ok", Title: "The health check says that payments can be taken", Depth: Live,
			Why:  "It asks the ledger and every chain, as payments do.",
			Do:   "Caddy's log says what is not available.",
			look: lookHealth,
		},
		{
			ID: "headers.pass", Title: "The payment's headers survive what is in front", Depth: Live,
			Why:  "A proxy that drops or caches PAYMENT-REQUIRED leaves clients with a 402 that nobody can pay.",
			Do:   "Let the proxy or CDN pass Payment-Required, Payment-Response and WWW-Authenticate, and cache nothing that is private or no-store.",
			look: lookHeaders,
		},
		{
			ID: "cors.on", Title: "Web pages may pay, and read what they paid for",
			Why: "A browser keeps from a page what the server does not allow: the page sees neither the price nor the receipt.",
			Do:  "Leave `cors` out, or list the origins of your pages; with `cors off` the upstream has to do it.",
			look: func(_ context.Context, s *Subject) Verdict {
				for _, h := range s.Handlers {
					if !h.CORS {
						return warn("it is left to the upstream for %s", h.Name)
					}
				}
				return good("it is on")
			},
		},
		{
			ID: "cors.answers", Title: "A page's preflight is allowed to pay", Depth: Live,
			Why:  "What is in front may answer preflights itself, or charge for them.",
			Do:   "Let OPTIONS requests through to Caddy, and set no Access-Control headers in front of it.",
			look: lookPreflight,
		},
	}
}

func lookPublicURL(_ context.Context, s *Subject) Verdict {
	u, err := url.Parse(s.PublicURL)
	switch {
	case s.PublicURL == "":
		return bad("it is not set")
	case err != nil || u.Host == "":
		return bad("it can't be read")
	case s.local():
		return good("%s, on this machine", s.PublicURL)
	case u.Scheme != "https":
		return bad("%s is not https", s.PublicURL)
	case inner(u.Hostname()):
		return bad("%s can't be reached by others", s.PublicURL)
	}
	return good("%s", s.PublicURL)
}

// inner reports whether nobody outside can mean this host.
func inner(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback() || ip.IsPrivate() || ip.IsUnspecified() || ip.IsLinkLocalUnicast()
	}
	return host == "localhost" || !strings.Contains(host, ".") || strings.HasSuffix(host, ".local") || strings.HasSuffix(host, ".internal") ||
		strings.HasSuffix(host, ".localhost") || host == "example.com" || strings.HasSuffix(host, ".example.com")
}

// mostAnswer is how much is read of an answer.
const mostAnswer = 1 << 20

// errNoURL: the site can't be asked.
var errNoURL = errors.New("public_url is not set, so nothing can be asked")

// answer is what the site says: StatusCode, Header and TLS are those of http.Response.
type answer struct {
	StatusCode int
	Header     http.Header
	TLS        *tls.ConnectionState
}

// ask makes a request of the site, and reads the answer's body.
func (s *Subject) ask(ctx context.Context, method, address string, headers ...string) (*answer, []byte, error) {
	if s.PublicURL == "" {
		return nil, nil, errNoURL
	}
	if strings.HasPrefix(address, "/") {
		address = strings.TrimSuffix(s.PublicURL, "/") + address
	}
	r, err := http.NewRequestWithContext(ctx, method, address, http.NoBody)
	if err != nil {
		return nil, nil, fmt.Errorf("asking the site: %w", err)
	}
	r.Header.Set("User-Agent", "caddy-x402-doctor/1")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := s.Live.HTTP.Do(r)
	if err != nil {
		return nil, nil, fmt.Errorf("asking the site: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, mostAnswer))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the site's answer: %w", err)
	}
	return &answer{res.StatusCode, res.Header, res.TLS}, body, nil
}

// leastCertificate is how long a certificate must be good: Caddy renews it long before.
const leastCertificate = 14 * 24 * time.Hour

func lookReached(ctx context.Context, s *Subject) Verdict {
	res, _, err := s.ask(ctx, http.MethodGet, "/health")
	switch {
	case err != nil:
		return bad("%v", err)
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return bad("it answers with a redirect to %q, which clients with a payment do not follow", res.Header.Get("Location"))
	case res.StatusCode == http.StatusBadGateway || res.StatusCode == http.StatusGatewayTimeout:
		return bad("what is in front answers with status %d: Caddy is not behind it", res.StatusCode)
	case res.TLS == nil && s.local():
		return good("it can, on this machine")
	case res.TLS == nil:
		return bad("it is reached without TLS")
	}
	if left := res.TLS.PeerCertificates[0].NotAfter.Sub(s.Live.Now()); left < leastCertificate {
		// One of short life is renewed when a third of it is left, too: less than a quarter means that it was not.
		if whole := res.TLS.PeerCertificates[0].NotAfter.Sub(res.TLS.PeerCertificates[0].NotBefore); left < whole/4 {
			return bad("its certificate ends in %s", left.Round(time.Minute))
		}
	}
	return good("it can, by TLS")
}

func lookTold(ctx context.Context, s *Subject) Verdict {
	res, body, err := s.ask(ctx, http.MethodGet, "/.well-known/agent.json")
	if err != nil {
		return bad("%v", err)
	}
	var card struct {
		URL string `json:"url"`
	}
	if res.StatusCode != http.StatusOK || json.Unmarshal(body, &card) != nil {
		return bad("the agent card is answered with status %d", res.StatusCode)
	}
	base := strings.TrimSuffix(s.PublicURL, "/")
	if card.URL != base && !strings.HasPrefix(card.URL, base+"/") {
		return bad("the agent card says %q", card.URL)
	}
	return good("the agent card says %s", card.URL)
}

func lookHealth(ctx context.Context, s *Subject) Verdict {
	res, body, err := s.ask(ctx, http.MethodGet, "/health")
	if err != nil {
		return bad("%v", err)
	}
	var h struct {
		Status   string            `json:"status"`
		Ledger   string            `json:"ledger"`
		Networks map[string]string `json:"networks"`
	}
	if json.Unmarshal(body, &h) != nil {
		return bad("GET /health is answered with status %d, and not by x402_service", res.StatusCode)
	}
	if res.StatusCode != http.StatusOK || h.Status != "ok" {
		return bad("it says %q: ledger %q, networks %v", h.Status, h.Ledger, h.Networks)
	}
	return good("it does")
}

// paid finds an address that must be paid for.
func (s *Subject) paid(ctx context.Context) (string, error) {
	if s.Live.PaidURL != "" {
		return s.Live.PaidURL, nil
	}
	res, body, err := s.ask(ctx, http.MethodGet, "/.well-known/x402")
	if err != nil {
		return "", err
	}
	var list struct {
		Resources []string `json:"resources"`
	}
	if res.StatusCode != http.StatusOK || json.Unmarshal(body, &list) != nil {
		return "", fmt.Errorf("the catalogue is answered with status %d; name an address by --url", res.StatusCode)
	}
	for _, r := range list.Resources {
		if u, err := url.Parse(r); err == nil && !strings.Contains(u.Path, ":") && !strings.HasSuffix(u.Path, "/x402/access") {
			return r, nil
		}
	}
	return "", errors.New("the catalogue has no address that can be asked as it is; name one by --url")
}

const pageOrigin = "https://doctor.invalid"

func lookHeaders(ctx context.Context, s *Subject) Verdict {
	address, err := s.paid(ctx)
	if err != nil {
		return bad("%v", err)
	}
	res, _, err := s.ask(ctx, http.MethodGet, address, "Origin", pageOrigin)
	if err != nil {
		return bad("%v", err)
	}
	if res.StatusCode != http.StatusPaymentRequired {
		return bad("without a payment it answers %d, not 402", res.StatusCode)
	}
	text := res.Header.Get(x402.HeaderRequired)
	if text == "" {
		return bad("its 402 has no header PAYMENT-REQUIRED")
	}
	var offer x402.PaymentRequired
	if err := x402.DecodeHeader(text, x402.MaxHeaderBytes, &offer); err != nil {
		return bad("its header PAYMENT-REQUIRED can't be read: something has changed it")
	}
	if age := res.Header.Get("Age"); age != "" && age != "0" {
		return bad("its 402 comes out of a cache")
	}
	for i := range offer.Accepts {
		if r := &offer.Accepts[i]; !s.Takes(r) {
			return bad("it asks for payment to %s on %s, which is not in this configuration", r.PayTo, r.Network)
		}
	}
	return good("a 402 with all its headers")
}

// Takes reports whether a way to pay is one of the configuration's.
func (s *Subject) Takes(r *x402.Requirements) bool {
	n := s.network(r.Network)
	return n != nil && n.PayTo == common.HexToAddress(r.PayTo) && n.Asset.Address == common.HexToAddress(r.Asset)
}

func lookPreflight(ctx context.Context, s *Subject) Verdict {
	for _, h := range s.Handlers {
		if !h.CORS {
			return skip("CORS is left to the upstream")
		}
	}
	address, err := s.paid(ctx)
	if err != nil {
		return bad("%v", err)
	}
	origins := s.origins()
	for _, origin := range origins {
		res, _, err := s.ask(ctx, http.MethodOptions, address, "Origin", origin, "Access-Control-Request-Method", http.MethodGet,
			"Access-Control-Request-Headers", "payment-signature")
		if err != nil {
			return bad("%v", err)
		}
		allowed := strings.ToLower(strings.Join(res.Header.Values("Access-Control-Allow-Headers"), ","))
		switch {
		case res.StatusCode >= 300:
			return bad("a preflight is answered with status %d", res.StatusCode)
		case res.Header.Get("Access-Control-Allow-Origin") == "": // it may be another set of routes whose pages this is
		case !strings.Contains(allowed, "payment-signature"):
			return bad("a preflight does not allow the header PAYMENT-SIGNATURE")
		default:
			return good("it is")
		}
	}
	return bad("a preflight has no Access-Control-Allow-Origin for a page of %s", join(origins))
}

// origins are those of pages that may pay; where all may it is one of nobody's.
func (s *Subject) origins() []string {
	if len(s.Handlers) == 0 {
		return []string{pageOrigin}
	}
	var list []string
	for _, h := range s.Handlers {
		if len(h.Origins) == 0 {
			list = append(list, pageOrigin)
		}
		list = append(list, h.Origins...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
