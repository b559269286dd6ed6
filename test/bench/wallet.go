package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Prices in atomic units.
const (
	price     = 10_000
	passPrice = 500_000
)

const (
	// validity is how long a signature is good: servers may refuse what is good for more than an hour.
	validity = 55 * time.Minute
	// freshness is how much of it is left at least when a cell begins.
	freshness = 10 * time.Minute
)

var separator = func() common.Hash {
	n := devnet.Network()
	return x402.Domain{Name: n.Asset.Name, Version: n.Asset.Version, ChainID: n.ChainID, Contract: n.Asset.Address}.Separator()
}()

// signed is an authorization with its signature. The signature says nothing about the offer, so it can be made before there is
// one; only the header around it can't.
type signed struct {
	auth x402.Authorization
	sig  []byte
}

// wallet has the payers' authorizations of the price, signed in advance. Each cell has a chain and a ledger of its own, so
// all cells can use the same ones.
type wallet struct {
	end    time.Time
	purses [][]signed // by payer
}

// fill sees to it that each of so many payers has at least n authorizations that are still good for a while.
func (w *wallet) fill(ctx context.Context, payers, n int) error {
	if time.Until(w.end) < freshness {
		w.end, w.purses = time.Now().Add(validity), nil
	}
	for len(w.purses) < payers {
		w.purses = append(w.purses, nil)
	}
	jobs, failed := make(chan int), make(chan error, runtime.NumCPU())
	var workers sync.WaitGroup
	for range cap(failed) {
		workers.Go(func() {
			for i := range jobs {
				for len(w.purses[i]) < n && ctx.Err() == nil {
					s, err := w.signed(i, price)
					if err != nil {
						select {
						case failed <- err:
						default:
						}
						break
					}
					w.purses[i] = append(w.purses[i], s)
				}
			}
		})
	}
	for i := range payers {
		jobs <- i
	}
	close(jobs)
	workers.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return ctx.Err()
	}
}

// signed signs a new authorization of the i-th payer.
func (w *wallet) signed(i int, amount uint64) (signed, error) {
	payer := devnet.Payer(i)
	end := w.end
	if end.IsZero() {
		end = time.Now().Add(validity)
	}
	s := signed{auth: x402.Authorization{
		From: payer.Address, To: payTo, Value: *uint256.NewInt(amount), ValidBefore: *uint256.NewInt(uint64(end.Unix())),
	}}
	if _, err := rand.Read(s.auth.Nonce[:]); err != nil {
		return s, fmt.Errorf("a nonce: %w", err)
	}
	var err error
	if s.sig, err = x402.Sign(s.auth.Digest(separator), payer.Key); err != nil {
		return s, fmt.Errorf("signing: %w", err)
	}
	return s, nil
}

// header makes the payment of an offer that costs what was signed. way is the place of what is bought among what is offered.
func (s *signed) header(offer string, way func([]x402.Requirements) int) (string, error) {
	var o x402.PaymentRequired
	if err := x402.DecodeHeader(offer, 1<<16, &o); err != nil {
		return "", fmt.Errorf("decoding the offer: %w", err)
	}
	if len(o.Accepts) == 0 {
		return "", fmt.Errorf("the offer is empty: %s", o.Error)
	}
	r := o.Accepts[way(o.Accepts)]
	if r.Amount != s.auth.Value.Dec() || common.HexToAddress(r.PayTo) != payTo || common.HexToAddress(r.Asset) != devnet.TokenAddress {
		return "", fmt.Errorf("the offer is another than expected: %+v", r)
	}
	return x402.EncodeHeader(o.Pay(r, &s.auth, s.sig))
}

// first is the way that stands first; last is where plans stand.
func first([]x402.Requirements) int { return 0 }

func last(ways []x402.Requirements) int { return len(ways) - 1 }
