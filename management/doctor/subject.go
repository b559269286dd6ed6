package doctor

import (
	"context"
	"math/big"
	"net/http"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

// Subject is what is looked at. It holds no secret.
type Subject struct {
	// Refused is why Caddy refuses the configuration; empty: it takes it.
	Refused string
	// Literals are the places of secrets that stand in the configuration itself.
	Literals []string
	// Secrets are those that placeholders of the configuration stand for.
	Secrets []Secret
	// Logs are those that may hold requests.
	Logs []Log

	Networks []Network
	// Wallets are the addresses that the configuration has, with what each is for.
	Wallets []Wallet
	Refunds Refunds
	// SettleTimeout is how long a request waits for its settlement, and Issuers how long the slowest issuer of tokens may take.
	SettleTimeout, Issuers time.Duration

	Store Store
	// Retention is how long closed payments are kept; 0: for ever.
	Retention time.Duration
	// Instances is how many share the work, as the operator says.
	Instances int

	PublicURL string
	Handlers  []Handler
	// Service: x402_service answers on a site, with its health.
	Service bool
	// Management is x402_management; nil: it is on no site.
	Management *Management
	Webhooks   []Webhook
	// Hooked: Caddy's events app does something with this module's events.
	Hooked bool
	// Metrics: Prometheus can read them, at the admin endpoint or on a site.
	Metrics bool
	// Alerts is the text of the rules for Prometheus, and Deployment that of what starts the containers; nil: the operator has not said where.
	Alerts, Deployment *string

	// Live asks; nil: there is nothing to ask.
	Live *Asked
}

// Secret is what is known of one without showing it.
type Secret struct {
	// Name is where the configuration has it, such as "apps/x402/networks/0/settler/keys/0".
	Name string
	// Placeholder is where it comes from.
	Placeholder string
	// Problem is why it can't be read; else Weak is why somebody could guess it, and Exposed who else can read its file.
	Problem, Weak, Exposed string
	// Print tells equal secrets from others within one run.
	Print string
}

// Log is a log that may hold requests.
type Log struct {
	Name     string
	Redacted bool
}

// Network is a chain on which payments are taken.
type Network struct {
	x402.Network
	// Local: it is a test network on this machine.
	Local bool
	PayTo common.Address
	// Endpoints is how many RPC endpoints there are.
	Endpoints int
	// Settler is the kind of who moves the money; Plain is true where its key is a wallet's own, so that gas is ours to pay.
	Settler string
	Plain   bool
	// WarnWei is the balance of gas below which it warns.
	WarnWei *big.Int
	// Dearest is the highest price of a request or a plan here.
	Dearest uint256.Int
}

// Wallet is an address with what it is for: "pay_to", "gas" or "refund".
type Wallet struct {
	Role    string
	Network string // empty: of all
	Address common.Address
}

// Refunds are what is said of them.
type Refunds struct {
	On bool
	// Known: the address of the wallet is known, and is Wallet. Else its key is kept elsewhere.
	Known            bool
	Wallet           common.Address
	MinAge, Interval time.Duration
}

// Store is where payments are recorded.
type Store struct {
	// Kind is the module's name, such as "sqlite", and Path the file if it is one.
	Kind, Path string
	// Careless: it may forget what was written last.
	Careless bool
	// Files is the path of Caddy's storage where that is of this machine alone; keys of tokens are in it.
	Files bool
	// TokenKeys: the keys of tokens stand in the configuration, so that all instances have the same.
	TokenKeys bool
}

// Handler is a set of priced routes.
type Handler struct {
	Name string
	// Idempotency is "off", "optional" or "required".
	Idempotency string
	// CORS: web pages may read its answers.
	CORS bool
	// Origins are those whose pages may; none: all.
	Origins []string
	// Limits are by whom requests are counted: "key", "payer", "client", "refused".
	Limits []string
	// Upfront: something of it is paid for before it is delivered.
	Upfront bool
	// Prices are those of routes and plans, in the assets' own unit.
	Prices []Price
}

// Price is one price.
type Price struct{ What, Amount string }

// Management is what is said of the management API.
type Management struct {
	KeyMaxAge, IdempotencyTTL time.Duration
	// Unlimited: nobody counts its calls, and keys that are none.
	Unlimited bool
}

// Webhook is an endpoint of the configuration, or one that was made by the management API.
type Webhook struct {
	// ID is what the instance knows it by; empty: it was read in the configuration.
	ID   string
	URL  string
	Live bool
	// Gone: it is told nothing more, since it said that it is gone.
	Gone bool
	// Events that it is told of; none: all.
	Events []string
	// Prints tell its secrets from those of others.
	Prints []string
}

// Asked is how the live things are asked.
type Asked struct {
	// Now is this machine's clock.
	Now func() time.Time
	// Chains by the networks' ids.
	Chains map[string]Chain
	// HTTP asks the site as a client would. It follows no redirects.
	HTTP *http.Client
	// PaidURL is an address that must be paid for; empty: the catalogue is asked for one.
	PaidURL string
	// Ledger answers nil if payments could be written down now.
	Ledger func(context.Context) error
	// Instance is the Caddy that runs; nil: none answers at the admin endpoint.
	Instance Instance
	// Probe sends a signed test to the webhook of that number, and one that was tampered with.
	Probe func(ctx context.Context, number int) (Probe, error)
	// Pay pays for what an address gives; nil: there is no key to pay with.
	Pay func(ctx context.Context, url string) (Payment, error)
}

// Chain is asked about one network.
type Chain interface {
	// Endpoints asks each by itself.
	Endpoints(context.Context) []Endpoint
	// Token asks the asset's contract.
	Token(context.Context) (Token, error)
	// Blacklisted asks whether the asset's issuer has shut out an address.
	Blacklisted(context.Context, common.Address) (bool, error)
	Ether(context.Context, common.Address) (*big.Int, error)
	Balance(context.Context, common.Address) (uint256.Int, error)
	// Succeeded asks whether a transaction is on the chain, and did what it should.
	Succeeded(context.Context, common.Hash) (bool, error)
}

// Endpoint is what one of them answered.
type Endpoint struct {
	ChainID uint64
	// Ahead is how much this machine's clock is before the endpoint's; Dated: it has told the time.
	Ahead time.Duration
	Dated bool
	// Problem is why there is no answer. It holds no address.
	Problem string
}

// Token is what a contract says of itself.
type Token struct {
	Separator common.Hash
	Decimals  uint8
	Paused    bool
}

// Instance is a Caddy that runs.
type Instance interface {
	APIKeys(context.Context) ([]APIKey, error)
	// TokenKeyAge is how long the key that signs tokens has been doing so; 0: it is not known.
	TokenKeyAge(context.Context) (time.Duration, error)
	// States counts the payments.
	States(context.Context) (map[string]int64, error)
	// Metrics is what Prometheus reads.
	Metrics(context.Context) (string, error)
	// Webhooks are those that are told something and were not read in its configuration, and those that are gone.
	Webhooks(context.Context) ([]Webhook, error)
	// ProbeWebhook has it send what Asked.Probe sends.
	ProbeWebhook(ctx context.Context, id string) (Probe, error)
}

// APIKey is a key of the management API that is good.
type APIKey struct {
	ID, Mode   string
	CreatedAt  time.Time
	Superseded bool
	// Consumer: it is one of somebody who buys, and opens nothing here.
	Consumer bool
}

// Probe is how a receiver of webhooks answered.
type Probe struct {
	// Signed is why it did not take what was signed well, or did not answer; empty: it did. TookForgery: it took what was not.
	Signed      string
	TookForgery bool
}

// Payment is how a payment ended.
type Payment struct {
	Status      int
	Network     string
	Transaction common.Hash
	// Problem is why it was not made.
	Problem string
}

// local reports whether nothing leaves this machine.
func (s *Subject) local() bool {
	for i := range s.Networks {
		if !s.Networks[i].Local {
			return false
		}
	}
	return len(s.Networks) > 0
}

// real reports whether there is a network with real money.
func (s *Subject) real() bool {
	for i := range s.Networks {
		if !s.Networks[i].Testnet {
			return true
		}
	}
	return false
}

// Network is what X-Network says of this subject.
func (s *Subject) Network() string {
	if s.real() {
		return "mainnet"
	}
	return "testnet"
}

// join lists what was found wrong.
func join(found []string) string { return strings.Join(found, "; ") }
