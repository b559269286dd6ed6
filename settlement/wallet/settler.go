// Package wallet settles payments with keys of its own that pay the gas. Payments that wait travel together: one transaction
// carries many authorizations. It is recorded before anybody can see it, broadcast by whoever is there, sent again with
// higher fees where it is stuck, and each payment in it is judged by the logs that it left.
//
// A payment's way: Settle puts it into the queue; a lane (one for each wallet) takes what waits there, simulates it as a
// whole, records and broadcasts it; a parcel is what then stands under one nonce of the wallet, until a receipt is there.
package wallet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/multicall"
	"github.com/caddy-x402/caddy-x402/settlement/proof"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Signer signs for a gas wallet. It may be a service far away.
type Signer interface {
	// Address is the wallet's.
	Address() common.Address
	// Sign gives the signature of a digest: r, s and v in 65 bytes, s low and v 0 or 1.
	Sign(ctx context.Context, digest common.Hash) ([]byte, error)
}

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
	// Batch is how many payments a transaction carries at most; 100 if 0.
	Batch int
	// BatchGas is the most gas of a transaction that carries several; 12,000,000 if 0. Chains take no transaction with more than
	// 16,777,216 (EIP-7825).
	BatchGas uint64
	// InFlight is how many transactions of a wallet may be under way at once; 12 if 0. Nodes keep few of an account that wait.
	InFlight int
	// Linger is how long a wallet that has transactions under way waits for more payments to travel with those that are
	// there; 100 ms if 0. A wallet that has none under way does not wait.
	Linger time.Duration
	// Queue is how many payments may wait for a transaction; 4,096 if 0. Whoever comes then is told to come back.
	Queue int
	// StuckAfter is how old a transaction must be, by the time of the chain's newest block, to be sent again with higher fees; 20 s if 0.
	StuckAfter time.Duration
	// SpendPerHour is the most that is spent on gas in an hour, in wei, by all wallets of this process. Nil: no limit.
	SpendPerHour *big.Int
	// Mined hears of each of our transactions that was mined, for metrics; may be nil.
	Mined func(Mined)
	// Queued hears how long each payment has waited for a transaction that it got, and Replaced of each transaction that takes the place
	// of one that was stuck, for metrics; may be nil.
	Queued   func(time.Duration)
	Replaced func()
	// Lookback is how far back is looked for what the wallet sent where the ledger knows nothing of it; 24 h if 0, not at
	// all if it is negative. See Settler.Survey.
	Lookback time.Duration
}

// Config of a Settler.
type Config struct {
	Network x402.Network
	// Signers are the wallets: each is a lane. At least one; no two for the same address.
	Signers []Signer
	// Chain is how the network is reached. It stays its maker's, who closes it after the Settler.
	Chain   *chain.Client
	Journal settlement.Journal
	Settings
	Logger *slog.Logger
	// Now is the clock for what is kept for seconds; time.Now if nil.
	Now func() time.Time
}

// Settler settles the payments of one network from one wallet, or several. Any number of Settlers, in any number of
// processes, may share the wallets if they share the journal.
type Settler struct {
	network   x402.Network
	separator common.Hash
	lanes     []*lane
	chain     *chain.Client
	journal   settlement.Journal
	log       *slog.Logger
	now       func() time.Time

	queue      queue
	turns      turns
	parcels    parcels
	costs      costs
	aloft      aloft
	flights    flights
	candidates candidates
	recent     memory[[32]byte, verdict]
	// isolated are payers whose payments travel alone.
	isolated memory[common.Address, struct{}]
	// burned says when code of payers last accepted a transfer that then failed at our cost.
	burned memory[common.Address, time.Time]
	// gasPerPayment is what a payment took in the batches that were mined, the most that was seen.
	gasPerPayment atomic.Uint64
	// mined remembers which transactions had a receipt, to notice when one vanishes.
	mined memory[common.Hash, uint64]
	// freed are transactions of ours that were replaced by one that only frees the nonce.
	freed  memory[common.Hash, struct{}]
	losses losses
	// reviews looks again at many settled payments at once.
	reviews proof.Reviews

	token, multicall contract

	mu       sync.RWMutex
	settings Settings
	closed   bool
	wg       sync.WaitGroup // callers

	// ctx ends with Close; lanes and parcels run under it.
	ctx    context.Context
	cancel context.CancelFunc
	crew   sync.WaitGroup
	start  sync.Once
}

var _ settlement.Settler = (*Settler)(nil)

// New makes a settler. It asks and sends nothing yet.
func New(cfg Config) (*Settler, error) {
	switch {
	case len(cfg.Signers) == 0:
		return nil, errors.New("wallet: no key")
	case cfg.Chain == nil || cfg.Journal == nil:
		return nil, errors.New("wallet: no chain or no journal")
	case cfg.Network.ChainID == 0:
		return nil, errors.New("wallet: no network")
	}
	s := &Settler{
		network: cfg.Network, separator: cfg.Network.Domain().Separator(),
		chain: cfg.Chain, journal: cfg.Journal, log: cfg.Logger, now: cfg.Now,
	}
	for _, signer := range cfg.Signers {
		if s.laneOf(signer.Address()) != nil {
			return nil, fmt.Errorf("wallet: %s is there twice", signer.Address())
		}
		s.lanes = append(s.lanes, newLane(signer))
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.token.init(cfg.Network.Asset.Address)
	s.multicall.init(multicall.Address)
	s.queue.init()
	s.losses.turn = newLock()
	s.reviews.Now = s.now
	s.flights.byKey = make(map[[32]byte]*flight)
	s.Reconfigure(cfg.Settings)
	return s, nil
}

// laneOf is the lane of a wallet; nil if it is not ours.
func (s *Settler) laneOf(wallet common.Address) *lane {
	for _, l := range s.lanes {
		if l.address == wallet {
			return l
		}
	}
	return nil
}

// Reconfigure puts new settings in force for what begins from now on.
func (s *Settler) Reconfigure(n Settings) {
	if n.MaxFeePerGas == nil {
		n.MaxFeePerGas = big.NewInt(500_000_000_000)
	}
	n.GasLimit = cmp.Or(n.GasLimit, 200_000)
	n.ContractGas = cmp.Or(n.ContractGas, 600_000)
	n.Rebroadcast = cmp.Or(n.Rebroadcast, 4*time.Second)
	n.Batch = cmp.Or(n.Batch, 100)
	n.BatchGas = cmp.Or(n.BatchGas, 12_000_000)
	n.InFlight = cmp.Or(n.InFlight, 12)
	n.Linger = cmp.Or(n.Linger, 100*time.Millisecond)
	n.Queue = cmp.Or(n.Queue, 4096)
	n.StuckAfter = cmp.Or(n.StuckAfter, 20*time.Second)
	n.Lookback = cmp.Or(n.Lookback, 24*time.Hour)
	s.mu.Lock()
	s.settings = n
	s.mu.Unlock()
	s.queue.resize(n.Queue)
}

func (s *Settler) set() Settings {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.settings
}

// Addresses are the wallets', in the order of Config.Signers.
func (s *Settler) Addresses() []common.Address {
	all := make([]common.Address, len(s.lanes))
	for i, l := range s.lanes {
		all[i] = l.address
	}
	return all
}

// Close waits for the calls that are under way; callers' contexts bound that. What is called later gives
// settlement.ErrUnavailable. Transactions that are recorded and not mined are looked after by whoever reconciles.
func (s *Settler) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wg.Wait()
	s.cancel()
	s.crew.Wait()
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

// Ready answers nil when payments can be settled now: one of the wallets has gas.
func (s *Settler) Ready(ctx context.Context) error {
	done, err := s.enter()
	if err != nil {
		return err
	}
	defer done()
	var id uint64
	queries := []*chain.Query{chain.IDQuery(&id)}
	balances, counts := make([]big.Int, len(s.lanes)), make([]uint64, len(s.lanes))
	for i, l := range s.lanes {
		queries = append(queries, chain.BalanceQuery(l.address, &balances[i]), chain.CountQuery(l.address, &counts[i]))
	}
	if _, err := s.chain.Ask(ctx, queries...); err != nil {
		return err
	}
	if id != s.network.ChainID {
		return &chain.MismatchError{
			What: "chain id", Configured: fmt.Sprint(s.network.ChainID), Chain: fmt.Sprint(id),
		}
	}
	var problems []error
	for i, l := range s.lanes {
		l.saw(&balances[i], counts[i], s.now())
		if err := s.enoughGas(ctx, l, &balances[i]); err != nil {
			problems = append(problems, err)
		}
	}
	if len(problems) < len(s.lanes) {
		return s.solvent()
	}
	return errors.Join(problems...)
}

// solvent is nil if another payment's gas may be spent within the hour, at the fees that were last seen.
func (s *Settler) solvent() error {
	set, one := s.set(), new(big.Int)
	for _, l := range s.lanes {
		if st := l.last.Load(); st != nil {
			one.Mul(st.maxFee, new(big.Int).SetUint64(set.GasLimit))
		}
	}
	return s.costs.room(s.now(), one, set.SpendPerHour)
}

// fits refuses an intent for another network: a mistake of ours, not of the payer.
func (s *Settler) fits(in settlement.Intent) error {
	if in.Network.ChainID != s.network.ChainID || in.Network.Asset.Address != s.network.Asset.Address {
		return fmt.Errorf("wallet: a payment on %s in %s came to the settler of %s in %s",
			in.Network.ID, in.Network.Asset.Address, s.network.ID, s.network.Asset.Address)
	}
	return nil
}

// Balance is what a wallet had at some time.
type Balance struct {
	Wallet common.Address
	// Wei is nil until the wallet was first asked for.
	Wei *big.Int
	// Mined is how many of its transactions had been mined.
	Mined uint64
	At    time.Time
}

// Balances are the wallets', as they were seen last, in the order of Config.Signers.
func (s *Settler) Balances() []Balance {
	all := make([]Balance, len(s.lanes))
	for i, l := range s.lanes {
		all[i] = l.balance()
	}
	return all
}
