package client

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddy-x402/caddy-x402/x402"
)

const (
	maxProblem       = 64 << 10
	extensionToken   = "access-token"
	relPaymentStatus = "payment-status"
)

// readSettlement keeps a receipt, without the token in it and with its texts made fit to print.
func (r *Report) readSettlement(s *x402.SettlementResponse) {
	var grant struct {
		Info struct {
			Token string `json:"token"`
		} `json:"info"`
	}
	if raw, ok := s.Extensions[extensionToken]; ok {
		if err := json.Unmarshal(raw, &grant); err == nil && r.AccessToken == "" {
			r.AccessToken = Secret(grant.Info.Token)
		}
		delete(s.Extensions, extensionToken)
	}
	s.ErrorReason = x402.Reason(Printable(string(s.ErrorReason), 200))
	s.ErrorMessage = Printable(s.ErrorMessage, 500)
	s.Payer, s.Transaction = Printable(s.Payer, 128), Printable(s.Transaction, 128)
	s.Network, s.Amount = Printable(s.Network, 64), Printable(s.Amount, 80)
	r.Settlement = s
}

// readProblem takes from an answer without an outcome what it says about the payment: problem details
// (RFC 9457) and a link (RFC 8288).
func (x *exchange) readProblem(resp *http.Response) {
	r := x.report
	var p struct {
		Payment   string `json:"payment"`
		StatusURL string `json:"statusUrl"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err == nil && json.Unmarshal(body, &p) == nil {
		if p.Payment != "" {
			r.PaymentID = Printable(p.Payment, 128)
		}
		if u := x.statusURL(p.StatusURL); u != "" {
			r.StatusURL = u
		}
	}
	for _, link := range resp.Header.Values("Link") {
		if u := x.statusURL(statusLink(link)); u != "" {
			r.StatusURL = u
		}
	}
}

// statusLink finds the target of the relation payment-status in a Link header.
func statusLink(header string) string {
	for header != "" {
		_, rest, ok := strings.Cut(header, "<")
		if !ok {
			return ""
		}
		target, rest, ok := strings.Cut(rest, ">")
		if !ok {
			return ""
		}
		params, next, _ := strings.Cut(rest, "<")
		for param := range strings.SplitSeq(params, ";") {
			name, value, _ := strings.Cut(strings.Trim(param, " \t,"), "=")
			if strings.EqualFold(strings.TrimSpace(name), "rel") && strings.Trim(value, `" `) == relPaymentStatus {
				return target
			}
		}
		if next == "" {
			return ""
		}
		header = "<" + next
	}
	return ""
}

// statusURL is the absolute form of what a server gave, or "" if that is no URL to show to anybody.
func (x *exchange) statusURL(ref string) string {
	if ref == "" || len(ref) > 2048 {
		return ""
	}
	u, err := url.Parse(ref)
	if err != nil {
		return ""
	}
	u = x.url.ResolveReference(u)
	if !isHTTP(u) || u.Hostname() == "" || u.User != nil {
		return ""
	}
	return Printable(u.String(), 2048)
}
