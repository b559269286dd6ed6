package devnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/eth/filters"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/rpc"
)

// Options of a chain. The zero value is good for tests.
type Options struct {
	// Addr is where the JSON-RPC over HTTP listens; by default "127.0.0.1:0", a free port.
	Addr string
	// BlockTime is the time between two blocks. Zero: blocks on demand.
	BlockTime time.Duration
	// Heartbeat is how old the head of a chain with blocks on demand gets before an empty block follows;
	// by default 2 s. Negative: no empty blocks.
	Heartbeat time.Duration
	// MaxLead is how far the chain's time may run ahead of the wall by blocks that the chain makes of its
	// own accord; by default 30 s. Negative: not at all.
	MaxLead time.Duration
	// SafeLag and FinalizedLag are how many blocks "safe" and "finalized" are behind the head; by default none.
	SafeLag, FinalizedLag uint64
	// GasLimit of a block; by default 30 million.
	GasLimit uint64
	// Payers is how many of the accounts that Payer gives are funded in the genesis block; by default 1000.
	Payers int
	// Logger hears of blocks that could not be made; by default slog.Default().
	Logger *slog.Logger
}

func (o *Options) setDefaults() {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 2 * time.Second
	}
	if o.MaxLead == 0 {
		o.MaxLead = 30 * time.Second
	}
	o.MaxLead = max(o.MaxLead, 0)
	if o.GasLimit == 0 {
		o.GasLimit = 30_000_000
	}
	if o.Payers == 0 {
		o.Payers = 1000
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Chain is a running local chain. Its methods are safe for concurrent use.
type Chain struct {
	options Options
	node    *node.Node
	eth     *eth.Ethereum
	client  *ethclient.Client

	blocks producer
	// operator guards the nonces of the operator's account.
	operator sync.Mutex

	close func() error
}

// Start starts a chain, which lives until Close; ctx only bounds the start.
func Start(ctx context.Context, o Options) (*Chain, error) {
	o.setDefaults()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("devnet: %w", err)
	}
	nodeConfig, err := nodeConfig(o.Addr)
	if err != nil {
		return nil, err
	}
	genesis, err := newGenesis(o, uint64(time.Now().Add(-2*time.Second).Unix()))
	if err != nil {
		return nil, err
	}
	stack, err := node.New(nodeConfig)
	if err != nil {
		return nil, fmt.Errorf("devnet: making the node: %w", err)
	}
	config := ethConfig(o)
	config.Genesis = genesis
	backend, err := eth.New(stack, config)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("devnet: making the chain: %w", err), stack.Close())
	}
	filterSystem := filters.NewFilterSystem(backend.APIBackend, filters.Config{})
	stack.RegisterAPIs([]rpc.API{{Namespace: "eth", Service: filters.NewFilterAPI(filterSystem)}})
	if err := stack.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("devnet: starting the node: %w", err), stack.Close())
	}
	backend.SetSynced()

	c := &Chain{options: o, node: stack, eth: backend, client: ethclient.NewClient(stack.Attach())}
	c.close = sync.OnceValue(c.shutdown)
	c.blocks.start(c)
	if err := c.index(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// index makes the first block and waits until the node has begun its index of transactions. Until then it
// would not answer "no such transaction" but "transaction indexing is in progress".
func (c *Chain) index(ctx context.Context) error {
	if err := c.Commit(); err != nil {
		return err
	}
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for !c.eth.BlockChain().TxIndexDone() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("devnet: waiting for the index of transactions: %w", ctx.Err())
		case <-ticker.C:
		}
	}
	return nil
}

// nodeConfig is a node without a directory and without peers that listens at addr.
func nodeConfig(addr string) (*node.Config, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("devnet: the address to listen at: %w", err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("devnet: the port to listen at: %w", err)
	}
	// A node that fails to start leaves goroutines behind, so see first whether it can listen.
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("devnet: %w", err)
	}
	if err := listener.Close(); err != nil {
		return nil, fmt.Errorf("devnet: %w", err)
	}
	config := node.DefaultConfig
	config.DataDir = ""
	config.P2P = p2p.Config{NoDiscovery: true}
	config.HTTPHost, config.HTTPPort = host, int(number)
	config.HTTPModules = []string{"eth", "net", "web3", "txpool"}
	config.HTTPCors = []string{"*"}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		config.HTTPVirtualHosts = []string{"*"}
	}
	return &config, nil
}

// ethConfig keeps everything in memory, every state of the chain with it, and lets one sender have
// thousands of transactions waiting.
func ethConfig(o Options) *ethconfig.Config {
	config := ethconfig.Defaults
	config.SyncMode = ethconfig.FullSync
	config.StateScheme = rawdb.HashScheme
	config.NoPruning = true
	config.TransactionHistory = 0
	config.LogNoHistory = true
	config.DatabaseCache, config.TrieCleanCache, config.TrieDirtyCache, config.SnapshotCache = 0, 8, 8, 0
	config.Miner.GasCeil = o.GasLimit
	config.TxPool.NoLocals = true
	config.TxPool.Journal = ""
	config.TxPool.AccountSlots, config.TxPool.GlobalSlots = 5_000, 20_000
	config.TxPool.AccountQueue, config.TxPool.GlobalQueue = 5_000, 20_000
	return &config
}

// URL is where the chain speaks JSON-RPC over HTTP.
func (c *Chain) URL() string { return c.node.HTTPEndpoint() }

// Close ends the chain and waits until it has ended. It may be called again.
func (c *Chain) Close() error { return c.close() }

func (c *Chain) shutdown() error {
	c.blocks.stop()
	c.client.Close()
	if err := c.node.Close(); err != nil {
		return fmt.Errorf("devnet: closing the node: %w", err)
	}
	return nil
}
