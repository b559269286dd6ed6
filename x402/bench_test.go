package x402_test

import (
	"bytes"
	"testing"
	"time"

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

// BenchmarkVerificationRatio takes turns between the two and compares their best rounds, so that what
// else the machine does falls out: the ratio is to stay below 1.25.
func BenchmarkVerificationRatio(b *testing.B) {
	a := authorization()
	sig := sign(b, a, payerKey)
	p := payload(b, a, sig)
	digest, bare := a.Digest(separator), append(bytes.Clone(sig[:64]), sig[64]-27)
	list, terms := offers(), terms()
	best := func(least time.Duration, f func() bool) time.Duration {
		start := time.Now()
		for range 10 {
			if !f() {
				b.Fatal("not sound")
			}
		}
		return min(least, time.Since(start))
	}
	recovery, verification := time.Hour, time.Hour
	for b.Loop() {
		recovery = best(recovery, func() bool {
			_, err := crypto.Ecrecover(digest[:], bare)
			return err == nil
		})
		verification = best(verification, func() bool {
			s := p.Identify(separator)
			_, err := x402.Select(list, p)
			needsChain, err2 := p.Verify(terms, s, now)
			return err == nil && err2 == nil && !needsChain
		})
	}
	b.ReportMetric(float64(verification)/float64(recovery), "x-recovery")
	b.ReportMetric(float64(recovery.Nanoseconds())/10, "recovery-ns")
	b.ReportMetric(float64(verification.Nanoseconds())/10, "verification-ns")
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
