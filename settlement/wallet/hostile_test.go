package wallet_test

import (
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
	"github.com/caddy-x402/caddy-x402/x402"
)

const contractGas = 300_000

// A contract wallet is a stranger's code that runs on our gas: it is refused before anything is sent, or sent
// with little more gas than it needs.
func TestHostileWallets(t *testing.T) {
	dev := startChain(t)
	cases := []struct {
		name   string
		mode   devnet.Mode
		size   uint64
		reason x402.Reason
	}{
		{"accepts", devnet.Accept, 0, ""},
		{"refuses", devnet.Refuse, 0, x402.ReasonSignature},
		{"reverts", devnet.Revert, 0, x402.ReasonSignature},
		{"burns all gas", devnet.BurnGas, 0, x402.ReasonSignature},
		{"return bomb", devnet.ReturnBomb, 1 << 20, x402.ReasonSignature},
		{"revert bomb", devnet.RevertBomb, 1 << 20, x402.ReasonSignature},
		{"affordable", devnet.Expensive, 100_000, ""},
		{"too expensive", devnet.Expensive, 500_000, ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := newCase(t, dev, options{settings: wallet.Settings{ContractGas: contractGas}})
			in := fromHostile(c, dev, tc.mode, tc.size)
			_, err := c.Settler.Check(c.Ctx(), in)
			if tc.name == "too expensive" {
				if x402.ReasonOf(err) == "" {
					t.Fatalf("got %v, want a refusal", err)
				}
				return
			}
			if x402.ReasonOf(err) != tc.reason {
				t.Fatalf("got %v, want %q", err, tc.reason)
			}
			if tc.reason != "" {
				return
			}
			in = c.Claim(in)
			out := c.Settle(in)
			c.WantSettled(in, out)
			r := c.Mined(out.Transaction)
			if limit := gasLimit(t, c, in); limit > contractGas || limit > r.GasUsed*2 {
				t.Errorf("gas limit %d for %d used", limit, r.GasUsed)
			}
		})
	}
}

// A wallet that accepts in simulations and refuses in blocks costs the gas of one transaction, and gets nothing.
func TestWalletThatLiesToSimulations(t *testing.T) {
	dev := startChain(t)
	var later atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	c := newCase(t, dev, options{settings: wallet.Settings{ContractGas: contractGas}, now: now})
	in := c.Claim(fromHostile(c, dev, devnet.AcceptInSimulation, 0))
	out := c.Settle(in)
	if out.Status != settlement.Failed || out.Reason == "" || out.Block == 0 {
		t.Fatalf("got %+v, want failed by a mined transaction", out)
	}
	if again := c.Settle(in); again.Status != settlement.Failed {
		t.Errorf("got %+v", again)
	}
	if again := c.Resolve(in); again.Status != settlement.Failed || again.Final {
		t.Errorf("got %+v", again)
	}
	c.WantRecorded(in, 1)
	c.WantReceived(0)
	// It gets no second one at once. Others that run code do, and so does itself when it may have changed its mind.
	next := c.Sign(c.Payer, func(a *x402.Authorization) { a.From = in.Authorization.From })
	if _, err := c.Settler.Check(c.Ctx(), next); x402.ReasonOf(err) != x402.ReasonTransactionFailed {
		t.Errorf("the next one: %v", err)
	}
	other := c.Claim(fromHostile(c, dev, devnet.Accept, 0))
	c.WantSettled(other, c.Settle(other))
	later.Store(int64(time.Hour))
	c.Must(dev.SetMode(c.Ctx(), in.Authorization.From, devnet.Accept, 0))
	next = c.Claim(next)
	c.WantSettled(next, c.Settle(next))
	c.WantReceived(2)
}

func fromHostile(c *settlementtest.Case, dev *devnet.Chain, mode devnet.Mode, size uint64) settlement.Intent {
	c.Helper()
	hostile, err := dev.DeployHostileWallet(c.Ctx(), mode, size)
	c.Must(err)
	c.Must(dev.Mint(c.Ctx(), hostile, uint256.NewInt(settlementtest.Price)))
	in := c.Sign(c.Payer, func(a *x402.Authorization) { a.From = hostile })
	in.Signature = []byte("whatever it wants")
	return in
}

func gasLimit(t *testing.T, c *settlementtest.Case, in settlement.Intent) uint64 {
	t.Helper()
	var tx types.Transaction
	c.Must(tx.UnmarshalBinary(c.WantRecorded(in, 1)[0].Raw))
	return tx.Gas()
}

// An account that runs a contract's code (EIP-7702) is judged by that code, even with a plain signature, as the token does.
func TestDelegatedAccount(t *testing.T) {
	dev := startChain(t)
	c := newCase(t, dev, options{})
	code, err := dev.DeployWallet(c.Ctx(), common.Address{})
	c.Must(err)
	delegate(t, c, code)
	in := c.Claimed()
	c.WantSettled(in, c.Settle(in))
	hostile, err := dev.DeployHostileWallet(c.Ctx(), devnet.Refuse, 0)
	c.Must(err)
	delegate(t, c, hostile)
	c.Must(dev.SetMode(c.Ctx(), in.Authorization.From, devnet.Refuse, 0))
	if _, err := c.Settler.Check(c.Ctx(), c.Sign(c.Payer, nil)); x402.ReasonOf(err) != x402.ReasonSignature {
		t.Errorf("got %v, want a refusal of the signature", err)
	}
	c.Must(dev.SetMode(c.Ctx(), in.Authorization.From, devnet.Expensive, 200_000))
	in = c.Claimed() // needs more gas than a plain account gets
	c.WantSettled(in, c.Settle(in))
	c.WantReceived(2)
}

// delegate makes the payer's account run the code.
func delegate(t *testing.T, c *settlementtest.Case, code common.Address) {
	t.Helper()
	if r := c.Mined(sendDelegation(t, c, code)); r.Status != 1 {
		t.Fatal("the delegation reverted")
	}
}

// sendDelegation sends the transaction for it, with a tip high enough to come first.
func sendDelegation(t *testing.T, c *settlementtest.Case, code common.Address) common.Hash {
	t.Helper()
	client, err := ethclient.DialContext(t.Context(), c.H.Chain.URL())
	c.Must(err)
	defer client.Close()
	payer := c.Sign(c.Payer, nil).Authorization.From
	nonce, err := client.NonceAt(t.Context(), payer, nil)
	c.Must(err)
	auth, err := types.SignSetCode(c.Payer, types.SetCodeAuthorization{
		ChainID: *uint256.NewInt(devnet.ChainID), Address: code, Nonce: nonce + 1,
	})
	c.Must(err)
	tx, err := types.SignNewTx(c.Payer, types.LatestSignerForChainID(big.NewInt(devnet.ChainID)), &types.SetCodeTx{
		ChainID: uint256.NewInt(devnet.ChainID), Nonce: nonce, GasTipCap: uint256.NewInt(50e9), GasFeeCap: uint256.NewInt(200e9),
		Gas: 200_000, To: common.HexToAddress("0xbeef"), AuthList: []types.SetCodeAuthorization{auth},
	})
	c.Must(err)
	c.Must(client.SendTransaction(t.Context(), tx))
	return tx.Hash()
}
