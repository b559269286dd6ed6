package devnet

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"
	"github.com/holiman/uint256"
)

const (
	// operatorGas is the gas limit of the operator's transactions.
	operatorGas = 2_000_000
	// receiptInterval is how often a receipt is asked for.
	receiptInterval = 3 * time.Millisecond
)

// Mint gives to amount atomic units of the token that did not exist before. Like everything that changes
// the chain it waits until its transaction is in a block: on a stalled chain for Commit or Resume.
func (c *Chain) Mint(ctx context.Context, to common.Address, amount *uint256.Int) error {
	return c.callToken(ctx, "mint", to, amount.ToBig())
}

// Pause pauses the token: nothing moves until Unpause.
func (c *Chain) Pause(ctx context.Context) error { return c.callToken(ctx, "pause") }

// Unpause ends what Pause began.
func (c *Chain) Unpause(ctx context.Context) error { return c.callToken(ctx, "unpause") }

// Blacklist keeps account from sending and receiving the token.
func (c *Chain) Blacklist(ctx context.Context, account common.Address) error {
	return c.callToken(ctx, "blacklist", account)
}

// Unblacklist ends what Blacklist began.
func (c *Chain) Unblacklist(ctx context.Context, account common.Address) error {
	return c.callToken(ctx, "unBlacklist", account)
}

// Fund gives to some ether, in wei.
func (c *Chain) Fund(ctx context.Context, to common.Address, wei *uint256.Int) error {
	_, err := c.send(ctx, &to, wei.ToBig(), nil)
	return err
}

// Balance is the ether of account, in wei.
func (c *Chain) Balance(ctx context.Context, account common.Address) (*uint256.Int, error) {
	c.blocks.turnstile.pass()
	wei, err := c.client.BalanceAt(ctx, account, nil)
	if err != nil {
		return nil, fmt.Errorf("devnet: asking for a balance: %w", err)
	}
	return toUint256(wei)
}

// TokenBalance is what account has of the token, in atomic units.
func (c *Chain) TokenBalance(ctx context.Context, account common.Address) (*uint256.Int, error) {
	token, err := CompiledContract("USDC")
	if err != nil {
		return nil, err
	}
	data, err := token.ABI.Pack("balanceOf", account)
	if err != nil {
		return nil, fmt.Errorf("devnet: %w", err)
	}
	c.blocks.turnstile.pass()
	answer, err := c.client.CallContract(ctx, ethereum.CallMsg{To: &TokenAddress, Data: data}, nil)
	if err != nil {
		return nil, fmt.Errorf("devnet: asking for a token balance: %w", err)
	}
	return new(uint256.Int).SetBytes(answer), nil
}

// DeployWallet makes a contract wallet (EIP-1271) that accepts the signatures of owner.
func (c *Chain) DeployWallet(ctx context.Context, owner common.Address) (common.Address, error) {
	return c.deploy(ctx, "Wallet", owner)
}

// Mode is how a hostile wallet answers when it is asked for the validity of a signature.
type Mode uint8

// The modes of contracts/Wallet.sol.
const (
	// Accept accepts any signature.
	Accept Mode = iota
	// Refuse refuses any.
	Refuse
	// Revert reverts.
	Revert
	// BurnGas burns all the gas that it gets.
	BurnGas
	// ReturnBomb accepts with an answer of size bytes, which the caller pays for.
	ReturnBomb
	// RevertBomb reverts with size bytes, which the caller pays for.
	RevertBomb
	// Expensive accepts after burning size gas.
	Expensive
	// AcceptInSimulation accepts where no gas is paid for, as in an eth_call, and refuses in a block.
	AcceptInSimulation
)

// DeployHostileWallet makes a contract wallet that answers as mode says, whatever the signature.
func (c *Chain) DeployHostileWallet(ctx context.Context, mode Mode, size uint64) (common.Address, error) {
	return c.deploy(ctx, "HostileWallet", uint8(mode), new(big.Int).SetUint64(size))
}

// SetMode changes how a hostile wallet answers.
func (c *Chain) SetMode(ctx context.Context, wallet common.Address, mode Mode, size uint64) error {
	contract, err := CompiledContract("HostileWallet")
	if err != nil {
		return err
	}
	data, err := contract.ABI.Pack("setMode", uint8(mode), new(big.Int).SetUint64(size))
	if err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	_, err = c.send(ctx, &wallet, nil, data)
	return err
}

func (c *Chain) deploy(ctx context.Context, name string, arguments ...any) (common.Address, error) {
	contract, err := CompiledContract(name)
	if err != nil {
		return common.Address{}, err
	}
	data, err := contract.ABI.Pack("", arguments...)
	if err != nil {
		return common.Address{}, fmt.Errorf("devnet: %w", err)
	}
	receipt, err := c.send(ctx, nil, nil, append(common.CopyBytes(contract.Code), data...))
	if err != nil {
		return common.Address{}, err
	}
	return receipt.ContractAddress, nil
}

func (c *Chain) callToken(ctx context.Context, method string, arguments ...any) error {
	token, err := CompiledContract("USDC")
	if err != nil {
		return err
	}
	data, err := token.ABI.Pack(method, arguments...)
	if err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	_, err = c.send(ctx, &TokenAddress, nil, data)
	return err
}

// send sends a transaction of the operator and waits for its receipt. A transaction that reverts is an error.
func (c *Chain) send(ctx context.Context, to *common.Address, wei *big.Int, data []byte) (*types.Receipt, error) {
	hash, err := c.broadcast(ctx, to, wei, data)
	if err != nil {
		return nil, fmt.Errorf("devnet: sending a transaction: %w", err)
	}
	receipt, err := c.receipt(ctx, hash)
	if err != nil {
		return nil, fmt.Errorf("devnet: waiting for transaction %s: %w", hash, err)
	}
	if receipt.Status != types.ReceiptStatusSuccessful {
		return nil, fmt.Errorf("devnet: transaction %s reverted", hash)
	}
	return receipt, nil
}

func (c *Chain) broadcast(ctx context.Context, to *common.Address, wei *big.Int, data []byte) (common.Hash, error) {
	c.operator.Lock()
	defer c.operator.Unlock()
	operator := Operator()
	c.blocks.turnstile.pass()
	nonce, err := c.client.PendingNonceAt(ctx, operator.Address)
	if err != nil {
		return common.Hash{}, err
	}
	chainID := big.NewInt(ChainID)
	tx, err := types.SignNewTx(operator.Key, types.LatestSignerForChainID(chainID), &types.DynamicFeeTx{
		ChainID: chainID, Nonce: nonce, To: to, Value: wei, Data: data, Gas: operatorGas,
		GasTipCap: big.NewInt(params.GWei), GasFeeCap: big.NewInt(100 * params.GWei),
	})
	if err != nil {
		return common.Hash{}, err
	}
	return tx.Hash(), c.client.SendTransaction(ctx, tx)
}

func (c *Chain) receipt(ctx context.Context, hash common.Hash) (*types.Receipt, error) {
	ticker := time.NewTicker(receiptInterval)
	defer ticker.Stop()
	for {
		receipt, err := c.client.TransactionReceipt(ctx, hash)
		if err == nil {
			c.blocks.turnstile.pass()
			return receipt, nil
		}
		if !errors.Is(err, ethereum.NotFound) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticker.C:
		}
	}
}

func toUint256(n *big.Int) (*uint256.Int, error) {
	u, overflow := uint256.FromBig(n)
	if overflow {
		return nil, fmt.Errorf("devnet: %s does not fit into 256 bits", n)
	}
	return u, nil
}
