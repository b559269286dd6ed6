// Package wallet settles payments with a key of its own that pays the gas: each authorization becomes a
// transaction that is recorded before anybody can see it, broadcast by whoever is there, and judged by
// the logs that it left.
package wallet

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Settings may change while payments are under way.
type Settings struct {
	// MaxFeePerGas is the most that a unit of gas may cost, in wei; 500 gwei if nil. Above it nothing is sent.
	MaxFeePerGas *big.Int
	// WarnBalance is the wallet's balance in wei below which every look is logged; HardBalance the one below
	// which nothing is sent and Ready fails. Nil: none.
	WarnBalance, HardBalance *big.Int
	// GasLimit is that of a transfer for an account with a plain signature; 200,000 if 0. It costs nothing while
	// unused; chains that count their settlement layer's gas in want more.
	GasLimit uint64
	// ContractGas is the most that a payer's contract wallet may use up, transfer included; 600,000 if 0.
	ContractGas uint64
	// Rebroadcast is how long a transaction may wait before it is looked after and broadcast again; 4 s if 0.
	Rebroadcast time.Duration
	// Lookback is how far back is looked for what the wallet sent where the ledger knows nothing of it; 24 h if 0, not at
	// all if it is negative. See Settler.Survey.
	Lookback time.Duration
}

// Config of a Settler.
type Config struct {
	Network x402.Network
	// Key signs and pays.
	Key *ecdsa.PrivateKey
	// Chain is how the network is reached. It stays its maker's, who closes it after the Settler.
	Chain   *chain.Client
	Journal settlement.Journal
	Settings
	Logger *slog.Logger
	// Now is the clock for what is kept for seconds; time.Now if nil.
	Now func() time.Time
}

// Settler settles the payments of one network from one wallet. Any number of them, in any number of
// processes, may share the wallet if they share the journal.
type Settler struct {
	network   x402.Network
	separator common.Hash
	key       *ecdsa.PrivateKey
	address   common.Address
	chain     *chain.Client
	journal   settlement.Journal
	log       *slog.Logger
	now       func() time.Time

	lane    lane
	flights flights
	recent  memory[[32]byte, verdict]
	// mined remembers which transactions had a receipt, to notice when one vanishes.
	mined  memory[common.Hash, uint64]
	losses losses

	tokenOK atomic.Bool // there is code at the asset's address

	mu       sync.RWMutex
	settings Settings
	closed   bool
	wg       sync.WaitGroup
}

var _ settlement.Settler = (*Settler)(nil)

// New makes a settler. It asks and sends nothing yet.
func New(cfg Config) (*Settler, error) {
	switch {
	case cfg.Key == nil:
		return nil, errors.New("wallet: no key")
	case cfg.Chain == nil || cfg.Journal == nil:
		return nil, errors.New("wallet: no chain or no journal")
	case cfg.Network.ChainID == 0:
		return nil, errors.New("wallet: no network")
	}
	s := &Settler{
		network: cfg.Network, separator: cfg.Network.Domain().Separator(),
		key: cfg.Key, address: crypto.PubkeyToAddress(cfg.Key.PublicKey),
		chain: cfg.Chain, journal: cfg.Journal, log: cfg.Logger, now: cfg.Now,
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.lane.init()
	s.losses.turn = newLock()
	s.flights.byKey = make(map[[32]byte]*flight)
	s.Reconfigure(cfg.Settings)
	return s, nil
}

// Reconfigure puts new settings in force for what begins from now on.
func (s *Settler) Reconfigure(n Settings) {
	if n.MaxFeePerGas == nil {
		n.MaxFeePerGas = big.NewInt(500_000_000_000)
	}
	if n.GasLimit == 0 {
		n.GasLimit = 200_000
	}
	if n.ContractGas == 0 {
		n.ContractGas = 600_000
	}
	if n.Rebroadcast == 0 {
		n.Rebroadcast = 4 * time.Second
	}
	if n.Lookback == 0 {
		n.Lookback = 24 * time.Hour
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settings = n
}

func (s *Settler) set() Settings {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.settings
}

// Address is the wallet's.
func (s *Settler) Address() common.Address { return s.address }

// Close waits for what is under way; callers' contexts bound that. What is called later gives settlement.ErrUnavailable.
func (s *Settler) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

var errClosed = fmt.Errorf("%w: the wallet is closed", settlement.ErrUnavailable)

// enter notes that a call began; done must follow unless it fails.
func (s *Settler) enter() (done func(), err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, errClosed
	}
	s.wg.Add(1)
	return s.wg.Done, nil
}

// Ready answers nil when payments can be settled now.
func (s *Settler) Ready(ctx context.Context) error {
	done, err := s.enter()
	if err != nil {
		return err
	}
	defer done()
	var id uint64
	wei := new(big.Int)
	if _, err := s.chain.Ask(ctx, chain.IDQuery(&id), chain.BalanceQuery(s.address, wei)); err != nil {
		return err
	}
	if id != s.network.ChainID {
		return &chain.MismatchError{
			What: "chain id", Configured: fmt.Sprint(s.network.ChainID), Chain: fmt.Sprint(id),
		}
	}
	return s.enoughGas(ctx, wei)
}

// enoughGas judges the wallet's balance.
func (s *Settler) enoughGas(ctx context.Context, wei *big.Int) error {
	set := s.set()
	if set.HardBalance != nil && wei.Cmp(set.HardBalance) < 0 {
		return fmt.Errorf("%w: the gas wallet %s has %s wei, the floor is %s", settlement.ErrUnavailable, s.address, wei, set.HardBalance)
	}
	if set.WarnBalance != nil && wei.Cmp(set.WarnBalance) < 0 {
		s.log.WarnContext(ctx, "the gas wallet needs money", "wallet", s.address, "wei", wei, "warn_below", set.WarnBalance)
	}
	return nil
}

// Gas is the balance in wei that was seen last, and when; nil before the first settlement.
func (s *Settler) Gas() (wei *big.Int, at time.Time) {
	st := s.lane.last.Load()
	if st == nil {
		return nil, time.Time{}
	}
	return new(big.Int).Set(&st.balance), st.at
}

// fits refuses an intent for another network: a mistake of ours, not of the payer.
func (s *Settler) fits(in settlement.Intent) error {
	if in.Network.ChainID != s.network.ChainID || in.Network.Asset.Address != s.network.Asset.Address {
		return fmt.Errorf("wallet: a payment on %s in %s came to the settler of %s in %s",
			in.Network.ID, in.Network.Asset.Address, s.network.ID, s.network.Asset.Address)
	}
	return nil
}
