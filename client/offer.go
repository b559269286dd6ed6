package client

import (
	"encoding/json"
	"io"
	"net/http"

	"github.com/caddy-x402/caddy-x402/x402"
)

// What is read of a stranger's 402.
const (
	maxOfferHeader = 64 << 10
	maxOfferBody   = 256 << 10
	maxAccepts     = 64
)

// readOffer reads a 402: the header of version 2, or else the body of version 1 (x402 v2 transport,
// section 1.1 of HTTP; v1 has the body only). It leaves r as it is where it fails.
func (r *Report) readOffer(resp *http.Response) error {
	if header := resp.Header.Get(x402.HeaderRequired); header != "" {
		return r.readV2(header)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxOfferBody+1))
	if err != nil {
		return fail(CodeOffer, err, "the body of the 402 could not be read")
	}
	return r.readV1(body)
}

func (r *Report) readV2(header string) error {
	var offer x402.PaymentRequired
	if err := x402.DecodeHeader(header, maxOfferHeader, &offer); err != nil {
		return fail(CodeOffer, err, "the header %s of the 402 is no offer", x402.HeaderRequired)
	}
	if offer.X402Version != 2 {
		return fail(CodeOffer, nil, "the header %s of the 402 says version %d; version 2 belongs there", x402.HeaderRequired, offer.X402Version)
	}
	if len(offer.Accepts) > maxAccepts {
		return fail(CodeOffer, nil, "the 402 offers %d ways to pay; at most %d are read", len(offer.Accepts), maxAccepts)
	}
	r.Version, r.Offer = 2, &offer
	return nil
}

func (r *Report) readV1(body []byte) error {
	if len(body) > maxOfferBody {
		return fail(CodeOffer, nil, "the body of the 402 is longer than %d bytes", maxOfferBody)
	}
	var offer x402.RequiredV1
	if err := json.Unmarshal(body, &offer); err != nil || offer.X402Version != 1 {
		return fail(CodeOffer, err, "the 402 has no header %s, and its body is no offer of version 1", x402.HeaderRequired)
	}
	if len(offer.Accepts) > maxAccepts {
		return fail(CodeOffer, nil, "the 402 offers %d ways to pay; at most %d are read", len(offer.Accepts), maxAccepts)
	}
	r.Version, r.OfferV1 = 1, &offer
	return nil
}

// offered lists the ways to pay, those of version 1 as version 2 would have them.
func (r *Report) offered(limits []Limit) []x402.Requirements {
	if r.Version == 2 {
		return r.Offer.Accepts
	}
	out := make([]x402.Requirements, 0, len(r.OfferV1.Accepts))
	for i := range r.OfferV1.Accepts {
		v1 := &r.OfferV1.Accepts[i]
		converted := x402.Requirements{
			Scheme: v1.Scheme, Network: networkOfV1(v1.Network, limits), Amount: v1.MaxAmountRequired, Asset: v1.Asset,
			PayTo: v1.PayTo, MaxTimeoutSeconds: v1.MaxTimeoutSeconds,
		}
		if v1.Extra != nil {
			converted.Extra.Name, converted.Extra.Version = v1.Extra.Name, v1.Extra.Version
		}
		out = append(out, converted)
	}
	return out
}

// networkOfV1 is the CAIP-2 identifier for a name of version 1, or the name itself where nobody knows it.
func networkOfV1(name string, limits []Limit) string {
	for i := range limits {
		if n := &limits[i].Network; name != "" && n.V1Name == name {
			return n.ID
		}
	}
	if n, ok := x402.LookupNetwork(name); ok && n.V1Name == name {
		return n.ID
	}
	return name
}

// errorText is what the offer gives as the reason for the 402.
func (r *Report) errorText() string {
	switch {
	case r.Offer != nil:
		return r.Offer.Error
	case r.OfferV1 != nil:
		return r.OfferV1.Error
	}
	return ""
}
