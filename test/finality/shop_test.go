package finality

import (
	"encoding/json"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Atomic units.
const (
	cent = 10_000
	dear = 100 * cent
)

// site sells everything under /dear for a dollar, the rest for a cent. %FLOW is replaced.
const site = `
	x402 {
		flow %FLOW
		price $1.00 {
			name dear
			match {
				path /dear/*
			}
		}
		price $0.01 {
			name cheap
		}
	}
	x402_service
	reverse_proxy {upstream}
`

// three demands three confirmations of what costs a dollar, and lets tests see soon what takes long.
const three = "finality latest\n finality 3 above $0.99\n interval 100ms\n hold_ttl 5s"

// shop is a rig whose chain makes blocks on demand only.
type shop struct {
	*rig.Rig
	t     *testing.T
	chain *rpc.Client
}

func open(t *testing.T, o rig.Options) *shop {
	t.Helper()
	if o.SafeLag == 0 {
		o.SafeLag = 50 // what is safe is deep enough for every demand
	}
	s := &shop{t: t, Rig: rig.New(t, o)}
	var err error
	if s.chain, err = rpc.DialContext(t.Context(), s.Chain.URL()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.chain.Close)
	s.Chain.Stall()
	t.Cleanup(s.Chain.Resume)
	return s
}

func (s *shop) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// commit makes n blocks.
func (s *shop) commit(n int) {
	s.t.Helper()
	for range n {
		s.must(s.Chain.Commit())
	}
}

func (s *shop) until(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			s.t.Fatal("it did not come to pass: " + what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// begin sends a paid request; its answer comes by the channel.
func (s *shop) begin(b *rig.Buyer, method, path, signed string) <-chan rig.Answer {
	done := make(chan rig.Answer, 1)
	go func() { done <- b.Do(s.t.Context(), method, s.URL(path), "", x402.HeaderSignature, signed) }()
	return done
}

// sent waits until transactions wait for a block.
func (s *shop) sent(n int) {
	s.t.Helper()
	s.until("the payment is on its way", func() bool { return s.Chain.Pending() == n })
}

// waits checks that no request is answered yet.
func (s *shop) waits(what string, answers ...<-chan rig.Answer) {
	s.t.Helper()
	time.Sleep(400 * time.Millisecond)
	for _, done := range answers {
		select {
		case a := <-done:
			s.t.Fatalf("%s: it was answered %d %v %s", what, a.Status, a.Err, a.Body)
		default:
		}
	}
}

// paid checks that an answer was paid for by a transaction that has so many confirmations, and gives the payment's id.
func (s *shop) paid(what string, a rig.Answer, confirmations uint64) string {
	s.t.Helper()
	var r x402.SettlementResponse
	if a.Err == nil && a.Status == http.StatusOK {
		a.Err = x402.DecodeHeader(a.Header.Get(x402.HeaderResponse), 1<<16, &r)
	}
	if a.Err != nil || a.Status != http.StatusOK || !r.Success {
		s.t.Fatalf("%s: %d %v %v %.200s", what, a.Status, a.Err, a.Header, a.Body)
	}
	if got := s.depth(common.HexToHash(r.Transaction)); got < confirmations {
		s.t.Errorf("%s: served with %d confirmations, want %d", what, got, confirmations)
	}
	return a.Header.Get("X-Payment-Id")
}

// depth is how many confirmations a transaction has; 0: it is not on the chain.
func (s *shop) depth(hash common.Hash) uint64 {
	s.t.Helper()
	client := ethclient.NewClient(s.chain)
	r, err := client.TransactionReceipt(s.t.Context(), hash)
	if err != nil {
		return 0
	}
	head, err := client.BlockNumber(s.t.Context())
	s.must(err)
	return head - r.BlockNumber.Uint64() + 1
}

// putOff checks that an answer is a 503 that tells when to come back, and gives the payment's id.
func (s *shop) putOff(what string, a rig.Answer) (id string, after int) {
	s.t.Helper()
	after, err := strconv.Atoi(a.Header.Get("Retry-After"))
	if a.Status != http.StatusServiceUnavailable || err != nil || a.Header.Get("X-Payment-Id") == "" {
		s.t.Fatalf("%s: %d %v %v %s", what, a.Status, a.Err, a.Header, a.Body)
	}
	return a.Header.Get("X-Payment-Id"), after
}

// state is what anybody may know of a payment.
func (s *shop) state(id string) string {
	s.t.Helper()
	var p struct{ State string }
	a := rig.NewBuyer(s.t, 0).Get(s.URL("/x402/payments/" + id))
	if err := json.Unmarshal([]byte(a.Body), &p); err != nil {
		s.t.Fatalf("the status of %q: %d %s", id, a.Status, a.Body)
	}
	return p.State
}

func (s *shop) becomes(id string, states ...string) {
	s.t.Helper()
	s.until("the payment is "+states[0], func() bool { return slices.Contains(states, s.state(id)) })
}

// saw checks what was earned, and how often the upstream was called.
func (s *shop) saw(what string, calls int, earned uint64) {
	s.t.Helper()
	if s.Upstream.Calls() != calls || s.Earned() != earned {
		s.t.Errorf("%s: the upstream was called %d times and %d earned, want %d and %d", what, s.Upstream.Calls(), s.Earned(), calls, earned)
	}
}

// spend lets a payer move all its money away, in a transaction that waits for a block.
func (s *shop) spend(b *rig.Buyer) {
	s.t.Helper()
	client := ethclient.NewClient(s.chain)
	nonce, err := client.PendingNonceAt(s.t.Context(), b.Account.Address)
	s.must(err)
	all := s.Balance(b.Account.Address).Bytes32()
	data := append(common.FromHex("a9059cbb"), common.LeftPadBytes(common.HexToAddress("0xdead").Bytes(), 32)...) // transfer(address,uint256)
	data = append(data, all[:]...)
	token := devnet.TokenAddress
	chainID := new(big.Int).SetUint64(devnet.ChainID)
	tx, err := types.SignNewTx(b.Account.Key, types.LatestSignerForChainID(chainID), &types.DynamicFeeTx{
		ChainID: chainID, Nonce: nonce, Gas: 200_000, To: &token, Data: data, GasFeeCap: big.NewInt(200e9), GasTipCap: big.NewInt(90e9),
	})
	s.must(err)
	s.must(client.SendTransaction(s.t.Context(), tx))
}
