package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
)

// recorded asks the service what became of the payment, and then reads the ledger's file itself.
func (s *story) recorded(ctx context.Context) error {
	path := "/x402/payments/" + s.report.PaymentID
	a, err := s.get(ctx, s.url(path))
	if err != nil {
		return err
	}
	var status struct{ State, Transaction, Amount string }
	if err := a.json(&status); err != nil {
		return err
	}
	s.field("GET", "%s", path)
	s.field("", "%s", brief(string(a.body), 72))
	same(s.paper, "the status URL says DELIVERED, with the same transaction", status.State+" "+status.Transaction,
		string(ledger.StateDelivered)+" "+s.report.Settlement.Transaction)
	same(s.paper, "an id that is not known gives 404", s.statusOf(ctx, path+"x"), http.StatusNotFound)
	return s.readLedger(ctx)
}

func (s *story) statusOf(ctx context.Context, path string) int {
	a, err := s.get(ctx, s.url(path))
	if err != nil {
		return 0
	}
	return a.status
}

func (s *story) readLedger(ctx context.Context) (err error) {
	store, err := sqlite.Open(ctx, s.ledgerFile(), sqlite.Options{})
	if err != nil {
		return fmt.Errorf("opening the ledger: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	p, trail, err := rowAndTrail(ctx, store, s.report.PaymentID)
	if err != nil {
		return err
	}
	s.say("Its row in %s, and the trail of how it came there:", s.ledgerFile())
	s.field("payment", "%s, version %d", p.ID, p.Version)
	s.field("route", "%s %s on %s (%s)", p.Binding.Method, p.Binding.URI, p.Binding.Host, p.Binding.Route)
	s.field("facets", "settlement %s, delivery %s, refund %s", p.Settlement, p.Delivery, p.Refund)
	for _, e := range trail {
		s.line(fmt.Sprintf("%s%2d  +%6.1f ms  %-10s %-11s %-9s %-11s %s", indent, e.Version,
			float64(e.At.Sub(trail[0].At).Microseconds())/1000, e.Event, e.Actor, e.Settlement, e.Delivery, brief(e.Hash.Hex(), 16)))
	}
	same(s.paper, "the row is that of this authorization", p.Payer.Hex()+" "+p.Nonce.Hex(), buyer.Address.Hex()+" "+s.report.Authorization.Nonce.Hex())
	same(s.paper, "it is good for this request alone", p.Binding.Method+" "+p.Binding.Host+p.Binding.URI, "GET "+s.addr+paidPath)
	s.check(ledger.VerifyAudit(&p, trail) == nil, "the trail is whole: each entry holds the hash of the one before, and replayed they give the row")
	return s.rawTransaction(ctx, store)
}

// rowAndTrail reads both at the same version: the reconciler may write between.
func rowAndTrail(ctx context.Context, store ledger.Store, id string) (ledger.Payment, []ledger.Entry, error) {
	for {
		p, err := store.Payment(ctx, id)
		if err != nil {
			return p, nil, fmt.Errorf("reading the payment: %w", err)
		}
		trail, err := store.Audit(ctx, id)
		if err != nil {
			return p, nil, fmt.Errorf("reading its trail: %w", err)
		}
		if n := len(trail); n > 0 && trail[n-1].Version == p.Version {
			return p, trail, nil
		}
	}
}

// rawTransaction shows that the signed transaction was kept: whoever crashes, it can be sent again.
func (s *story) rawTransaction(ctx context.Context, store ledger.Store) error {
	sent, err := store.Transactions(ctx, s.report.PaymentID)
	if err != nil {
		return fmt.Errorf("reading its transactions: %w", err)
	}
	if len(sent) != 1 {
		return fmt.Errorf("the ledger has %d transactions for the payment, and should have 1", len(sent))
	}
	s.field("raw transaction", "%d bytes, stored before it was broadcast", len(sent[0].Raw))
	same(s.paper, "it is the one that was mined", crypto.Keccak256Hash(sent[0].Raw).Hex(), s.report.Settlement.Transaction)
	return nil
}
