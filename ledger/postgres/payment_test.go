package postgres_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// newPayment is a new authorization of the payer, to be claimed.
func newPayment(payer uint64) (ledger.Payment, error) {
	p := ledger.Payment{
		AuthorizationID: x402.AuthorizationID{ChainID: 8453, Asset: common.Address{1}},
		PayTo:           common.Address{2},
		Amount:          *uint256.NewInt(10_000),
		ValidBefore:     1_900_000_000,
		Binding:         ledger.Binding{Route: "weather", Method: "GET", Host: "api.example.com", URI: "/weather/today"},
		Flow:            ledger.FlowUpfront,
		ClaimBlock:      1,
	}
	binary.BigEndian.PutUint64(p.Payer[:], payer+1)
	if _, err := rand.Read(p.Nonce[:]); err != nil {
		return p, err
	}
	p.HeaderHash = p.Nonce
	var err error
	p.ID, err = ledger.NewID(rand.Reader, p.Payer)
	return p, err
}

func fresh(t testing.TB, payer uint64) ledger.Payment {
	t.Helper()
	p, err := newPayment(payer)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func claim(t testing.TB, s ledger.Store, payer uint64) ledger.Payment {
	t.Helper()
	p, err := s.Claim(context.Background(), fresh(t, payer), ledger.Change{Actor: "request", Hold: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func update(t testing.TB, s ledger.Store, p ledger.Payment, changes ...ledger.Change) ledger.Payment {
	t.Helper()
	p, err := s.Update(context.Background(), p.ID, p.Version, changes...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// transaction carries payments, from a wallet of its own, which so needs no nonce.
func transaction(payments ...ledger.Payment) ledger.Transaction {
	t := ledger.Transaction{
		ChainID: payments[0].ChainID, Wallet: common.Address(payments[0].Nonce[:20]), Hash: payments[0].Nonce, Raw: make([]byte, 400),
	}
	for _, p := range payments {
		t.Payments = append(t.Payments, p.ID)
	}
	return t
}
