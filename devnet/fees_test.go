package devnet_test

import (
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"

	"github.com/caddy-x402/caddy-x402/devnet"
)

// What tips too little waits until less is asked for or more is offered, or is refused.
func TestMinimumTip(t *testing.T) {
	r := start(t, devnet.Options{Heartbeat: -1})
	gwei := func(n int64) *big.Int { return big.NewInt(n * params.GWei) }
	from, to := devnet.Developer(3), devnet.Developer(4).Address
	send := func(nonce uint64, tip *big.Int) (*types.Transaction, error) {
		tx, err := types.SignNewTx(from.Key, types.LatestSignerForChainID(big.NewInt(devnet.ChainID)), &types.DynamicFeeTx{
			ChainID: big.NewInt(devnet.ChainID), Nonce: nonce, To: &to, Gas: params.TxGas, GasTipCap: tip, GasFeeCap: new(big.Int).Mul(tip, big.NewInt(100)),
		})
		r.must(err)
		return tx, r.client.SendTransaction(r.ctx, tx)
	}
	mined := func(want uint64, when string) {
		t.Helper()
		r.must(r.chain.Commit())
		if n, err := r.client.NonceAt(r.ctx, from.Address, nil); err != nil || n != want {
			t.Errorf("%s: %d transactions are mined, want %d; %v", when, n, want, err)
		}
	}
	must := func(_ *types.Transaction, err error) { t.Helper(); r.must(err) }

	r.must(r.chain.SetMinimumTip(gwei(5), false))
	must(send(0, gwei(2)))
	mined(0, "it tips too little")
	must(send(0, gwei(6)))
	mined(1, "it was replaced by one that tips more")
	must(send(1, gwei(2)))
	mined(1, "it tips too little")
	r.must(r.chain.SetMinimumTip(nil, false))
	mined(2, "any tip will do")

	must(send(2, gwei(2)))
	r.must(r.chain.SetMinimumTip(gwei(5), true))
	if _, err := send(3, gwei(2)); err == nil || !strings.Contains(err.Error(), "below minimum") {
		t.Errorf("the node took what tips too little: %v", err)
	}
	r.must(r.chain.SetMinimumTip(nil, true))
	must(send(2, gwei(2)))
	mined(3, "any tip will do again")
}

// A chain that forgets its old states mines as another does, and still has its newest ones, blocks and receipts.
func TestForget(t *testing.T) {
	r := start(t, devnet.Options{Heartbeat: -1, MaxLead: time.Hour, Forget: true})
	for range 300 {
		r.must(r.chain.Commit())
	}
	r.must(r.chain.Mint(r.ctx, devnet.Payer(5000).Address, devnet.USDC(3)))
	r.wantBalance(devnet.Payer(5000).Address, devnet.USDC(3))
	for range 300 {
		r.must(r.chain.Commit())
	}
	r.wantBalance(devnet.Payer(5000).Address, devnet.USDC(3))
	if _, err := r.client.BalanceAt(r.ctx, devnet.Payer(0).Address, big.NewInt(50)); err == nil {
		t.Error("an old state is still there")
	}
	if _, err := r.client.BalanceAt(r.ctx, devnet.Payer(0).Address, big.NewInt(595)); err != nil {
		t.Error("a young state is gone:", err)
	}
	if _, err := r.client.BlockByNumber(r.ctx, big.NewInt(50)); err != nil {
		t.Error("an old block is gone:", err)
	}
}
