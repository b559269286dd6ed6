package wallet_test

import (
	"crypto/ecdsa"
	"math/big"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/params"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
)

// Two processes recorded a transaction each for one payment, with wallets of their own, and died. Both are carried, whoever comes back for
// the payment: else the one that nobody carries would block its wallet.
func TestBothOfTwoWalletsAreCarried(t *testing.T) {
	c := newCase(t, startChain(t), options{})
	other := c.H.Fresh()
	in := c.Claimed()
	record := func(key *ecdsa.PrivateKey) {
		t.Helper()
		id := big.NewInt(devnet.ChainID)
		tx, err := types.SignNewTx(key, types.LatestSignerForChainID(id), &types.DynamicFeeTx{
			ChainID: id, To: &devnet.TokenAddress, Data: in.Authorization.TransferCalldata(in.Signature), Gas: 200_000,
			GasTipCap: big.NewInt(params.GWei), GasFeeCap: big.NewInt(100 * params.GWei),
		})
		c.Must(err)
		raw, err := tx.MarshalBinary()
		c.Must(err)
		c.Must(c.Journal.Record(t.Context(), settlement.Transaction{
			ChainID: devnet.ChainID, Wallet: crypto.PubkeyToAddress(key.PublicKey), Hash: tx.Hash(), Raw: raw, Payments: []string{in.Payment},
			CreatedAt: time.Now(),
		}))
	}
	record(c.Wallet)
	record(other)
	s := start(t, settlementtest.Setup{URL: c.Proxy.URL(), Key: c.Wallet, Journal: c.Journal}, options{more: []*ecdsa.PrivateKey{other}})
	c.WantSettled(in, s.Settle(c.Ctx(), in))
	client, err := ethclient.DialContext(t.Context(), c.H.Chain.URL())
	c.Must(err)
	defer client.Close()
	for _, key := range []*ecdsa.PrivateKey{c.Wallet, other} {
		c.WaitFor("each transaction is mined", func() bool {
			n, err := client.NonceAt(t.Context(), crypto.PubkeyToAddress(key.PublicKey), nil)
			return err == nil && n == 1
		})
	}
	c.WantReceived(1)
}
