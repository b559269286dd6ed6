package settlementtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Price is what a payment of the suite is worth, in atomic units.
const Price = 12_345

// patience bounds each call that should come to an end.
const patience = 60 * time.Second

// Case is one test: a settler with a wallet, a journal and an endpoint of its own, a payer and a payee.
type Case struct {
	testing.TB
	H       *Harness
	Journal *Journal
	Proxy   *Proxy
	// Wallet is the settler's key.
	Wallet  *ecdsa.PrivateKey
	Payer   *ecdsa.PrivateKey
	PayTo   common.Address
	Settler settlement.Settler
}

// NewCase makes one.
func NewCase(t testing.TB, h *Harness) *Case {
	t.Helper()
	wallet := h.Fresh()
	c := &Case{TB: t, H: h, Journal: NewJournal(), Proxy: NewProxy(t, h.Chain.URL()), Wallet: wallet, Payer: h.Fresh()}
	c.PayTo = common.BytesToAddress(crypto.Keccak256([]byte(t.Name()))[12:])
	c.Settler = c.Start()
	return c
}

// Start starts another settler on the same wallet, journal and endpoint, as another process would.
func (c *Case) Start() settlement.Settler {
	c.Helper()
	return c.H.New(c.TB, Setup{URL: c.Proxy.URL(), Key: c.Wallet, Journal: c.Journal})
}

// Must ends the test on an error.
func (c *Case) Must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// Ctx ends after patience.
func (c *Case) Ctx() context.Context { return c.CtxFor(patience) }

// CtxFor ends after d.
func (c *Case) CtxFor(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(c.Context(), d)
	c.Cleanup(cancel)
	return ctx
}

// Sign makes a payment of Price by payer to the case's payee; change may change it before it is signed. It is not claimed.
func (c *Case) Sign(payer *ecdsa.PrivateKey, change func(*x402.Authorization)) settlement.Intent {
	c.Helper()
	now, err := c.H.Chain.Now(c.Context())
	c.Must(err)
	a := x402.Authorization{From: crypto.PubkeyToAddress(payer.PublicKey), To: c.PayTo}
	a.Value.SetUint64(Price)
	a.ValidBefore.SetUint64(uint64(now.Add(10 * time.Minute).Unix()))
	_, err = rand.Read(a.Nonce[:])
	c.Must(err)
	if change != nil {
		change(&a)
	}
	sig, err := x402.Sign(a.Digest(c.H.Network.Domain().Separator()), payer)
	c.Must(err)
	return settlement.Intent{Network: c.H.Network, Authorization: a, Signature: sig}
}

// Claim checks the payment and gives it its id.
func (c *Case) Claim(in settlement.Intent) settlement.Intent {
	c.Helper()
	head, err := c.Settler.Check(c.Ctx(), in)
	c.Must(err)
	in.ClaimBlock, in.Payment = head, fmt.Sprintf("pay_%x", in.Authorization.Nonce[:8])
	return in
}

// Claimed is a new payment of the case's payer, claimed.
func (c *Case) Claimed() settlement.Intent {
	c.Helper()
	return c.Claim(c.Sign(c.Payer, nil))
}

// Settle settles with patience.
func (c *Case) Settle(in settlement.Intent) settlement.Outcome {
	return c.Settler.Settle(c.Ctx(), in)
}

// SettleUntil settles until something has come to pass, and then leaves.
func (c *Case) SettleUntil(in settlement.Intent, what string, ok func() bool) settlement.Outcome {
	c.Helper()
	ctx, leave := context.WithCancel(c.Ctx())
	defer leave()
	done := make(chan settlement.Outcome, 1)
	go func() { done <- c.Settler.Settle(ctx, in) }()
	c.WaitFor(what, ok)
	leave()
	return <-done
}

// Resolve resolves with patience.
func (c *Case) Resolve(in settlement.Intent) settlement.Outcome {
	return c.Settler.Resolve(c.Ctx(), in)
}

// ResolveUntil resolves until the outcome has the status, for as long as the patience lasts.
func (c *Case) ResolveUntil(in settlement.Intent, want settlement.Status) settlement.Outcome {
	c.Helper()
	ctx := c.Ctx()
	for {
		out := c.Settler.Resolve(ctx, in)
		if out.Status == want {
			return out
		}
		select {
		case <-ctx.Done():
			c.Fatalf("it did not become %s: %+v", want, out)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// WantSettled demands that the outcome is settled by a transaction after the claim.
func (c *Case) WantSettled(in settlement.Intent, out settlement.Outcome) {
	c.Helper()
	if out.Status != settlement.Settled || out.Block <= in.ClaimBlock || out.Transaction == (common.Hash{}) || out.BlockHash == (common.Hash{}) {
		c.Fatalf("got %+v, want settled after block %d", out, in.ClaimBlock)
	}
}

// WantFailed demands that the outcome is failed for the reason.
func (c *Case) WantFailed(out settlement.Outcome, reason x402.Reason) {
	c.Helper()
	if out.Status != settlement.Failed || out.Reason != reason {
		c.Fatalf("got %+v, want failed with %s", out, reason)
	}
}

// WantReceived demands that the payee got n payments of Price.
func (c *Case) WantReceived(n uint64) {
	c.Helper()
	got, err := c.H.Chain.TokenBalance(c.Context(), c.PayTo)
	c.Must(err)
	if !got.IsUint64() || got.Uint64() != n*Price {
		c.Fatalf("the payee has %s, want %d payments of %d", got, n, Price)
	}
}

// WantRecorded demands that the payment has n recorded transactions.
func (c *Case) WantRecorded(in settlement.Intent, n int) []settlement.Transaction {
	c.Helper()
	txs, err := c.Journal.Transactions(c.Context(), in.Payment)
	c.Must(err)
	if len(txs) != n {
		c.Fatalf("%d transactions are recorded, want %d", len(txs), n)
	}
	return txs
}

// Commit makes n blocks.
func (c *Case) Commit(n int) {
	c.Helper()
	for range n {
		c.Must(c.H.Chain.Commit())
	}
}

// Stall stalls the chain until Resume, or the test's end.
func (c *Case) Stall() {
	c.H.Chain.Stall()
	c.Cleanup(c.H.Chain.Resume)
}

// Send sends a transaction of a stranger to the token, with a tip high enough to come first, and does not wait for it.
func (c *Case) Send(key *ecdsa.PrivateKey, data []byte, change func(*types.DynamicFeeTx)) common.Hash {
	c.Helper()
	client, err := ethclient.DialContext(c.Context(), c.H.Chain.URL())
	c.Must(err)
	defer client.Close()
	nonce, err := client.PendingNonceAt(c.Context(), crypto.PubkeyToAddress(key.PublicKey))
	c.Must(err)
	chainID := new(big.Int).SetUint64(c.H.Network.ChainID)
	inner := &types.DynamicFeeTx{
		ChainID: chainID, Nonce: nonce, To: &c.H.Network.Asset.Address, Value: new(big.Int), Data: data, Gas: 300_000,
		GasTipCap: big.NewInt(50e9), GasFeeCap: big.NewInt(200e9),
	}
	if change != nil {
		change(inner)
	}
	tx, err := types.SignNewTx(key, types.LatestSignerForChainID(chainID), inner)
	c.Must(err)
	c.Must(client.SendTransaction(c.Context(), tx))
	return tx.Hash()
}

// Mined waits for a transaction.
func (c *Case) Mined(hash common.Hash) *types.Receipt {
	c.Helper()
	client, err := ethclient.DialContext(c.Context(), c.H.Chain.URL())
	c.Must(err)
	defer client.Close()
	ctx := c.Ctx()
	for {
		if r, err := client.TransactionReceipt(ctx, hash); err == nil {
			return r
		}
		select {
		case <-ctx.Done():
			c.Fatalf("transaction %s is not mined", hash)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Nonce is the number of the wallet's mined transactions.
func (c *Case) Nonce() uint64 {
	c.Helper()
	client, err := ethclient.DialContext(c.Context(), c.H.Chain.URL())
	c.Must(err)
	defer client.Close()
	n, err := client.NonceAt(c.Context(), crypto.PubkeyToAddress(c.Wallet.PublicKey), nil)
	c.Must(err)
	return n
}

// FrontRun lets a stranger submit the payment, and waits until that is mined.
func (c *Case) FrontRun(in settlement.Intent) common.Hash {
	c.Helper()
	hash := c.Send(c.H.Fresh(), in.Authorization.TransferCalldata(in.Signature), nil)
	if r := c.Mined(hash); r.Status != 1 {
		c.Fatal("the stranger's transaction reverted")
	}
	return hash
}

// WaitFor polls until ok.
func (c *Case) WaitFor(what string, ok func() bool) {
	c.Helper()
	ctx := c.Ctx()
	for !ok() {
		select {
		case <-ctx.Done():
			c.Fatalf("it did not happen: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// abiCall is a call of a function with static arguments.
func abiCall(function string, words ...[]byte) []byte {
	data := crypto.Keccak256([]byte(function))[:4]
	for _, w := range words {
		data = append(data, common.LeftPadBytes(w, 32)...)
	}
	return data
}

// cancelCall is the payer's cancellation of an authorization, which anybody may submit.
func (c *Case) cancelCall(in settlement.Intent) []byte {
	c.Helper()
	a := in.Authorization
	typeHash := crypto.Keccak256([]byte("CancelAuthorization(address authorizer,bytes32 nonce)"))
	structHash := crypto.Keccak256(typeHash, common.LeftPadBytes(a.From[:], 32), a.Nonce[:])
	separator := c.H.Network.Domain().Separator()
	sig, err := x402.Sign(crypto.Keccak256Hash([]byte{0x19, 0x01}, separator[:], structHash), c.Payer)
	c.Must(err)
	return abiCall("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)",
		a.From[:], a.Nonce[:], sig[64:], sig[:32], sig[32:64])
}

// spendCall sends n units away.
func spendCall(n uint64) []byte {
	return abiCall("transfer(address,uint256)", common.HexToAddress("0xdead").Bytes(), new(big.Int).SetUint64(n).Bytes())
}

// unreachableStatus is how a refusing endpoint answers.
const unreachableStatus = 503
