package wallet_test

import (
	"context"
	"errors"
	"log/slog"
	"math/big"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
)

// brokenSigner is a service that is out of order.
type brokenSigner struct{ address common.Address }

func (b brokenSigner) Address() common.Address { return b.address }

func (brokenSigner) Sign(context.Context, common.Hash) ([]byte, error) {
	return nil, errors.New("out of order")
}

// A wallet whose signer fails is always idle; it must not get all payments and fail them while another one could make them.
func TestBrokenSignerLeavesPaymentsToOthers(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	ch, err := chain.New(chain.Config{Endpoints: []string{c.Proxy.URL()}, ChainID: devnet.ChainID, PollInterval: 10 * time.Millisecond})
	c.Must(err)
	s, err := wallet.New(wallet.Config{
		Network: devnet.Network(), Chain: ch, Journal: c.Journal, Logger: slog.New(slog.DiscardHandler),
		Signers: []wallet.Signer{brokenSigner{crypto.PubkeyToAddress(c.H.Fresh().PublicKey)}, local(t, c.Wallet)},
	})
	c.Must(err)
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), ch.Close()); err != nil {
			t.Error(err)
		}
	})
	for range 3 {
		all := crowd(c, 4)
		settleAll(c, s, all).wantSettled(all)
	}
}

// A wallet that can pay for single payments and not for a batch of them sends no batch that no node would take.
func TestBatchIsNoLargerThanItsWalletCanPay(t *testing.T) {
	dev := startChain(t)
	c := newCase(t, dev, options{settings: wallet.Settings{HardBalance: big.NewInt(1), Linger: 300 * time.Millisecond}})
	first := c.Claimed()
	c.WantSettled(first, c.Settle(first))
	most, _ := feesOf(t, c.Journal.All()[0])
	balance, err := dev.Balance(c.Ctx(), crypto.PubkeyToAddress(c.Wallet.PublicKey))
	c.Must(err)
	keep := new(big.Int).Mul(most, big.NewInt(900_000)) // a batch of 20 may cost 2,060,000
	away := new(big.Int).Sub(balance.ToBig(), keep)
	away.Sub(away, big.NewInt(21_000*100e9))
	to := common.HexToAddress("0xbeef")
	c.Mined(c.Send(c.Wallet, nil, func(tx *types.DynamicFeeTx) {
		tx.To, tx.Gas, tx.Value, tx.GasFeeCap, tx.GasTipCap = &to, 21_000, away, big.NewInt(100e9), big.NewInt(100e9)
	}))
	time.Sleep(2100 * time.Millisecond) // what is known of the balance is forgotten
	all := crowd(c, 21)
	c.Stall()
	held := settleAll(c, c.Settler, all[:1])
	sent(c, 2)
	rest := settleAll(c, c.Settler, all[1:])
	time.Sleep(time.Second)
	c.H.Chain.Resume()
	held.wantSettled(all[:1])
	rest.wantSettled(all[1:])
	c.WantReceived(22)
}

// Where less may be spent than a batch could cost, fewer payments travel together.
func TestBatchIsNoLargerThanTheSpendLimit(t *testing.T) {
	c := newCase(t, startChain(t), options{settings: wallet.Settings{Linger: 300 * time.Millisecond}})
	first := c.Claimed()
	c.WantSettled(first, c.Settle(first))
	most, _ := feesOf(t, c.Journal.All()[0])
	limit := new(big.Int).Mul(most, big.NewInt(1_500_000))
	c.Settler.(*wallet.Settler).Reconfigure(wallet.Settings{SpendPerHour: limit, Linger: 300 * time.Millisecond, HardBalance: big.NewInt(1)})
	all := crowd(c, 17)
	c.Stall()
	held := settleAll(c, c.Settler, all[:1])
	sent(c, 2)
	rest := settleAll(c, c.Settler, all[1:])
	time.Sleep(time.Second)
	c.H.Chain.Resume()
	held.wantSettled(all[:1])
	rest.wg.Wait()
	settled := 0
	for _, out := range rest.outcomes {
		if out.Transaction != (common.Hash{}) {
			settled++
		}
	}
	if settled == 0 {
		t.Errorf("none of %d was sent: %v", len(all)-1, rest.outcomes[0].Err)
	}
}

// hangingSigner is a service that does not answer. It tells when it was asked, and when nobody waits for it any more.
type hangingSigner struct {
	brokenSigner
	asked, left *atomic.Bool
}

func (h hangingSigner) Sign(ctx context.Context, _ common.Hash) ([]byte, error) {
	h.asked.Store(true)
	<-ctx.Done()
	h.left.Store(true)
	return nil, ctx.Err()
}

// A lane that hangs over a signature is not idle: what comes meanwhile is taken by the other one, which has transactions under way.
func TestHangingSignerIsNotWaitedFor(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	ch, err := chain.New(chain.Config{Endpoints: []string{c.Proxy.URL()}, ChainID: devnet.ChainID, PollInterval: 10 * time.Millisecond})
	c.Must(err)
	var asked, left atomic.Bool
	hanging := hangingSigner{brokenSigner{crypto.PubkeyToAddress(c.H.Fresh().PublicKey)}, &asked, &left}
	s, err := wallet.New(wallet.Config{
		Network: devnet.Network(), Chain: ch, Journal: c.Journal, Signers: []wallet.Signer{hanging, local(t, c.Wallet)},
	})
	c.Must(err)
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), ch.Close()); err != nil {
			t.Error(err)
		}
	})
	all := crowd(c, 12)
	c.Stall()
	var runs []*settling
	for i := range 4 {
		runs = append(runs, settleAll(c, s, all[i:i+1]))
		time.Sleep(20 * time.Millisecond)
	}
	c.WaitFor("the one hangs", asked.Load)
	sent(c, 1) // the other flies
	late := all[4:]
	runs = append(runs, settleAll(c, s, late))
	carried := func() (n int) {
		for _, tx := range c.Journal.All() {
			for _, p := range tx.Payments {
				if slices.ContainsFunc(late, func(in settlement.Intent) bool { return in.Payment == p }) {
					n++
				}
			}
		}
		return n
	}
	c.WaitFor("the payments are sent, or the signature is given up", func() bool { return carried() == len(late) || left.Load() })
	if n := carried(); n != len(late) {
		t.Errorf("%d of %d payments were sent before the signature was given up", n, len(late))
	}
	c.H.Chain.Resume()
	for i := range 4 {
		runs[i].wantSettled(all[i : i+1])
	}
	runs[4].wantSettled(late)
}
