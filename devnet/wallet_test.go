package devnet_test

import (
	"math/big"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
)

func TestContractWalletSigns(t *testing.T) {
	r := start(t, devnet.Options{})
	owner, stranger, to := devnet.Payer(1), devnet.Developer(0), devnet.Payer(100_002).Address
	wallet, err := r.chain.DeployWallet(r.ctx, owner.Address)
	r.must(err)
	r.must(r.chain.Mint(r.ctx, wallet, devnet.USDC(10)))
	for overload := range overloads {
		a := r.authorize(wallet, to, 2)
		r.refused(stranger, devnet.TokenAddress,
			a.call(t, "transfer", overload, a.signed(t, "TransferWithAuthorization", stranger)), "FiatTokenV2: invalid signature")
		r.refused(stranger, devnet.TokenAddress,
			a.call(t, "transfer", overload, highS(a.signed(t, "TransferWithAuthorization", owner))), "FiatTokenV2: invalid signature")
		receipt := r.succeed(stranger, devnet.TokenAddress,
			a.call(t, "transfer", overload, a.signed(t, "TransferWithAuthorization", owner)))
		wantLogs(t, receipt, logNonce("AuthorizationUsed", a), logTransfer(a.from, a.to, a.value.Bytes32()))
	}
	r.wantBalance(to, devnet.USDC(4))

	call := pack(t, "Wallet", "execute(address,uint256,bytes)", devnet.TokenAddress, new(big.Int),
		pack(t, "USDC", "transfer(address,uint256)", to, devnet.USDC(6).ToBig()))
	r.refused(stranger, wallet, call, "Wallet: caller is not the owner")
	r.succeed(owner, wallet, call)
	r.refused(owner, wallet, call, "ERC20: transfer amount exceeds balance")
	r.wantBalance(to, devnet.USDC(10))
}

// An account that delegates (EIP-7702) has code and is asked like a wallet; its own key still signs for it
// when the code says so.
func TestDelegatedAccountSigns(t *testing.T) {
	r := start(t, devnet.Options{})
	payer, to := devnet.Payer(2), devnet.Payer(100_003).Address
	wallet, err := r.chain.DeployWallet(r.ctx, devnet.Developer(0).Address)
	r.must(err)
	delegation, err := types.SignSetCode(payer.Key, types.SetCodeAuthorization{
		ChainID: *uint256.NewInt(devnet.ChainID), Address: wallet, Nonce: 1,
	})
	r.must(err)
	chainID := uint256.NewInt(devnet.ChainID)
	tx, err := types.SignNewTx(payer.Key, types.LatestSignerForChainID(chainID.ToBig()), &types.SetCodeTx{
		ChainID: chainID, To: payer.Address, Gas: 200_000, AuthList: []types.SetCodeAuthorization{delegation},
		GasTipCap: uint256.NewInt(params.GWei), GasFeeCap: uint256.NewInt(50 * params.GWei),
	})
	r.must(err)
	r.must(r.client.SendTransaction(r.ctx, tx))
	r.receipt(tx.Hash())
	code, err := r.client.CodeAt(r.ctx, payer.Address, nil)
	r.must(err)
	if delegate, ok := types.ParseDelegation(code); !ok || delegate != wallet {
		t.Fatalf("the payer's code is %x", code)
	}
	a := r.authorize(payer.Address, to, 2)
	r.succeed(devnet.Developer(0), devnet.TokenAddress,
		a.call(t, "transfer", "bytes", a.signed(t, "TransferWithAuthorization", payer)))
	r.wantBalance(to, devnet.USDC(2))
}

func TestHostileWallets(t *testing.T) {
	r := start(t, devnet.Options{})
	sender, to := devnet.Developer(0), devnet.Developer(1).Address
	wallet, err := r.chain.DeployHostileWallet(r.ctx, devnet.Refuse, 0)
	r.must(err)
	r.must(r.chain.Mint(r.ctx, wallet, devnet.USDC(10)))
	gas := func(mode devnet.Mode, size uint64) (uint64, bool) {
		t.Helper()
		r.must(r.chain.SetMode(r.ctx, wallet, mode, size))
		a := r.authorize(wallet, to, 1)
		receipt := r.send(sender, devnet.TokenAddress, a.call(t, "transfer", "bytes", []byte("anything")))
		return receipt.GasUsed, receipt.Status == types.ReceiptStatusSuccessful
	}
	plain, ok := gas(devnet.Accept, 0)
	if !ok || plain > 150_000 {
		t.Errorf("accepted: %v, with %d gas", ok, plain)
	}
	for _, c := range []struct {
		name     string
		mode     devnet.Mode
		size     uint64
		accepted bool
		atLeast  uint64 // gas beyond what an accepted payment takes
	}{
		{"refuse", devnet.Refuse, 0, false, 0},
		{"revert", devnet.Revert, 0, false, 0},
		{"burn gas", devnet.BurnGas, 0, false, 4_500_000},
		{"return bomb", devnet.ReturnBomb, 100_000, true, 40_000},
		{"revert bomb", devnet.RevertBomb, 200_000, false, 40_000},
		{"expensive", devnet.Expensive, 1_000_000, true, 1_000_000},
		{"accept in simulation", devnet.AcceptInSimulation, 0, false, 0},
	} {
		used, ok := gas(c.mode, c.size)
		if ok != c.accepted {
			t.Errorf("%s: accepted: %v, want %v", c.name, ok, c.accepted)
		}
		if c.atLeast > 0 && used < plain+c.atLeast {
			t.Errorf("%s: used %d gas, %d more than usual, want %d", c.name, used, used-plain, c.atLeast)
		}
	}
	r.wantBalance(to, devnet.USDC(1_000_003))

	a := r.authorize(wallet, to, 1)
	call := a.call(t, "transfer", "bytes", nil)
	r.mustCall(sender.Address, call) // the mode is still AcceptInSimulation
	r.must(r.chain.SetMode(r.ctx, wallet, devnet.Revert, 0))
	r.refused(sender, devnet.TokenAddress, call, "FiatTokenV2: invalid signature")
}

type call3 struct {
	Target       common.Address
	AllowFailure bool
	CallData     []byte
}

func TestAggregate3(t *testing.T) {
	r := start(t, devnet.Options{})
	sender, to := devnet.Developer(0), devnet.Payer(100_005).Address
	transfer := func(payer devnet.Account, usdc uint64) []byte {
		a := r.authorize(payer.Address, to, usdc)
		return a.call(t, "transfer", "bytes", a.signed(t, "TransferWithAuthorization", payer))
	}
	const aggregate = "aggregate3((address,bool,bytes)[])"
	good, poor, last := transfer(devnet.Payer(1), 1), transfer(devnet.Payer(2), 5000), transfer(devnet.Payer(3), 2)
	batch := func(allow bool) []byte {
		var calls []call3
		for _, data := range [][]byte{good, poor, last} {
			calls = append(calls, call3{devnet.TokenAddress, allow, data})
		}
		return pack(t, "Multicall3", aggregate, calls)
	}
	r.refused(sender, devnet.MulticallAddress, batch(false), "Multicall3: call failed")
	if r.send(sender, devnet.MulticallAddress, batch(false)).Status != types.ReceiptStatusFailed {
		t.Error("a batch with a failing call that may not fail was executed")
	}
	r.wantBalance(to, new(uint256.Int))

	answer := r.mustCallTo(sender.Address, devnet.MulticallAddress, batch(true))
	values, err := method(t, "Multicall3", aggregate).Outputs.Unpack(answer)
	r.must(err)
	var results []struct {
		Success    bool
		ReturnData []byte
	}
	abi.ConvertType(values[0], &results)
	if len(results) != 3 || !results[0].Success || results[1].Success || !results[2].Success {
		t.Fatalf("the results are %v", results)
	}
	if reason := string(results[1].ReturnData); !strings.Contains(reason, "ERC20: transfer amount exceeds balance") {
		t.Errorf("the failed call returned %q", reason)
	}
	receipt := r.succeed(sender, devnet.MulticallAddress, batch(true))
	if len(receipt.Logs) != 4 {
		t.Fatalf("%d logs, want 4", len(receipt.Logs))
	}
	for i := 0; i < 4; i += 2 {
		if receipt.Logs[i].Topics[0] != crypto.Keccak256Hash([]byte("AuthorizationUsed(address,bytes32)")) ||
			receipt.Logs[i+1].Topics[0] != crypto.Keccak256Hash([]byte("Transfer(address,address,uint256)")) {
			t.Errorf("logs %d and %d are not a pair", i, i+1)
		}
	}
	r.wantBalance(to, devnet.USDC(3))
}
