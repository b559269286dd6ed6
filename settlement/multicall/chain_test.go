package multicall_test

import (
	"context"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/params"
	"github.com/holiman/uint256"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement/multicall"
	"github.com/caddy-x402/caddy-x402/x402"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, devnet.LeakOptions()...) }

// transfer is the calldata of a payment that payer has signed.
func transfer(t *testing.T, payer devnet.Account, to common.Address, usdc uint64) []byte {
	t.Helper()
	a := x402.Authorization{
		From: payer.Address, To: to, Value: *devnet.USDC(usdc),
		ValidBefore: *uint256.NewInt(uint64(time.Now().Add(time.Hour).Unix())), Nonce: crypto.Keccak256Hash(payer.Address[:]),
	}
	network := devnet.Network()
	separator := network.Domain().Separator()
	digest := a.Digest(separator)
	sig, err := crypto.Sign(digest[:], payer.Key)
	if err != nil {
		t.Fatal(err)
	}
	return a.TransferCalldata(sig)
}

func connect(t *testing.T) (*devnet.Chain, *ethclient.Client) {
	t.Helper()
	chain, err := devnet.Start(t.Context(), devnet.Options{Heartbeat: -1})
	if err != nil {
		t.Fatal(err)
	}
	client, err := ethclient.DialContext(t.Context(), chain.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		if err := chain.Close(); err != nil {
			t.Error(err)
		}
	})
	return chain, client
}

// send mines a call of Multicall3.
func send(ctx context.Context, t *testing.T, client *ethclient.Client, from devnet.Account, data []byte) *types.Receipt {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	chainID := big.NewInt(devnet.ChainID)
	tx, err := types.SignNewTx(from.Key, types.LatestSignerForChainID(chainID), &types.DynamicFeeTx{
		ChainID: chainID, To: &multicall.Address, Data: data, Gas: 2_000_000,
		GasTipCap: big.NewInt(params.GWei), GasFeeCap: big.NewInt(50 * params.GWei),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.SendTransaction(ctx, tx); err != nil {
		t.Fatal(err)
	}
	for {
		receipt, err := client.TransactionReceipt(ctx, tx.Hash())
		if err == nil {
			return receipt
		}
		if !errors.Is(err, ethereum.NotFound) {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// The contract understands what we write, and we what it answers: one payment of two goes through, one fails, and neither
// knows of the other.
func TestContract(t *testing.T) {
	if multicall.Address != devnet.MulticallAddress {
		t.Fatalf("%s is not where the local chain has the contract", multicall.Address)
	}
	chain, client := connect(t)
	sender, to := devnet.Developer(0), devnet.Payer(100_001).Address
	calls := []multicall.Call{
		{Target: devnet.TokenAddress, AllowFailure: true, Data: transfer(t, devnet.Payer(1), to, 5000)}, // more than the payer has
		{Target: devnet.TokenAddress, AllowFailure: true, Data: transfer(t, devnet.Payer(2), to, 3)},
		{Target: devnet.TokenAddress, Data: x402.BalanceOfCalldata(to)},
		{Target: to, Data: []byte{1, 2, 3, 4}}, // no code
	}
	ask := func(to common.Address, calls []multicall.Call) ([]multicall.Result, error) {
		ret, err := client.CallContract(t.Context(), ethereum.CallMsg{From: sender.Address, To: &to, Data: multicall.Calldata(calls)}, nil)
		if err != nil {
			return nil, err
		}
		return multicall.ParseResults(ret, len(calls))
	}
	results, err := ask(multicall.Address, calls)
	if err != nil {
		t.Fatal(err)
	}
	if results[0].Success || !strings.Contains(string(results[0].Data), "ERC20: transfer amount exceeds balance") {
		t.Errorf("the payer who has too little: %t, %q", results[0].Success, results[0].Data)
	}
	if !results[1].Success || len(results[1].Data) != 0 || !results[3].Success || len(results[3].Data) != 0 {
		t.Errorf("the payer who has enough, and the account without code: %+v, %+v", results[1], results[3])
	}
	if v, err := x402.ParseUint256(results[2].Data); err != nil || !results[2].Success || !v.Eq(devnet.USDC(3)) {
		t.Errorf("the balance is %s, %v", v.Dec(), err)
	}
	if results, err := ask(multicall.Address, nil); err != nil || len(results) != 0 {
		t.Errorf("no call at all: %v, %v", results, err)
	}
	if results, err := ask(to, calls); !errors.Is(err, multicall.ErrMalformed) {
		t.Errorf("where the contract is not, it says %v, %v", results, err)
	}
	strict := []multicall.Call{{Target: calls[0].Target, Data: calls[0].Data}, calls[1]}
	if results, err := ask(multicall.Address, strict); err == nil || errors.Is(err, multicall.ErrMalformed) {
		t.Errorf("a failure that is not allowed: %v, %v", results, err)
	}

	receipt := send(t.Context(), t, client, sender, multicall.Calldata(calls))
	if receipt.Status != types.ReceiptStatusSuccessful || len(receipt.Logs) != 2 {
		t.Errorf("mined with status %d and %d logs", receipt.Status, len(receipt.Logs))
	}
	if got, err := chain.TokenBalance(t.Context(), to); err != nil || !got.Eq(devnet.USDC(3)) {
		t.Errorf("the balance is %s, %v", got, err)
	}
}
