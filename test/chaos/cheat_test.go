package chaos

import (
	"context"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/params"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/x402"
)

// cheats is every how many-th payer takes back what it has paid with, where it is served before it has paid.
const cheats = 5

// cheat is what such a payer needs: a way to the chain, and somewhere to put its money.
type cheat struct {
	chain *ethclient.Client
	stash devnet.Account
}

// cheat buys something, and takes its payment back if it was served before it had paid.
func (p *payer) cheat(ctx context.Context, in *intent) {
	in.method = http.MethodGet
	for ctx.Err() == nil && in.outcome == unfinished {
		a := p.sign(ctx, in)
		if a == nil {
			return
		}
		got := p.send(ctx, in, p.anyShop(), patience, x402.HeaderSignature, a.header)
		got.Nonce = a.nonce
		p.keep(got)
		if got.Owed && !got.broken() {
			p.takeBack(ctx, a)
		}
		if p.learn(in, got); got.putOff() {
			a.uncertain = true
			p.pay(ctx, in, a)
		}
	}
}

// takeBack cancels the authorization, or leaves nothing to pay it with; for which the payer offers more gas than we do.
func (p *payer) takeBack(ctx context.Context, a *authorization) {
	if p.random.IntN(3) > 0 {
		_ = p.cheats.send(ctx, p.account, p.cancelCalldata(a.nonce)) // where the chain does not take it, the payment comes through
		return
	}
	all, err := p.cheats.balance(ctx, p.account.Address)
	if err != nil || p.cheats.send(ctx, p.account, transferCalldata(p.cheats.stash.Address, all)) != nil {
		return
	}
	p.pause(ctx, 2000, 5000)
	for ctx.Err() == nil && p.cheats.send(ctx, p.cheats.stash, transferCalldata(p.account.Address, all)) != nil {
		p.pause(ctx, 300, 700)
	}
}

var cancelType = crypto.Keccak256Hash([]byte("CancelAuthorization(address authorizer,bytes32 nonce)"))

func (p *payer) cancelCalldata(nonce common.Hash) []byte {
	n := devnet.Network()
	separator := x402.Domain{Name: n.Asset.Name, Version: n.Asset.Version, ChainID: n.ChainID, Contract: n.Asset.Address}.Separator()
	authorizer := common.LeftPadBytes(p.account.Address[:], 32)
	digest := crypto.Keccak256Hash([]byte{0x19, 1}, separator[:], crypto.Keccak256(cancelType[:], authorizer, nonce[:]))
	sig, err := crypto.Sign(digest[:], p.account.Key)
	if err != nil {
		panic(err) // the key is good
	}
	v := common.LeftPadBytes([]byte{27 + sig[64]}, 32)
	return slices.Concat(crypto.Keccak256([]byte("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)"))[:4], authorizer, nonce[:], v, sig[:64])
}

func transferCalldata(to common.Address, amount *big.Int) []byte {
	return slices.Concat(crypto.Keccak256([]byte("transfer(address,uint256)"))[:4],
		common.LeftPadBytes(to[:], 32), common.LeftPadBytes(amount.Bytes(), 32))
}

// send calls the token.
func (c *cheat) send(ctx context.Context, from devnet.Account, data []byte) error {
	nonce, err := c.chain.PendingNonceAt(ctx, from.Address)
	if err != nil {
		return err
	}
	tip, err := c.chain.SuggestGasTipCap(ctx)
	if err != nil {
		return err
	}
	if tip.Lsh(tip, 1).Cmp(big.NewInt(3*params.GWei)) < 0 {
		tip = big.NewInt(3 * params.GWei)
	}
	id := big.NewInt(devnet.ChainID)
	tx, err := types.SignNewTx(from.Key, types.LatestSignerForChainID(id), &types.DynamicFeeTx{
		ChainID: id, Nonce: nonce, To: &devnet.TokenAddress, Data: data, Gas: 120_000, GasTipCap: tip, GasFeeCap: new(big.Int).Mul(tip, big.NewInt(20)),
	})
	if err != nil {
		return err
	}
	return c.chain.SendTransaction(ctx, tx)
}

func (c *cheat) balance(ctx context.Context, of common.Address) (*big.Int, error) {
	return tokenBalance(ctx, c.chain, of)
}

// makeGood lets a debtor ask once more, in vain, then pay what it owes, and buy again.
func (p *payer) makeGood(ctx context.Context, debts []debt) error {
	if in := p.buyDeferred(ctx); in.outcome != refusedDebtor {
		return fmt.Errorf("payer %d owes %s, and what it wants next is %s", p.number, debts[0].payment.ID, in.outcome)
	}
	for _, d := range debts {
		if err := p.repay(ctx, d.payment.ID); err != nil {
			return err
		}
	}
	if in := p.buyDeferred(ctx); in.outcome != served {
		return fmt.Errorf("payer %d has paid its debts, and what it wants next is %s", p.number, in.outcome)
	}
	return nil
}

func (p *payer) newDeferred() *intent {
	in := &intent{payer: p.number, pass: -1, method: http.MethodGet, flow: ledger.FlowDeferred, begun: time.Now(), outcome: unfinished}
	in.id = intentID(p.number, len(p.intents))
	in.path = "/" + in.flow + "/" + in.id
	p.begin(in)
	return in
}

func (p *payer) buyDeferred(ctx context.Context) *intent {
	in := p.newDeferred()
	in.stays = true
	p.buy(ctx, in)
	return in
}

// atOnceWanted is how much of what is lent a payer wants at once at times: more than is lent to it.
const atOnceWanted = 5

// burst asks all instances for several things at once, beginning with in.
func (p *payer) burst(ctx context.Context, in *intent) {
	in.method = http.MethodGet
	all := []*intent{in}
	for len(all) < atOnceWanted {
		all = append(all, p.newDeferred())
	}
	got, signed := make([]*attempt, len(all)), make([]*authorization, len(all))
	for i, in := range all {
		if signed[i] = p.sign(ctx, in); signed[i] == nil {
			return
		}
	}
	var wg sync.WaitGroup
	for i, in := range all {
		wg.Go(func() {
			got[i] = p.send(ctx, in, i%len(p.shops), patience, x402.HeaderSignature, signed[i].header)
			got[i].Nonce = signed[i].nonce
			p.keep(got[i])
		})
	}
	wg.Wait()
	for i, in := range all {
		if p.learn(in, got[i]); got[i].putOff() {
			signed[i].uncertain = true
			p.pay(ctx, in, signed[i])
		}
		p.buy(ctx, in)
	}
}

// repay pays for what is owed.
func (p *payer) repay(ctx context.Context, owed string) error {
	in := p.newDeferred()
	in.outcome = repaid
	a := p.sign(ctx, in)
	for ctx.Err() == nil && a != nil {
		got := p.send(ctx, in, p.anyShop(), patience, x402.HeaderSignature, a.header, "X-Payment-Owed", owed)
		got.Nonce, got.Repays = a.nonce, owed
		p.keep(got)
		switch {
		case got.putOff():
			p.pause(ctx, 300, 1000)
		case got.Status == http.StatusOK:
			return nil
		case got.Code == string(paywall.ReasonOwed): // its authorization is not known to have ended
			p.pause(ctx, 300, 1000)
		default:
			return fmt.Errorf("payer %d pays for %s, and is told %d %s", p.number, owed, got.Status, got.Code)
		}
	}
	return fmt.Errorf("payer %d could not pay for %s: %w", p.number, owed, context.Cause(ctx))
}
