package client

import (
	"fmt"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

// choice is a way to pay that the limits allow.
type choice struct {
	index   int // in the offer
	req     x402.Requirements
	limit   *Limit
	amount  uint256.Int
	payTo   common.Address
	timeout time.Duration
	domain  x402.Domain
}

// rejection is why a way to pay is not taken, and how near it came: of several, the nearest gives the code.
type rejection struct {
	code   Code
	near   int
	detail string
}

// choose takes the first way to pay that the limits allow, and prepares its authorization.
func (x *exchange) choose() error {
	r := x.report
	offered := r.offered(x.c.Limits)
	rejections := make([]rejection, 0, len(offered))
	for i := range offered {
		ch, rej := x.c.judge(&offered[i])
		if rej != nil {
			rejections = append(rejections, *rej)
			continue
		}
		ch.index = i
		x.choice = ch
		r.Requirements, r.Network, r.Amount = &offered[i], ch.limit.Network, ch.amount
		return x.authorize()
	}
	return rejectAll(rejections)
}

// rejectAll gives the code of the rejection that came nearest, and says of each why.
func rejectAll(rejections []rejection) error {
	if len(rejections) == 0 {
		return fail(CodeNoOffer, nil, "the 402 offers no way to pay")
	}
	nearest := rejections[0]
	details := make([]string, 0, len(rejections))
	for i, rej := range rejections {
		if rej.near > nearest.near {
			nearest = rej
		}
		if i < 5 {
			details = append(details, rej.detail)
		}
	}
	if more := len(rejections) - len(details); more > 0 {
		details = append(details, fmt.Sprintf("and %d more", more))
	}
	return fail(nearest.code, nil, "%s", strings.Join(details, "; "))
}

// judge holds one way to pay against the limits.
func (c *Client) judge(r *x402.Requirements) (*choice, *rejection) {
	if rej := c.unspoken(r); rej != nil {
		return nil, rej
	}
	limit, rej := c.limitFor(r)
	if rej != nil {
		return nil, rej
	}
	ch := &choice{req: *r, limit: limit}
	if rej := ch.read(); rej != nil {
		return nil, rej
	}
	if ch.amount.Gt(&limit.Max) {
		a := &limit.Network.Asset
		return nil, &rejection{CodeOverCap, 4, fmt.Sprintf("%s %s on %s is asked for; the limit is %s",
			x402.FormatAmount(&ch.amount, a.Decimals), a.Symbol, limit.Network.ID, x402.FormatAmount(&limit.Max, a.Decimals))}
	}
	return ch, nil
}

// unspoken refuses other plans than the one that is wanted, and what this client has no words for.
func (c *Client) unspoken(r *x402.Requirements) *rejection {
	reject := func(detail string, args ...any) *rejection {
		return &rejection{CodeNoOffer, 0, fmt.Sprintf(detail, args...)}
	}
	switch {
	case c.Plan != "" && r.Extra.Plan != c.Plan:
		return reject("plan %s is not the one wanted", quote(r.Extra.Plan))
	case r.Scheme != x402.SchemeExact:
		return reject("scheme %s is not spoken", quote(r.Scheme))
	case r.Extra.AssetTransferMethod != "" && r.Extra.AssetTransferMethod != "eip3009":
		return reject("transfer method %s is not spoken", quote(r.Extra.AssetTransferMethod))
	case r.Extra.PaymentFlow != "" && r.Extra.PaymentFlow != x402.FlowUpfront && r.Extra.PaymentFlow != x402.FlowAuthorization:
		return reject("payment flow %s is not spoken", quote(r.Extra.PaymentFlow))
	}
	return nil
}

func (c *Client) limitFor(r *x402.Requirements) (*Limit, *rejection) {
	known := false
	for i := range c.Limits {
		n := &c.Limits[i].Network
		if n.ID != r.Network {
			continue
		}
		known = true
		if common.IsHexAddress(r.Asset) && common.HexToAddress(r.Asset) == n.Asset.Address {
			return &c.Limits[i], nil
		}
	}
	if known {
		return nil, &rejection{CodeAsset, 2, fmt.Sprintf("asset %s on %s is not allowed", quote(r.Asset), quote(r.Network))}
	}
	return nil, &rejection{CodeNetwork, 1, fmt.Sprintf("network %s is not allowed", quote(r.Network))}
}

// read takes what is signed from the requirements; ch.limit is set.
func (ch *choice) read() *rejection {
	reject := func(detail string, args ...any) *rejection {
		return &rejection{CodeNoOffer, 3, fmt.Sprintf(detail, args...)}
	}
	r, n := &ch.req, &ch.limit.Network
	amount, err := x402.ParseAtomic(r.Amount)
	if err != nil {
		return reject("amount %s is no number of atomic units", quote(r.Amount))
	}
	if !common.IsHexAddress(r.PayTo) || common.HexToAddress(r.PayTo) == (common.Address{}) {
		return reject("payTo %s is no account", quote(r.PayTo))
	}
	if r.MaxTimeoutSeconds <= 0 {
		return reject("maxTimeoutSeconds is %d", r.MaxTimeoutSeconds)
	}
	ch.domain = n.Domain()
	// The server verifies under the domain that it offers. The contract and the chain in it are ours, so a
	// wrong name makes a signature that is good for nothing, never one that is good for something else.
	if r.Extra.Name != "" {
		ch.domain.Name = r.Extra.Name
	}
	if r.Extra.Version != "" {
		ch.domain.Version = r.Extra.Version
	}
	if ch.domain.Name == "" || ch.domain.Version == "" {
		return reject("the asset's EIP-712 domain is not offered")
	}
	ch.amount, ch.payTo = amount, common.HexToAddress(r.PayTo)
	ch.timeout = time.Duration(min(r.MaxTimeoutSeconds, maxSeconds)) * time.Second
	return nil
}

// maxSeconds keeps a timeout within time.Duration; MaxValidity is what really caps it.
const maxSeconds = 1 << 30
