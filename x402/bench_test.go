package x402_test

import (
	"testing"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/x402"
)

// BenchmarkRecovery is the bare cost of a public key's recovery: what BenchmarkVerification is measured against.
func BenchmarkRecovery(b *testing.B) {
	a := authorization()
	digest, sig := a.Digest(separator), sign(b, a, payerKey)
	sig[64] -= 27
	b.ReportAllocs()
	for b.Loop() {
		if _, err := crypto.Ecrecover(digest[:], sig); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerification is all of it but the decoding: selection, digest, recovery, checks.
func BenchmarkVerification(b *testing.B) {
	a := authorization()
	p := payload(b, a, sign(b, a, payerKey))
	list, terms := offers(), terms()
	b.ReportAllocs()
	for b.Loop() {
		s := p.Identify(separator)
		if _, err := x402.Select(list, p); err != nil {
			b.Fatal(err)
		}
		if needsChain, err := p.Verify(terms, s, now); err != nil || needsChain {
			b.Fatal(err)
		}
	}
}

func BenchmarkDigest(b *testing.B) {
	a := authorization()
	b.ReportAllocs()
	for b.Loop() {
		a.Digest(separator)
	}
}

func BenchmarkDecodePayload(b *testing.B) {
	a := authorization()
	offer := x402.NewOffer(offers()[:1], resource, nil, "", resumeKey)
	h, err := x402.EncodeHeader(offer.Required.Pay(offer.Required.Accepts[0], &a, sign(b, a, payerKey)))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(h)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x402.DecodePayload(h); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOfferTemplate makes header and body of a 402 into memory that is used again.
func BenchmarkOfferTemplate(b *testing.B) {
	template, err := x402.NewOfferTemplate(offers()[:1], resource, nil)
	if err != nil {
		b.Fatal(err)
	}
	var head, body []byte
	b.ReportAllocs()
	for b.Loop() {
		head = template.AppendHeader(head[:0], resource.URL, "Payment required", resumeKey)
		body = template.AppendBody(body[:0], resource.URL, "Payment required")
	}
	b.ReportMetric(float64(len(head)), "header-bytes")
}

// BenchmarkOfferPlain is the same without a template.
func BenchmarkOfferPlain(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		offer := x402.NewOffer(offers()[:1], resource, nil, "Payment required", resumeKey)
		if _, err := offer.Header(); err != nil {
			b.Fatal(err)
		}
		if _, err := offer.Body(); err != nil {
			b.Fatal(err)
		}
	}
}
