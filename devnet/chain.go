package devnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	// Forget lets go of the states of all but the last hundred blocks or so: for a chain that makes millions of transfers. Blocks and
	// receipts are kept, so its memory grows all the same, by some kilobytes for each of them.
	Forget bool
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
	server server
	// operator guards the nonces of the operator's account.
	operator sync.Mutex

	close func() error
}

// Start starts a chain, which lives until Close; ctx only bounds the start.
func Start(ctx context.Context, o Options) (*Chain, error) {
	o.setDefaults()
	c := &Chain{options: o}
	if err := c.server.listen(ctx, o.Addr); err != nil {
		return nil, err
	}
	apis, err := c.startNode()
	if err != nil {
		return nil, errors.Join(err, c.server.stop())
	}
	c.close = sync.OnceValue(c.shutdown)
	c.blocks.start(c)
	if err := c.index(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.server.serve(apis, &c.blocks.turnstile, o.Logger); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// startNode starts go-ethereum and gives the services that it offers.
func (c *Chain) startNode() ([]rpc.API, error) {
	genesis, err := newGenesis(c.options, uint64(time.Now().Add(-2*time.Second).Unix()))
	if err != nil {
		return nil, err
	}
	config := node.DefaultConfig
	config.DataDir = ""
	config.P2P = p2p.Config{NoDiscovery: true}
	if c.node, err = node.New(&config); err != nil {
		return nil, fmt.Errorf("devnet: making the node: %w", err)
	}
	ethConfig := ethConfig(c.options)
	ethConfig.Genesis = genesis
	if c.eth, err = eth.New(c.node, ethConfig); err != nil {
		return nil, errors.Join(fmt.Errorf("devnet: making the chain: %w", err), c.node.Close())
	}
	if err := c.node.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("devnet: starting the node: %w", err), c.node.Close())
	}
	c.eth.SetSynced()
	c.client = ethclient.NewClient(c.node.Attach())
	filterSystem := filters.NewFilterSystem(c.eth.APIBackend, filters.Config{})
	return append(c.eth.APIs(), rpc.API{Namespace: "eth", Service: filters.NewFilterAPI(filterSystem)}), nil
}

// index makes the first block and waits until the node has begun its index of transactions. Until then it
// would not answer "no such transaction" but "transaction indexing is in progress".
func (c *Chain) index(ctx context.Context) error {
	if err := c.Commit(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("devnet: %w", err)
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

// ethConfig keeps everything in memory, every state of the chain with it if that is wanted, and lets one sender have
// thousands of transactions waiting.
func ethConfig(o Options) *ethconfig.Config {
	config := ethconfig.Defaults
	config.SyncMode = ethconfig.FullSync
	config.StateScheme = rawdb.HashScheme
	config.NoPruning = true
	config.TransactionHistory = 0
	config.LogNoHistory = true
	config.DatabaseCache, config.TrieCleanCache, config.TrieDirtyCache, config.SnapshotCache = 0, 8, 8, 0
	if o.Forget { // what is never written to the database can be let go of
		config.NoPruning, config.TrieDirtyCache = false, 4096
	}
	config.Miner.GasCeil = o.GasLimit
	config.TxPool.NoLocals = true
	config.TxPool.Journal = ""
	config.TxPool.AccountSlots, config.TxPool.GlobalSlots = 5_000, 20_000
	config.TxPool.AccountQueue, config.TxPool.GlobalQueue = 5_000, 20_000
	return &config
}

// URL is where the chain speaks JSON-RPC over HTTP.
func (c *Chain) URL() string { return "http://" + c.server.listener.Addr().String() }

// Close ends the chain and waits until it has ended. It may be called again.
func (c *Chain) Close() error { return c.close() }

func (c *Chain) shutdown() error {
	err := c.server.stop()
	c.blocks.stop()
	c.client.Close()
	if e := c.node.Close(); e != nil {
		err = errors.Join(err, fmt.Errorf("devnet: closing the node: %w", e))
	}
	return err
}
