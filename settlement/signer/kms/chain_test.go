package kms

import (
	"context"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/params"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement/signer/kms/kmstest"
)

// A chain mines what the service has signed, with high s or low; the high s itself it would not take.
func TestChainTakesSignatures(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	chain, err := devnet.Start(ctx, devnet.Options{Heartbeat: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := chain.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := ethclient.DialContext(ctx, chain.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	developer := devnet.Developer(0)
	server := kmstest.New(t, developer.Key)
	k := opened(t, configOf(server))
	chainID := big.NewInt(devnet.ChainID)
	rules := types.LatestSignerForChainID(chainID)
	for nonce, s := range []kmstest.S{kmstest.LowS, kmstest.HighS, kmstest.HighS, kmstest.LowS} {
		server.SetKey(kmstest.KeyID, kmstest.Key{Private: developer.Key, S: s})
		to := devnet.Payer(100_001).Address
		tx := types.NewTx(&types.DynamicFeeTx{
			ChainID: chainID, Nonce: uint64(nonce), To: &to, Value: big.NewInt(1), Gas: params.TxGas,
			GasTipCap: big.NewInt(params.GWei), GasFeeCap: big.NewInt(50 * params.GWei),
		})
		signature, err := k.Sign(ctx, rules.Hash(tx))
		if err != nil {
			t.Fatal(err)
		}
		signed, err := tx.WithSignature(rules, signature)
		if err != nil {
			t.Fatal(err)
		}
		high, err := tx.WithSignature(rules, raised(signature))
		if err != nil {
			t.Fatal(err)
		}
		if err := client.SendTransaction(ctx, high); err == nil {
			t.Error("the chain takes a high s, so this test shows nothing")
		}
		if err := client.SendTransaction(ctx, signed); err != nil {
			t.Fatal(err)
		}
		if receipt := mined(ctx, t, client, signed); receipt.Status != types.ReceiptStatusSuccessful {
			t.Errorf("nonce %d: status %d", nonce, receipt.Status)
		}
	}
}

// raised is the same signature with the other s, which the rules of chains forbid (EIP-2).
func raised(signature []byte) []byte {
	s := new(big.Int).Sub(crypto.S256().Params().N, new(big.Int).SetBytes(signature[32:64]))
	return slices.Concat(signature[:32], s.FillBytes(make([]byte, 32)), []byte{signature[64] ^ 1})
}

func mined(ctx context.Context, t *testing.T, client *ethclient.Client, tx *types.Transaction) *types.Receipt {
	t.Helper()
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
