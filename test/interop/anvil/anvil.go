// Package anvil runs Foundry's development chain, as npm brings it, furnished like ours: with the token, Multicall3, and
// accounts that have money.
package anvil

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
)

const (
	// patience is how long it may take to listen.
	patience = 30 * time.Second
	// batch is how many calls go to it at once.
	batch = 500
)

// Minter owns the token; the chain has its key, and signs for it.
var Minter = devnet.Developer(9).Address

// Options of a chain.
type Options struct {
	// Dir is the folder whose node_modules have @foundry-rs/anvil.
	Dir string
	// BlockTime is in whole seconds; 0: a block as soon as a transaction waits.
	BlockTime time.Duration
	// Balances are what accounts have of the token, in atomic units.
	Balances map[common.Address]*uint256.Int
	// Args are further arguments of the program.
	Args []string
}

// Chain is a chain that runs.
type Chain struct {
	url     string
	client  *rpc.Client
	cmd     *exec.Cmd
	kill    context.CancelFunc
	drained chan struct{} // closed when it prints no more
}

// Start starts a chain; the caller ends it with Close. Its ten development accounts are devnet's.
func Start(ctx context.Context, o Options) (*Chain, error) {
	platform := "anvil-" + runtime.GOOS + "-" + runtime.GOARCH // npm has amd64 and arm64 under Go's names
	args := []string{"--host", "127.0.0.1", "--port", "0", "--chain-id", strconv.Itoa(devnet.ChainID)}
	if o.BlockTime > 0 {
		args = append(args, "--block-time", strconv.Itoa(int(o.BlockTime/time.Second)))
	}
	life, kill := context.WithCancel(context.WithoutCancel(ctx))
	cmd := exec.CommandContext(life, filepath.Join(o.Dir, "node_modules", "@foundry-rs", platform, "bin", "anvil"), append(args, o.Args...)...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		kill()
		return nil, fmt.Errorf("starting anvil: %w", err)
	}
	c := &Chain{cmd: cmd, kill: kill, drained: make(chan struct{})}
	listening := make(chan string, 1)
	go func() {
		defer close(c.drained)
		follow(out, listening)
	}()
	if err := c.open(ctx, listening, o); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// follow reads what anvil prints until it ends, and tells where it listens.
func follow(out io.Reader, listening chan<- string) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if addr, ok := strings.CutPrefix(lines.Text(), "Listening on "); ok {
			listening <- strings.TrimSpace(addr)
			break
		}
	}
	_, _ = io.Copy(io.Discard, out)
}

// open waits until the chain listens, and furnishes it.
func (c *Chain) open(ctx context.Context, listening <-chan string, o Options) error {
	select {
	case addr := <-listening:
		c.url = "http://" + addr
	case <-c.drained:
		return errors.New("anvil ended before it listened")
	case <-time.After(patience):
		return fmt.Errorf("anvil does not listen after %s", patience)
	case <-ctx.Done():
		return ctx.Err()
	}
	var err error
	if c.client, err = rpc.DialContext(ctx, c.url); err != nil {
		return fmt.Errorf("connecting to anvil: %w", err)
	}
	return c.furnish(ctx, o.Balances)
}

// furnish puts the token and Multicall3 where stock clients look for them, and money into the accounts. Nothing of it is a
// transaction.
func (c *Chain) furnish(ctx context.Context, balances map[common.Address]*uint256.Int) error {
	token, err := c.place(ctx, "USDC", devnet.TokenAddress)
	if err != nil {
		return err
	}
	if _, err := c.place(ctx, "Multicall3", devnet.MulticallAddress); err != nil {
		return err
	}
	storage, err := devnet.TokenStorage(Minter)
	if err != nil {
		return err
	}
	slot := func(variable string) common.Hash { return uint256.NewInt(token.Storage[variable].Slot).Bytes32() }
	of, sum := slot("balanceOf"), new(uint256.Int)
	for a, units := range balances {
		storage[crypto.Keccak256Hash(common.LeftPadBytes(a.Bytes(), 32), of.Bytes())] = units.Bytes32()
		sum.Add(sum, units)
	}
	storage[slot("totalSupply")] = sum.Bytes32()

	calls := make([]rpc.BatchElem, 0, len(storage)+1)
	for key, value := range storage {
		calls = append(calls, rpc.BatchElem{Method: "anvil_setStorageAt", Args: []any{devnet.TokenAddress, key, value}, Result: new(any)})
	}
	// A chain that has nothing but its first block is none that anybody pays on.
	calls = append(calls, rpc.BatchElem{Method: "evm_mine", Result: new(any)})
	return c.all(ctx, calls)
}

// place puts a compiled contract at an address.
func (c *Chain) place(ctx context.Context, name string, at common.Address) (*devnet.Contract, error) {
	contract, err := devnet.CompiledContract(name)
	if err != nil {
		return nil, err
	}
	if err := c.client.CallContext(ctx, nil, "anvil_setCode", at, contract.Deployed); err != nil {
		return nil, fmt.Errorf("placing %s on anvil: %w", name, err)
	}
	return contract, nil
}

// all makes many calls; the first error counts.
func (c *Chain) all(ctx context.Context, calls []rpc.BatchElem) error {
	for len(calls) > 0 {
		some := calls[:min(batch, len(calls))]
		calls = calls[len(some):]
		if err := c.client.BatchCallContext(ctx, some); err != nil {
			return fmt.Errorf("furnishing anvil: %w", err)
		}
		for _, call := range some {
			if call.Error != nil {
				return fmt.Errorf("furnishing anvil: %s: %w", call.Method, call.Error)
			}
		}
	}
	return nil
}

// URL is where it speaks JSON-RPC over HTTP; the same address speaks it over WebSocket.
func (c *Chain) URL() string { return c.url }

// Client speaks to it until Close.
func (c *Chain) Client() *rpc.Client { return c.client }

// PID is the number of its process.
func (c *Chain) PID() int { return c.cmd.Process.Pid }

// Close ends the chain, and waits for that. What it knew is gone.
func (c *Chain) Close() error {
	if c.client != nil {
		c.client.Close()
	}
	c.kill()
	<-c.drained
	_ = c.cmd.Wait() // it was killed
	return nil
}
