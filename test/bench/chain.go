package main

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/interop/anvil"
	"github.com/caddy-x402/caddy-x402/x402"
)

// gasLimit is that of a block of Base; its transactions may have 2^24 at most.
const gasLimit = 400_000_000

// enoughGas is more than enough for one transfer.
const enoughGas = 200_000

// What accounts have of the token. The seller has something, so that its first payment costs no more gas than the next.
const (
	payerUSDC  = 1_000_000
	sellerUSDC = 1
)

var (
	// payTo is the seller.
	payTo = common.HexToAddress("0x209693Bc6afc0C5328bA36FaF03C514EF312287C")
	// gas is the wallet that settles, ours or the peer's.
	gas = devnet.Developer(0)
	// wallets are all that may be told to settle.
	wallets = func() map[common.Address]bool {
		all := map[common.Address]bool{}
		for i := range 10 {
			all[devnet.Developer(i).Address] = true
		}
		return all
	}()
)

// chain is a new chain, and what is known of its blocks.
type chain struct {
	*anvil.Chain
	block time.Duration
	watch *watch // nil where blocks come at once
}

// startChain starts a chain on which so many payers have money.
func startChain(ctx context.Context, dir string, block time.Duration, payers int) (*chain, error) {
	balances := map[common.Address]*uint256.Int{payTo: devnet.USDC(sellerUSDC)}
	for i := range payers {
		balances[devnet.Payer(i).Address] = devnet.USDC(payerUSDC)
	}
	args := []string{"--gas-limit", strconv.Itoa(gasLimit), "--enable-tx-gas-limit", "--prune-history", "1024"}
	node, err := anvil.Start(ctx, anvil.Options{Dir: dir, BlockTime: block, Balances: balances, Args: args})
	if err != nil {
		return nil, err
	}
	c := &chain{Chain: node, block: block}
	if err = c.Client().CallContext(ctx, nil, "anvil_setLoggingEnabled", false); err == nil && block > 0 {
		c.watch, err = watchBlocks(ctx, c.URL())
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close ends the chain.
func (c *chain) Close() error {
	if c.watch != nil {
		c.watch.close()
	}
	return c.Chain.Close()
}

// kind names the chain in tables.
func kind(block time.Duration) string {
	if block == 0 {
		return "blocks at once"
	}
	return "a block every " + block.String()
}

// watch notes when blocks come.
type watch struct {
	client *rpc.Client
	sub    interface{ Unsubscribe() }
	done   chan struct{}

	mu   sync.Mutex
	seen []time.Time
}

func watchBlocks(ctx context.Context, url string) (*watch, error) {
	client, err := rpc.DialContext(ctx, "ws"+strings.TrimPrefix(url, "http"))
	if err != nil {
		return nil, fmt.Errorf("watching blocks: %w", err)
	}
	heads := make(chan *types.Header, 16)
	sub, err := ethclient.NewClient(client).SubscribeNewHead(ctx, heads)
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("watching blocks: %w", err)
	}
	w := &watch{client: client, sub: sub, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for {
			select {
			case <-heads:
				w.mu.Lock()
				w.seen = append(w.seen, time.Now())
				w.mu.Unlock()
			case <-sub.Err(): //nolint:errcheck // the chain has ended; what waits for it will say so
				return
			}
		}
	}()
	return w, nil
}

func (w *watch) close() {
	w.sub.Unsubscribe()
	<-w.done
	w.client.Close()
}

// next is when the first block after t came.
func (w *watch) next(t time.Time) (time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, seen := range slices.Backward(w.seen) {
		if seen.Before(t) {
			if i+1 == len(w.seen) {
				return time.Time{}, false
			}
			return w.seen[i+1], true
		}
	}
	return time.Time{}, false
}

// longest is the longest time between two blocks that came in between: a machine that is too busy for its clocks shows here.
func (w *watch) longest(from, to time.Time) (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := 1; i < len(w.seen); i++ {
		if w.seen[i].After(from) && w.seen[i-1].Before(to) {
			longest = max(longest, w.seen[i].Sub(w.seen[i-1]))
		}
	}
	return longest
}

// lone is what one transferWithAuthorization costs in gas when it is sent by itself.
func (c *chain) lone(ctx context.Context, w *wallet) (used uint64, err error) {
	for range 2 { // the second one finds things as later ones do
		s, err := w.signed(0, price)
		if err != nil {
			return 0, err
		}
		if used, err = c.send(ctx, anvil.Minter, devnet.TokenAddress, s.auth.TransferCalldata(s.sig)); err != nil {
			return 0, fmt.Errorf("a lone transfer: %w", err)
		}
	}
	return used, nil
}

// begin makes the gas wallet one that has sent something before: viem's nonce manager gives the first nonce of all out twice.
func (c *chain) begin(ctx context.Context) error {
	if _, err := c.send(ctx, gas.Address, gas.Address, nil); err != nil {
		return fmt.Errorf("the gas wallet's first transaction: %w", err)
	}
	return nil
}

// send lets the chain sign and mine a transaction, and gives the gas that it used.
func (c *chain) send(ctx context.Context, from, to common.Address, data []byte) (uint64, error) {
	call := map[string]any{"from": from, "to": to, "gas": hexutil.Uint64(enoughGas), "data": hexutil.Bytes(data)}
	var hash common.Hash
	if err := c.Client().CallContext(ctx, &hash, "eth_sendTransaction", call); err != nil {
		return 0, err
	}
	if err := c.Client().CallContext(ctx, nil, "evm_mine"); err != nil {
		return 0, err
	}
	receipt, err := ethclient.NewClient(c.Client()).TransactionReceipt(ctx, hash)
	if err != nil {
		return 0, err
	}
	if receipt.Status != types.ReceiptStatusSuccessful {
		return 0, errors.New("it was reverted")
	}
	return receipt.GasUsed, nil
}

// transfer is a payment as the chain has it.
type transfer struct {
	payer common.Address
	nonce common.Hash
	tx    common.Hash
}

// record is all that a chain has of payments.
type record struct {
	transfers []transfer
	// strays are transfers to the seller that are not what a price was signed for.
	strays int
	// transactions are those of the gas wallets, failed those among them that were reverted; gasUsed is their sum.
	transactions, failed int
	gasUsed              uint64
}

// read reads the whole chain.
func (c *chain) read(ctx context.Context) (r record, err error) {
	if r, err = c.transfersSince(ctx, 0); err == nil {
		err = c.readGas(ctx, &r)
	}
	return r, err
}

// transfersSince reads the payments of the chain without the first few.
func (c *chain) transfersSince(ctx context.Context, skip int) (r record, err error) {
	var logs []types.Log
	filter := map[string]any{
		"fromBlock": "0x0", "toBlock": "latest", "address": devnet.TokenAddress,
		"topics": []any{[]common.Hash{x402.TopicAuthorizationUsed, x402.TopicTransfer}},
	}
	if err := c.Client().CallContext(ctx, &logs, "eth_getLogs", filter); err != nil {
		return r, fmt.Errorf("reading the token's logs: %w", err)
	}
	r.transfers, r.strays = payments(logs)
	r.transfers = r.transfers[min(skip, len(r.transfers)):]
	return r, nil
}

// payments finds each AuthorizationUsed that a Transfer of the price to the seller follows at once.
func payments(logs []types.Log) (found []transfer, strays int) {
	for i := range logs {
		moved := &logs[i]
		if moved.Topics[0] != x402.TopicTransfer || len(moved.Topics) != 3 || common.BytesToAddress(moved.Topics[2][:]) != payTo {
			continue
		}
		if i == 0 || !follows(moved, &logs[i-1]) {
			strays++
			continue
		}
		used := &logs[i-1]
		found = append(found, transfer{payer: common.BytesToAddress(used.Topics[1][:]), nonce: used.Topics[2], tx: used.TxHash})
	}
	return found, strays
}

func follows(moved, used *types.Log) bool {
	return len(used.Topics) == 3 && used.Topics[0] == x402.TopicAuthorizationUsed && used.TxHash == moved.TxHash &&
		used.Index+1 == moved.Index && used.Topics[1] == moved.Topics[1] && new(big.Int).SetBytes(moved.Data).Uint64() == price
}

// readGas adds up what the gas wallets have sent.
func (c *chain) readGas(ctx context.Context, r *record) error {
	var head hexutil.Uint64
	if err := c.Client().CallContext(ctx, &head, "eth_blockNumber"); err != nil {
		return fmt.Errorf("reading the chain's head: %w", err)
	}
	type receipt struct {
		From   common.Address `json:"from"`
		Gas    hexutil.Uint64 `json:"gasUsed"`
		Status hexutil.Uint64 `json:"status"`
	}
	const some = 200
	for from := uint64(1); from <= uint64(head); from += some {
		n := min(some, uint64(head)-from+1)
		blocks, calls := make([][]receipt, n), make([]rpc.BatchElem, n)
		for i := range calls {
			calls[i] = rpc.BatchElem{Method: "eth_getBlockReceipts", Args: []any{hexutil.Uint64(from + uint64(i))}, Result: &blocks[i]}
		}
		if err := c.Client().BatchCallContext(ctx, calls); err != nil {
			return fmt.Errorf("reading receipts: %w", err)
		}
		for i, call := range calls {
			if call.Error != nil {
				return fmt.Errorf("reading receipts: %w", call.Error)
			}
			for _, x := range blocks[i] {
				if !wallets[x.From] {
					continue
				}
				r.transactions++
				r.gasUsed += uint64(x.Gas)
				if uint64(x.Status) != types.ReceiptStatusSuccessful {
					r.failed++
				}
			}
		}
	}
	return nil
}
