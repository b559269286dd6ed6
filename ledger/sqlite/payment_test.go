package sqlite_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/x402"
)

func open(t testing.TB, path string, o sqlite.Options) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// newPayment is a new authorization of the payer, to be claimed.
func newPayment(payer uint64) (ledger.Payment, error) {
	var address common.Address
	binary.BigEndian.PutUint64(address[:], payer+1)
	return paymentOf(address)
}

func paymentOf(payer common.Address) (ledger.Payment, error) {
	p := ledger.Payment{
		AuthorizationID: x402.AuthorizationID{ChainID: 8453, Asset: common.Address{1}, Payer: payer},
		PayTo:           common.Address{2},
		Amount:          *uint256.NewInt(10_000),
		ValidBefore:     1_900_000_000,
		Binding:         ledger.Binding{Route: "weather", Method: "GET", Host: "api.example.com", URI: "/weather/today"},
		Flow:            ledger.FlowUpfront,
		ClaimBlock:      1,
	}
	if _, err := rand.Read(p.Nonce[:]); err != nil {
		return ledger.Payment{}, err
	}
	p.HeaderHash = p.Nonce
	var err error
	p.ID, err = ledger.NewID(rand.Reader, payer)
	return p, err
}

// newTransaction carries p alone, from a wallet of its own, which so needs no nonce.
func newTransaction(p ledger.Payment) ledger.Transaction {
	return ledger.Transaction{
		ChainID: p.ChainID, Wallet: common.Address(p.Nonce[:20]), Hash: p.Nonce, Raw: make([]byte, 400), Payments: []string{p.ID},
	}
}

type update struct {
	version uint64
	list    []ledger.Change
}

// serve is the rest of the way of a payment that is settling: settled and delivering, delivered.
func serve(version, fence uint64) []update {
	return []update{
		{version, []ledger.Change{
			{Event: ledger.EventSettle, Actor: "request", Transaction: common.Hash{1}, Block: 9, BlockHash: common.Hash{2}},
			{Event: ledger.EventDeliver, Actor: "request", Fence: fence, Hold: time.Minute},
		}},
		{version + 2, []ledger.Change{{Event: ledger.EventDelivered, Actor: "request", Fence: fence}}},
	}
}
