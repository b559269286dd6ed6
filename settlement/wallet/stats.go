package wallet

import (
	"math/big"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// Stats is what a Settler is at, for metrics. Nobody is asked for it.
type Stats struct {
	// Queued is how many payments wait for a transaction, Queue how many may.
	Queued, Queue int
	// WarnBalance, HardBalance and MaxFeePerGas are those of the settings, in wei; a balance is nil where there is no such bound.
	WarnBalance, HardBalance, MaxFeePerGas *big.Int
	// FeePerGas is the most that a unit of gas would be paid for, in wei, as it was found last; nil until then.
	FeePerGas *big.Int
	// Lanes are the wallets, in the order of Config.Signers.
	Lanes []LaneStats
}

// LaneStats is of one wallet.
type LaneStats struct {
	Balance
	// InFlight is how many transactions are under way from this process, and Oldest when the first of them was made; zero: there is none.
	InFlight int
	Oldest   time.Time
}

// sighting is what was last seen of a wallet.
type sighting struct {
	wei   *big.Int
	count uint64
	at    time.Time
}

// saw notes what the chain says of the wallet.
func (l *lane) saw(wei *big.Int, count uint64, at time.Time) {
	l.seen.Store(&sighting{wei: new(big.Int).Set(wei), count: count, at: at})
}

// balance is what the wallet had when it was last looked at.
func (l *lane) balance() Balance {
	b := Balance{Wallet: l.address}
	if seen := l.seen.Load(); seen != nil {
		b.Wei, b.Mined, b.At = new(big.Int).Set(seen.wei), seen.count, seen.at
	}
	return b
}

// Stats tells what the settler is at.
func (s *Settler) Stats() Stats {
	set := s.set()
	out := Stats{
		Queue: set.Queue, WarnBalance: set.WarnBalance, HardBalance: set.HardBalance, MaxFeePerGas: set.MaxFeePerGas,
		Lanes: make([]LaneStats, len(s.lanes)),
	}
	out.Queued, _ = s.queue.look()
	oldest := s.parcels.oldest()
	var newest time.Time
	for i, l := range s.lanes {
		at := &out.Lanes[i]
		at.Balance, at.InFlight, at.Oldest = l.balance(), int(l.flying.Load()), oldest[l.address]
		if st := l.last.Load(); st != nil && st.at.After(newest) {
			newest, out.FeePerGas = st.at, st.maxFee
		}
	}
	return out
}

// oldest is when the first of each wallet's transactions was made that are carried here.
func (ps *parcels) oldest() map[common.Address]time.Time {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	out := make(map[common.Address]time.Time)
	for at, p := range ps.m {
		if was, ok := out[at.wallet]; !ok || p.first.CreatedAt.Before(was) {
			out[at.wallet] = p.first.CreatedAt
		}
	}
	return out
}
