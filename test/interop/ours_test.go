//go:build interop

package interop

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/test/interop/bed"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Offers and payments that we encode pass the schemas of @x402/core, which reads what we wrote.
func TestOurOffersAndPaymentsAreRead(t *testing.T) {
	core := newCore(t)
	rapid.Check(t, func(t *rapid.T) {
		var resource x402.ResourceInfo
		must(t, "a resource", remake(anyResource(t), &resource))
		resource.Raw = nil
		extensions := map[string]json.RawMessage{}
		must(t, "extensions", remake(anyExtensions(t), &extensions))
		delete(extensions, x402.ExtensionResume)
		accepts := rapid.SliceOfN(rapid.Custom(ourRequirements), 1, 4).Draw(t, "accepts")
		text := anyText().Draw(t, "error")
		key := rapid.SampledFrom([]string{"", "AAAAAAAAAAAAAAAAAAAAAA"}).Draw(t, "resume key")
		offer := x402.NewOffer(accepts, resource, extensions, text, key)

		header, err := offer.Header()
		must(t, "our encoder", err)
		must(t, "the offer in the header", reads(core, "Required", header, offer.Required))
		body, err := offer.Body()
		must(t, "our encoder", err)
		must(t, "the offer in the body", same(body, offer.V1))
		if len(offer.V1.Accepts) > 0 {
			must(t, "the offer in the body", core.Ask("validateRequired", json.RawMessage(body), nil))
		}

		template, err := x402.NewOfferTemplate(accepts, resource, extensions)
		must(t, "our template", err)
		must(t, "the template's header", reads(core, "Required", string(template.AppendHeader(nil, resource.URL, text, key)), offer.Required))
		must(t, "the template's body", same(template.AppendBody(nil, resource.URL, text), offer.V1))

		_, authorization, sig := exactPayload(t)
		payment := offer.Required.Pay(accepts[0], &authorization, sig)
		header, err = x402.EncodeHeader(payment)
		must(t, "our encoder", err)
		must(t, "the payment", reads(core, "Payload", header, payment))
		if v1, ok := accepts[0].V1(resource); ok {
			payment := v1.Pay(&authorization, sig)
			header, err = x402.EncodeHeader(payment)
			must(t, "our encoder", err)
			must(t, "the payment of version 1", reads(core, "Payload", header, payment))
		}
	})
}

// reads reports whether @x402/core reads header as want, and likes it.
func reads(core *bed.Peer, kind, header string, want any) error {
	var got json.RawMessage
	if err := core.Ask("decode"+kind, header, &got); err != nil {
		return err
	}
	if err := core.Ask("validate"+kind, got, nil); err != nil {
		return err
	}
	return same(got, want)
}

func remake(from, to any) error {
	raw, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, to)
}

func ourRequirements(t *rapid.T) x402.Requirements {
	network := rapid.SampledFrom(x402.Networks()).Draw(t, "network")
	amount := anyNumber(t, "amount")
	timeout := time.Duration(rapid.IntRange(1, 86_400).Draw(t, "timeout")) * time.Second
	flow := rapid.SampledFrom([]string{x402.FlowUpfront, x402.FlowAuthorization}).Draw(t, "flow")
	plan := rapid.SampledFrom([]string{"", "day", "große Runde"}).Draw(t, "plan")
	return x402.NewRequirements(network, anyAddress(t, "payTo"), &amount, timeout, flow, plan)
}

// Receipts that we encode are read by @x402/core as they were meant.
func TestOurReceiptsAreRead(t *testing.T) {
	core := newCore(t)
	rapid.Check(t, func(t *rapid.T) {
		var receipt x402.SettlementResponse
		must(t, "a receipt", remake(anyResponse(t), &receipt))
		header, err := x402.EncodeHeader(receipt)
		must(t, "our encoder", err)
		var got json.RawMessage
		must(t, "their decoder", core.Ask("decodeResponse", header, &got))
		must(t, "what they read", same(got, receipt))
	})
}
