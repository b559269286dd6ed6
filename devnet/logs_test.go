package devnet_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/devnet"
)

// wantLogs wants a receipt with exactly these logs of the token, in this order and side by side.
func wantLogs(t *testing.T, receipt *types.Receipt, want ...types.Log) {
	t.Helper()
	if len(receipt.Logs) != len(want) {
		t.Fatalf("%d logs, want %d", len(receipt.Logs), len(want))
	}
	for i, log := range receipt.Logs {
		if log.Address != devnet.TokenAddress || log.Index != uint(i)+receipt.Logs[0].Index ||
			!slices.Equal(log.Topics, want[i].Topics) || !bytes.Equal(log.Data, want[i].Data) {
			t.Errorf("log %d is %+v, want %+v", i, log, want[i])
		}
	}
}

func logTransfer(from, to common.Address, value [32]byte) types.Log {
	return types.Log{
		Topics: []common.Hash{
			crypto.Keccak256Hash([]byte("Transfer(address,address,uint256)")),
			common.BytesToHash(from.Bytes()), common.BytesToHash(to.Bytes()),
		},
		Data: value[:],
	}
}

// logNonce is an event that tells of an authorization: AuthorizationUsed or AuthorizationCanceled.
func logNonce(event string, a authorization) types.Log {
	return types.Log{Topics: []common.Hash{
		crypto.Keccak256Hash([]byte(event + "(address,bytes32)")), common.BytesToHash(a.from.Bytes()), a.nonce,
	}}
}
