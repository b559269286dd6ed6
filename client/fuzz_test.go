package client

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

// Whatever a 402 says, what gets signed is within the limits: one of the allowed assets, at most its cap, to an account,
// for no longer than the client's own cap; and nothing disturbs a terminal.
func FuzzOffer(f *testing.F) {
	n, _ := x402.LookupNetwork("base-sepolia")
	r := x402.NewRequirements(n, common.HexToAddress(payTo), uint256.NewInt(10_000), time.Minute, x402.FlowUpfront, "")
	offer := x402.NewOffer([]x402.Requirements{r}, x402.ResourceInfo{URL: "https://a.example/"}, nil, "no", "")
	header, _ := offer.Header()
	body, _ := offer.Body()
	f.Add(header, body)
	f.Add("", body)
	f.Add("e30=", []byte("{}"))
	f.Add("", []byte(`{"x402Version":1,"accepts":[{"network":"base-sepolia","extra":null}]}`))
	limits, err := Limits("0.05", n)
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	u, _ := url.Parse("https://a.example/")
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		x := &exchange{c: &Client{Limits: limits, Now: func() time.Time { return now }}, report: &Report{}, url: u}
		resp := &http.Response{Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(body)))}
		if header != "" {
			resp.Header.Set(x402.HeaderRequired, header)
		}
		err := x.report.readOffer(resp)
		if err == nil {
			err = x.choose()
		}
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || strings.ContainsFunc(e.Detail, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Fatalf("error %q", err)
			}
			return
		}
		a := x.report.Authorization
		if a.Value.Gt(&limits[0].Max) || a.To == (common.Address{}) || a.ValidBefore.Uint64() > uint64(now.Add(DefaultMaxValidity).Unix()) {
			t.Fatalf("would sign %+v", a)
		}
		if !common.IsHexAddress(x.report.Requirements.Asset) || common.HexToAddress(x.report.Requirements.Asset) != n.Asset.Address {
			t.Fatalf("would pay with %q", x.report.Requirements.Asset)
		}
		if _, err := x402.EncodeHeader(x.payload(make([]byte, x402.SignatureLength))); err != nil {
			t.Fatal(err)
		}
	})
}

// Whatever an answer's headers say, the report's texts are fit to print and its URL is one of the web.
func FuzzAnswer(f *testing.F) {
	receipt, _ := x402.EncodeHeader(x402.SettlementResponse{Success: true, Network: "base", ErrorMessage: "no"})
	f.Add(receipt, "2", `</s>; rel="payment-status"`, `{"payment":"a","statusUrl":"https://a.example/"}`)
	f.Add("", "Wed, 21 Oct 2015 07:28:00 GMT", `<a>;rel=x,<b>;rel=payment-status`, "")
	u, _ := url.Parse("https://a.example/")
	f.Fuzz(func(t *testing.T, receipt, retryAfter, link, body string) {
		x := &exchange{c: &Client{}, report: &Report{}, url: u}
		resp := &http.Response{Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
		for name, v := range map[string]string{x402.HeaderResponse: receipt, "Retry-After": retryAfter, "Link": link, "X-Payment-Id": link} {
			resp.Header[name] = []string{v}
		}
		x.readGrant(resp)
		x.readProblem(resp)
		if d := x.retryAfter(resp); d < 0 {
			t.Fatalf("would wait %s", d)
		}
		texts := []string{x.report.PaymentID, x.report.StatusURL}
		if s := x.report.Settlement; s != nil {
			texts = append(texts, string(s.ErrorReason), s.ErrorMessage, s.Payer, s.Transaction, s.Network, s.Amount)
		}
		for _, s := range texts {
			if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Fatalf("text %q", s)
			}
		}
		if s := x.report.StatusURL; s != "" && !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "http://") {
			t.Fatalf("status URL %q", s)
		}
	})
}
