package main

import (
	"context"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/x402"
)

// chainCommand is the argument with which this program is nothing but a chain.
const chainCommand = "chain"

// logsBlocks is how many blocks' logs are read at once.
const logsBlocks = 4

// serveChain is a development chain in a process of its own: it keeps every block, so that its memory grows, and must not be
// taken for that of Caddy. It ends with whoever started it.
func serveChain(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%s: address, time between blocks and number of payers are wanted", chainCommand)
	}
	block, err := time.ParseDuration(args[1])
	if err != nil {
		return fmt.Errorf("%s: %w", chainCommand, err)
	}
	payers, err := strconv.Atoi(args[2])
	if err != nil {
		return fmt.Errorf("%s: %w", chainCommand, err)
	}
	c, err := devnet.Start(ctx, devnet.Options{Addr: args[0], BlockTime: block, Payers: payers, GasLimit: gasLimit, Forget: true})
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return c.Close()
}

// startSoakChain starts the chain, and what reads it.
func startSoakChain(ctx context.Context, dir string, c *soakConfig) (*process, *follower, error) {
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("the chain: %w", err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, chainCommand, addr, c.block.String(), strconv.Itoa(c.payers))
	p, err := launch(ctx, dir, "chain", addr, cmd)
	if err != nil {
		return nil, nil, err
	}
	client, err := ethclient.DialContext(ctx, "http://"+addr)
	if err != nil {
		return nil, nil, fmt.Errorf("the chain: %w", err)
	}
	return p, &follower{client: client, next: 1}, nil
}

// follower reads what the chain says, with go-ethereum's client and nothing of ours.
type follower struct {
	client    *ethclient.Client
	next      uint64 // block
	transfers []transfer
	strays    int
}

func (f *follower) close() { f.client.Close() }

// follow reads the blocks that have come.
func (f *follower) follow(ctx context.Context) error {
	head, err := f.client.BlockNumber(ctx)
	if err != nil {
		return fmt.Errorf("following the chain: %w", err)
	}
	for ; f.next <= head; f.next = min(head, f.next+logsBlocks-1) + 1 {
		logs, err := f.client.FilterLogs(ctx, ethereum.FilterQuery{
			FromBlock: new(big.Int).SetUint64(f.next), ToBlock: new(big.Int).SetUint64(min(head, f.next+logsBlocks-1)),
			Addresses: []common.Address{devnet.TokenAddress}, Topics: [][]common.Hash{{x402.TopicAuthorizationUsed, x402.TopicTransfer}},
		})
		if err != nil {
			return fmt.Errorf("following the chain: %w", err)
		}
		found, strays := payments(logs)
		f.transfers, f.strays = append(f.transfers, found...), f.strays+strays
	}
	return nil
}

// transactions is how many the gas wallets have sent.
func (f *follower) transactions(ctx context.Context, lanes int) (sum int, err error) {
	for i := range lanes {
		n, err := f.client.NonceAt(ctx, devnet.Developer(i).Address, nil)
		if err != nil {
			return 0, fmt.Errorf("counting transactions: %w", err)
		}
		sum += int(n)
	}
	return sum, nil
}

// balanced compares what the seller has with the transfers that were counted.
func (f *follower) balanced(ctx context.Context, v *soakVerdict) error {
	data := slices.Concat(crypto.Keccak256([]byte("balanceOf(address)"))[:4], common.LeftPadBytes(payTo[:], 32))
	out, err := f.client.CallContract(ctx, ethereum.CallMsg{To: &devnet.TokenAddress, Data: data}, nil)
	if err != nil {
		return fmt.Errorf("the seller's balance: %w", err)
	}
	has, counted := new(big.Int).SetBytes(out), new(big.Int).Mul(big.NewInt(price), big.NewInt(int64(len(f.transfers))))
	if has.Cmp(counted) != 0 || f.strays > 0 {
		v.wrong("the seller has %s, and %s came by payments; %d other transfers", has, counted, f.strays)
	}
	return nil
}
