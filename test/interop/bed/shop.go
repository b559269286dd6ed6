package bed

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Shop is a Caddy with the paywall in front of an upstream, and the chain that it is paid on.
type Shop struct {
	Upstream *rig.Upstream
	Rig      *rig.Rig
	chain    *ethclient.Client
}

// Open starts a shop that is paid on the chain c; it ends with the test.
func Open(t testing.TB, c Chain, o rig.Options) *Shop {
	t.Helper()
	client, err := ethclient.DialContext(t.Context(), c.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	r := &rig.Rig{T: t, Dir: t.TempDir(), Upstream: rig.NewUpstream(t, o.Upstream), Addr: rig.FreeAddr(t)}
	o.RPC = c.URL()
	r.Load(o)
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error("stopping Caddy:", err)
		}
	})
	s := &Shop{Upstream: r.Upstream, Rig: r, chain: client}
	t.Cleanup(func() { s.tell(t) })
	return s
}

// Order is what a stock client shall buy: what the scripts named pay.mjs read.
type Order struct {
	URL    string `json:"url"`
	Method string `json:"method"`
	Body   string `json:"body,omitempty"`
	Key    string `json:"key"`
}

// Bought is what a stock client got: what the scripts named pay.mjs print.
type Bought struct {
	Status     int                      `json:"status"`
	Body       string                   `json:"body"`
	RetryAfter string                   `json:"retryAfter"`
	Settlement *x402.SettlementResponse `json:"settlement"`
	// Error is what the client threw instead of giving an answer.
	Error string `json:"error"`
}

// Buy runs the stock client of the folder dir once, for devnet's i-th payer.
func Buy(t testing.TB, dir string, payer int, method, url, body string) (b Bought) {
	t.Helper()
	key := hexutil.Encode(crypto.FromECDSA(devnet.Payer(payer).Key))
	Run(t, dir, "pay.mjs", Order{URL: url, Method: method, Body: body, Key: key}, &b)
	return b
}

// Accounts are balances of the token, in atomic units, and how often it moved to the seller.
type Accounts struct {
	Payer, Seller uint64
	Transfers     int
}

// Accounts asks the chain.
func (s *Shop) Accounts(t testing.TB, payer int) Accounts {
	t.Helper()
	logs, err := s.chain.FilterLogs(t.Context(), ethereum.FilterQuery{
		FromBlock: common.Big0, Addresses: []common.Address{devnet.TokenAddress},
		Topics: [][]common.Hash{{x402.TopicTransfer}, nil, {common.BytesToHash(rig.PayTo.Bytes())}},
	})
	if err != nil {
		t.Fatal("reading transfers:", err)
	}
	return Accounts{s.balance(t, devnet.Payer(payer).Address), s.balance(t, rig.PayTo), len(logs)}
}

func (s *Shop) balance(t testing.TB, of common.Address) uint64 {
	t.Helper()
	token := devnet.TokenAddress
	answer, err := s.chain.CallContract(t.Context(), ethereum.CallMsg{To: &token, Data: x402.BalanceOfCalldata(of)}, nil)
	if err != nil {
		t.Fatal("reading a balance:", err)
	}
	v, err := x402.ParseUint256(answer)
	if err != nil {
		t.Fatal(err)
	}
	return v.Uint64()
}

// Moved checks that since before the payer has paid the seller so much in so many transfers.
func (s *Shop) Moved(t testing.TB, payer int, before Accounts, amount uint64, transfers int) {
	t.Helper()
	want := Accounts{before.Payer - amount, before.Seller + amount, before.Transfers + transfers}
	if got := s.Accounts(t, payer); got != want {
		t.Errorf("the chain has %+v, want %+v (before: %+v)", got, want, before)
	}
}

// Receipt checks what a stock client understood of a paid answer.
func (s *Shop) Receipt(t testing.TB, b Bought, payer int, network, amount string) {
	t.Helper()
	if b.Error != "" || b.Status != http.StatusOK || b.Settlement == nil {
		t.Fatalf("the stock client got %+v", b)
	}
	r := *b.Settlement
	if !r.Success || r.Network != network || r.Amount != amount || common.HexToAddress(r.Payer) != devnet.Payer(payer).Address {
		t.Errorf("the receipt says %+v", r)
	}
	receipt, err := s.chain.TransactionReceipt(t.Context(), common.HexToHash(r.Transaction))
	if err != nil || receipt.Status != 1 {
		t.Errorf("the transaction %q of the receipt: %+v, %v", r.Transaction, receipt, err)
	}
}

// Sells makes the stock client of the folder dir buy twice with GET, each time anew, and once with POST. network is
// what its protocol calls the chain.
func (s *Shop) Sells(t testing.TB, dir, network string) {
	t.Helper()
	const price, payer, body = 10_000, 1, `{"question":"wie heißt das Wetter? ☂"}`
	before := s.Accounts(t, payer)
	bought := map[string]bool{}
	for i, method := range []string{http.MethodGet, http.MethodGet, http.MethodPost} {
		sent := ""
		if method == http.MethodPost {
			sent = body
		}
		b := Buy(t, dir, payer, method, s.Rig.URL("/weather?city=Köln"), sent)
		s.Receipt(t, b, payer, network, fmt.Sprint(price))
		if want := method + " /weather?city=K%C3%B6ln " + sent; b.Body != want {
			t.Errorf("purchase %d brought %q, want %q", i, b.Body, want)
		}
		bought[b.Settlement.Transaction] = true
		s.Moved(t, payer, before, price*uint64(i+1), i+1)
	}
	if len(bought) != 3 || s.Upstream.Calls() != 3 {
		t.Errorf("3 purchases in %d transactions, with %d upstream calls", len(bought), s.Upstream.Calls())
	}
}
