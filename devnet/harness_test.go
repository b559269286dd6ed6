package devnet_test

import (
	"context"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/params"
	"github.com/holiman/uint256"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/devnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, devnet.LeakOptions()...) }

// room is a chain as those outside see it: by its endpoint.
type room struct {
	*testing.T
	chain  *devnet.Chain
	client *ethclient.Client
	ctx    context.Context
}

func start(t *testing.T, o devnet.Options) *room {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	chain, err := devnet.Start(ctx, o)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	client, err := ethclient.DialContext(ctx, chain.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		cancel()
		if err := chain.Close(); err != nil {
			t.Error(err)
		}
	})
	return &room{T: t, chain: chain, client: client, ctx: ctx}
}

func (r *room) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// pack encodes a call of the method with that signature, such as "transfer(address,uint256)": overloads
// have no other names.
func pack(t *testing.T, contract, signature string, arguments ...any) []byte {
	t.Helper()
	m := method(t, contract, signature)
	data, err := m.Inputs.Pack(arguments...)
	if err != nil {
		t.Fatalf("%s: %v", signature, err)
	}
	return append(common.CopyBytes(m.ID), data...)
}

func method(t *testing.T, contract, signature string) abi.Method {
	t.Helper()
	c, err := devnet.CompiledContract(contract)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.ABI.Methods {
		if m.Sig == signature {
			return m
		}
	}
	t.Fatalf("%s has no method %s", contract, signature)
	return abi.Method{}
}

// sign makes a transaction of from with a generous gas limit.
func (r *room) sign(from devnet.Account, nonce uint64, to *common.Address, data []byte) *types.Transaction {
	r.Helper()
	chainID := big.NewInt(devnet.ChainID)
	tx, err := types.SignNewTx(from.Key, types.LatestSignerForChainID(chainID), &types.DynamicFeeTx{
		ChainID: chainID, Nonce: nonce, To: to, Data: data, Gas: 5_000_000,
		GasTipCap: big.NewInt(params.GWei), GasFeeCap: big.NewInt(50 * params.GWei),
	})
	r.must(err)
	return tx
}

// send sends a transaction of from and gives its receipt, whether it reverted or not.
func (r *room) send(from devnet.Account, to common.Address, data []byte) *types.Receipt {
	r.Helper()
	nonce, err := r.client.PendingNonceAt(r.ctx, from.Address)
	r.must(err)
	tx := r.sign(from, nonce, &to, data)
	r.must(r.client.SendTransaction(r.ctx, tx))
	return r.receipt(tx.Hash())
}

func (r *room) receipt(hash common.Hash) *types.Receipt {
	r.Helper()
	for {
		receipt, err := r.client.TransactionReceipt(r.ctx, hash)
		if err == nil {
			return receipt
		}
		if !errors.Is(err, ethereum.NotFound) {
			r.Fatal(err)
		}
		select {
		case <-r.ctx.Done():
			r.Fatal(r.ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// succeed sends a transaction that must not revert.
func (r *room) succeed(from devnet.Account, to common.Address, data []byte) *types.Receipt {
	r.Helper()
	receipt := r.send(from, to, data)
	if receipt.Status != types.ReceiptStatusSuccessful {
		r.Fatal("the transaction reverted")
	}
	return receipt
}

// refused simulates a call of from, which must revert for that reason.
func (r *room) refused(from devnet.Account, to common.Address, data []byte, reason string) {
	r.Helper()
	_, err := r.client.CallContract(r.ctx, ethereum.CallMsg{From: from.Address, To: &to, Data: data}, nil)
	if err == nil {
		r.Errorf("not refused, want: %s", reason)
	} else if !strings.HasSuffix(err.Error(), "execution reverted: "+reason) {
		r.Errorf("refused with %q, want %q", err, reason)
	}
}

// read calls a view of the token.
func (r *room) read(signature string, arguments ...any) []any {
	r.Helper()
	answer, err := r.client.CallContract(r.ctx, ethereum.CallMsg{
		To: &devnet.TokenAddress, Data: pack(r.T, "USDC", signature, arguments...),
	}, nil)
	r.must(err)
	values, err := method(r.T, "USDC", signature).Outputs.Unpack(answer)
	r.must(err)
	return values
}

func (r *room) wantBalance(of common.Address, want *uint256.Int) {
	r.Helper()
	got, err := r.chain.TokenBalance(r.ctx, of)
	r.must(err)
	if !got.Eq(want) {
		r.Errorf("the balance of %s is %s, want %s", of, got, want)
	}
}

func (r *room) now() time.Time {
	r.Helper()
	now, err := r.chain.Now(r.ctx)
	r.must(err)
	return now
}

// mustCall simulates a call of the token that must succeed.
func (r *room) mustCall(from common.Address, data []byte) {
	r.Helper()
	r.mustCallTo(from, devnet.TokenAddress, data)
}

func (r *room) mustCallTo(from, to common.Address, data []byte) []byte {
	r.Helper()
	answer, err := r.client.CallContract(r.ctx, ethereum.CallMsg{From: from, To: &to, Data: data}, nil)
	r.must(err)
	return answer
}
