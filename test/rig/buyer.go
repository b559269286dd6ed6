package rig

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Buyer is a client that does each step of a payment by hand, so that tests can do them wrong.
type Buyer struct {
	t       testing.TB
	Account devnet.Account
	HTTP    *http.Client
}

// NewBuyer makes the i-th payer; each has its own money.
func NewBuyer(t testing.TB, i int) *Buyer {
	tr := &http.Transport{MaxIdleConnsPerHost: 512}
	t.Cleanup(tr.CloseIdleConnections)
	return &Buyer{t: t, Account: devnet.Payer(i), HTTP: &http.Client{Transport: tr, Timeout: time.Minute}}
}

// Answer is a response that was read to its end.
type Answer struct {
	Status int
	Header http.Header
	Body   string
	Err    error
}

// Do sends a request; header pairs follow the body.
func (b *Buyer) Do(ctx context.Context, method, url, body string, header ...string) Answer {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return Answer{Err: err}
	}
	if body == "" {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	for i := 0; i+1 < len(header); i += 2 {
		if strings.EqualFold(header[i], "Host") {
			r.Host = header[i+1]
			continue
		}
		r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
	}
	res, err := b.HTTP.Do(r)
	if err != nil {
		return Answer{Err: err}
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	return Answer{Status: res.StatusCode, Header: res.Header, Body: string(text), Err: err}
}

// Get is Do for a GET. One without a header is asked again if its connection had come to a server that a reload was about to stop.
func (b *Buyer) Get(url string, header ...string) Answer {
	a := b.Do(b.t.Context(), http.MethodGet, url, "", header...)
	for i := 0; i < 3 && len(header) == 0 && (errors.Is(a.Err, io.EOF) || errors.Is(a.Err, syscall.ECONNRESET)); i++ {
		a = b.Do(b.t.Context(), http.MethodGet, url, "")
	}
	return a
}

// Offer asks for the price of url.
func (b *Buyer) Offer(url string) x402.PaymentRequired {
	b.t.Helper()
	a := b.Get(url)
	if a.Err != nil || a.Status != http.StatusPaymentRequired {
		b.t.Fatalf("asking for an offer: %d %v %s", a.Status, a.Err, a.Body)
	}
	return Offered(b.t, a)
}

// Offered decodes the offer of a 402.
func Offered(t testing.TB, a Answer) x402.PaymentRequired {
	t.Helper()
	var o x402.PaymentRequired
	if err := x402.DecodeHeader(a.Header.Get(x402.HeaderRequired), 1<<20, &o); err != nil {
		t.Fatalf("decoding the offer: %v", err)
	}
	return o
}

// Authorize signs an authorization for r; change may falsify it before it is signed.
func (b *Buyer) Authorize(r x402.Requirements, change ...func(*x402.Authorization)) (x402.Authorization, []byte) {
	b.t.Helper()
	amount, err := x402.ParseAtomic(r.Amount)
	if err != nil {
		b.t.Fatal(err)
	}
	a := x402.Authorization{From: b.Account.Address, To: common.HexToAddress(r.PayTo), Value: amount}
	a.ValidBefore = *uint256.NewInt(uint64(time.Now().Add(time.Duration(r.MaxTimeoutSeconds) * time.Second).Unix()))
	if _, err := rand.Read(a.Nonce[:]); err != nil {
		b.t.Fatal(err)
	}
	for _, f := range change {
		f(&a)
	}
	domain := x402.Domain{Name: r.Extra.Name, Version: r.Extra.Version, ChainID: devnet.Network().ChainID, Contract: common.HexToAddress(r.Asset)}
	sig, err := x402.Sign(a.Digest(domain.Separator()), b.Account.Key)
	if err != nil {
		b.t.Fatal(err)
	}
	return a, sig
}

// Sign makes the payment header for the i-th way to pay of an offer.
func (b *Buyer) Sign(o x402.PaymentRequired, i int, change ...func(*x402.Authorization)) string {
	b.t.Helper()
	a, sig := b.Authorize(o.Accepts[i], change...)
	return Encode(b.t, o.Pay(o.Accepts[i], &a, sig))
}

// SignV1 makes the payment header of protocol version 1.
func (b *Buyer) SignV1(o x402.PaymentRequired) string {
	b.t.Helper()
	a, sig := b.Authorize(o.Accepts[0])
	return Encode(b.t, map[string]any{
		"x402Version": 1, "scheme": "exact", "network": devnet.Network().V1Name,
		"payload": x402.ExactPayload{Signature: sig, Authorization: a},
	})
}

// Encode makes a header of v.
func Encode(t testing.TB, v any) string {
	t.Helper()
	s, err := x402.EncodeHeader(v)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Buy asks, signs and pays for a GET of url; it gives the paid answer and the header that paid.
func (b *Buyer) Buy(url string) (Answer, string) {
	b.t.Helper()
	header := b.Sign(b.Offer(url), 0)
	return b.Get(url, x402.HeaderSignature, header), header
}
