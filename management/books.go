package management

import (
	"context"
	"net/http"
	"time"

	"github.com/caddy-x402/caddy-x402/management/apikey"
)

const tagBooks = "The shop"

func (a *API) addBooks() {
	add(a, operation{
		rule: rule{id: "listWallets", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/wallets", tag: tagBooks,
		summary: "Lists the operator's wallets: what they have, their nonces, and what is in flight",
	}, listWallets)
	add(a, operation{
		rule: rule{id: "listAudit", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/audit", tag: tagBooks,
		summary: "Lists what operators and their keys have changed or tried to, newest first",
		description: "Each call that changes something is written down before it is made, and its outcome after: an outcome of `begun` is one that nobody knows, as the " +
			"process died. What happens to payments is in their own trails.",
	}, listAudit)
	add(a, operation{
		rule: rule{id: "getSettings", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/settings", tag: tagBooks,
		summary: "Shows what may be shown of the configuration",
	}, a.getSettings)
}

// Wallet is a wallet of the operator.
type Wallet struct {
	Network string `json:"network"`
	Address string `json:"address"`
	Role    string `json:"role" enum:"gas,refund,pay_to" doc:"What it is for"`

	GasWei    string     `json:"gasWei,omitempty" doc:"What it had of the chain's own coin when it was last looked at"`
	SeenAt    *time.Time `json:"seenAt,omitempty"`
	NextNonce *uint64    `json:"nextNonce,omitempty"`
	InFlight  *int       `json:"inFlight,omitempty" doc:"Transactions of this instance that are under way"`

	SpentWei   string     `json:"spentWei,omitempty" doc:"What transactions on the network have cost this instance since spentSince, all its wallets together"`
	SpentSince *time.Time `json:"spentSince,omitempty"`

	Balance string `json:"balance,omitempty" doc:"Of the network's asset, in atomic units"`
	Decimal string `json:"balanceDecimal,omitempty"`
	Symbol  string `json:"symbol,omitempty"`
	Problem string `json:"problem,omitempty" doc:"Why something is not known"`
}

type walletsOutput struct {
	Body struct {
		Data []Wallet `json:"data"`
	}
}

func listWallets(ctx context.Context, x *exchange, _ *struct{}) (*walletsOutput, error) {
	all, err := x.shop.Wallets(ctx)
	if err != nil {
		return nil, err
	}
	out := new(walletsOutput)
	out.Body.Data = []Wallet{}
	for i := range all {
		if x.about(all[i].Network) {
			out.Body.Data = append(out.Body.Data, all[i])
		}
	}
	return out, nil
}

type auditOutput struct {
	Body struct {
		Data []Deed `json:"data"`
		Page Page   `json:"page"`
	}
}

func listAudit(ctx context.Context, x *exchange, in *PageInput) (*auditOutput, error) {
	after, err := in.afterID()
	if err != nil {
		return nil, err
	}
	list, err := deeds(ctx, x, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	out := new(auditOutput)
	out.Body.Data, out.Body.Page = cutPage(list, in.Limit, func(d *Deed) string { return d.ID })
	return out, nil
}

// Settings are what may be shown of a configuration: nothing of it opens anything.
type Settings struct {
	Lock      string            `json:"lock,omitempty" doc:"The only X-Network that is served; none: both are"`
	Store     string            `json:"store" doc:"The kind of ledger"`
	PublicURL string            `json:"publicUrl,omitempty"`
	Networks  []NetworkSettings `json:"networks"`
	Refunds   RefundSettings    `json:"refunds"`

	MaxTimeoutSeconds    int64 `json:"maxTimeoutSeconds"`
	SettleTimeoutSeconds int64 `json:"settleTimeoutSeconds"`
	MinAgeSeconds        int64 `json:"minAgeSeconds"`
	MaxStaleSeconds      int64 `json:"maxStaleSeconds"`
	RetentionSeconds     int64 `json:"retentionSeconds,omitempty"`

	KeyMaxAgeSeconds      int64 `json:"keyMaxAgeSeconds,omitempty" doc:"How old API keys may become before their users are told"`
	IdempotencyTTLSeconds int64 `json:"idempotencyTtlSeconds"`
}

// NetworkSettings are what may be shown of a network.
type NetworkSettings struct {
	Network  string `json:"network"`
	Livemode bool   `json:"livemode"`
	Asset    string `json:"asset"`
	Symbol   string `json:"symbol"`
	Decimals uint8  `json:"decimals"`
	PayTo    string `json:"payTo"`
	Settler  string `json:"settler" doc:"Who moves the money: wallet or facilitator"`
}

// RefundSettings say how refunds are paid.
type RefundSettings struct {
	On              bool   `json:"on"`
	IntervalSeconds int64  `json:"intervalSeconds,omitempty"`
	MinAgeSeconds   int64  `json:"minAgeSeconds,omitempty"`
	Batch           int    `json:"batch,omitempty"`
	MaxPayment      string `json:"maxPayment,omitempty"`
	MaxDay          string `json:"maxDay,omitempty"`
}

type settingsOutput struct{ Body Settings }

func (a *API) getSettings(_ context.Context, x *exchange, _ *struct{}) (*settingsOutput, error) {
	s := x.shop.Settings
	s.Lock, s.KeyMaxAgeSeconds, s.IdempotencyTTLSeconds = x.shop.Lock(), int64(a.keyMaxAge.Seconds()), int64(a.replayFor.Seconds())
	networks := []NetworkSettings{}
	for _, n := range s.Networks {
		if x.about(n.Network) {
			networks = append(networks, n)
		}
	}
	s.Networks = networks
	return &settingsOutput{s}, nil
}
