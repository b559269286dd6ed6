//go:build interop

package interop

import (
	"bytes"
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/test/interop/bed"
	"github.com/caddy-x402/caddy-x402/x402"
)

func newCore(t *testing.T) *bed.Peer {
	t.Helper()
	bed.Install(t, ".")
	return bed.NewPeer(t, ".", "codec.mjs")
}

// Offers that @x402/core encodes are read whole, and come back to it as they were.
func TestTheirOffersAreRead(t *testing.T) {
	core := newCore(t)
	rapid.Check(t, func(t *rapid.T) {
		accepts := rapid.SliceOfN(rapid.Custom(anyRequirements), 1, 4).Draw(t, "accepts")
		offer := object{"x402Version": 2, "resource": anyResource(t), "accepts": accepts}
		some(t, offer, "error", func() any { return notEmpty().Draw(t, "error") })
		if e := anyExtensions(t); len(e) > 0 {
			offer["extensions"] = e
		}
		must(t, "their schema", core.Ask("validateRequired", offer, nil))

		var header string
		must(t, "their encoder", core.Ask("encodeRequired", offer, &header))
		var got x402.PaymentRequired
		must(t, "our decoder", x402.DecodeHeader(header, 1<<20, &got))
		r := got.Resource
		must(t, "what we understood of the resource", same(
			[]any{r.URL, r.Description, r.MimeType, r.ServiceName, r.IconURL},
			members(offer["resource"].(object), "url", "description", "mimeType", "serviceName", "iconUrl")))
		for i, a := range got.Accepts {
			must(t, "what we understood of a requirement", same(
				[]any{a.Scheme, a.Network, a.Amount, a.Asset, a.PayTo},
				members(accepts[i], "scheme", "network", "amount", "asset", "payTo")))
			if a.MaxTimeoutSeconds != accepts[i]["maxTimeoutSeconds"] {
				t.Fatalf("maxTimeoutSeconds is %d", a.MaxTimeoutSeconds)
			}
			extra, _ := accepts[i]["extra"].(object)
			must(t, "what we understood of extra", same(
				[]any{a.Extra.Name, a.Extra.Version, a.Extra.PaymentFlow, a.Extra.Plan},
				members(extra, "name", "version", "paymentFlow", "plan")))
		}

		again, err := x402.EncodeHeader(got)
		must(t, "our encoder", err)
		var back json.RawMessage
		must(t, "their decoder", core.Ask("decodeRequired", again, &back))
		must(t, "what came back", same(back, offer))
	})
}

// members gives the texts at some keys, "" where there is none.
func members(o object, keys ...string) []any {
	values := make([]any, 0, len(keys))
	for _, key := range keys {
		s, _ := o[key].(string)
		values = append(values, s)
	}
	return values
}

// Payments that @x402/core encodes are read as they were meant, in both versions, and kept as they were sent.
func TestTheirPaymentsAreRead(t *testing.T) {
	core := newCore(t)
	rapid.Check(t, func(t *rapid.T) {
		exact, authorization, sig := exactPayload(t)
		version := rapid.IntRange(1, 2).Draw(t, "version")
		sent := object{"x402Version": version, "payload": exact}
		extensions := object{}
		if version == 1 {
			sent["scheme"], sent["network"] = "exact", rapid.SampledFrom([]string{"base", "base-sepolia", "polygon"}).Draw(t, "network")
		} else {
			sent["accepted"] = anyRequirements(t)
			some(t, sent, "resource", func() any { return anyResource(t) })
			if extensions = anyExtensions(t); len(extensions) > 0 {
				sent["extensions"] = extensions
			}
		}
		must(t, "their schema", core.Ask("validatePayload", sent, nil))
		var header string
		must(t, "their encoder", core.Ask("encodePayload", sent, &header))
		p, err := x402.DecodePayload(header)
		if len(header) > x402.MaxHeaderBytes {
			if x402.ReasonOf(err) != x402.ReasonUndecodable {
				t.Fatalf("a header of %d bytes: %v", len(header), err)
			}
			return
		}
		must(t, "our decoder", err)
		must(t, "what we keep", same(p.Raw, sent))
		if p.Version != version || p.Authorization != authorization || !bytes.Equal(p.Signature, sig) {
			t.Fatalf("we read %+v", p)
		}
		where := sent
		if version == 2 {
			where = sent["accepted"].(object)
			must(t, "accepted", same(p.Accepted, where))
			must(t, "resource", same(p.Resource, sent["resource"]))
		}
		must(t, "scheme and network", same([]any{p.Scheme, p.Network}, members(where, "scheme", "network")))
		if len(extensions)+len(p.Extensions) > 0 {
			must(t, "extensions", same(p.Extensions, extensions))
		}
	})
}

// Receipts that @x402/core encodes are read whole.
func TestTheirReceiptsAreRead(t *testing.T) {
	core := newCore(t)
	rapid.Check(t, func(t *rapid.T) {
		sent := anyResponse(t)
		var header string
		must(t, "their encoder", core.Ask("encodeResponse", sent, &header))
		var got x402.SettlementResponse
		must(t, "our decoder", x402.DecodeHeader(header, 1<<20, &got))
		must(t, "what we read", same(got, sent))
		if got.Success != sent["success"] || got.Transaction != sent["transaction"] {
			t.Fatalf("we read %+v", got)
		}
	})
}
