package wallet

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/settlement"
)

// fees of a transaction (EIP-1559), in wei per unit of gas.
type fees struct{ max, tip *big.Int }

// errCeiling: fees high enough to replace a transaction are above the configured ceiling.
var errCeiling = errors.New("wallet: the gas price ceiling")

// raised are fees that replace f: both higher by an eighth, where nodes ask for a tenth, and no lower than what the chain
// asks for now.
func (f fees) raised(now fees, ceiling *big.Int) (fees, error) {
	tip := larger(raise(f.tip), now.tip)
	most := new(big.Int).Sub(now.max, now.tip)
	most = larger(raise(f.max), most.Add(most, tip))
	if most.Cmp(ceiling) > 0 {
		return fees{}, fmt.Errorf("%w: %s wei are needed, it is %s", errCeiling, most, ceiling)
	}
	return fees{max: most, tip: tip}, nil
}

func raise(x *big.Int) *big.Int {
	more := new(big.Int).Rsh(x, 3)
	more.Add(more, big.NewInt(1))
	return more.Add(more, x)
}

func larger(a, b *big.Int) *big.Int {
	if a.Cmp(b) < 0 {
		return new(big.Int).Set(b)
	}
	return a
}

// costs is what was spent on gas in the last hour; for what is under way, the most that it can cost.
type costs struct {
	mu    sync.Mutex
	list  []cost // oldest first
	total big.Int
}

type cost struct {
	place place
	at    time.Time
	wei   *big.Int
}

var errSpent = fmt.Errorf("%w: the wallets have spent as much on gas in the last hour as they may", settlement.ErrUnavailable)

// recent gives the sum, without what was spent earlier.
func (c *costs) recent(now time.Time) *big.Int {
	for len(c.list) > 0 && now.Sub(c.list[0].at) >= time.Hour {
		c.total.Sub(&c.total, c.list[0].wei)
		c.list = c.list[1:]
	}
	return &c.total
}

// room is nil if more than wei may still be spent.
func (c *costs) room(now time.Time, wei, limit *big.Int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if limit != nil && new(big.Int).Add(c.recent(now), wei).Cmp(limit) >= 0 {
		return errSpent
	}
	return nil
}

// reserve notes that up to wei will be spent at a place, if that is not more than the limit allows. What was reserved there before
// was never recorded: one transaction is mined there.
func (c *costs) reserve(now time.Time, at place, wei, limit *big.Int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := new(big.Int).Add(c.recent(now), wei)
	i := slices.IndexFunc(c.list, func(x cost) bool { return x.place == at })
	if i >= 0 {
		sum.Sub(sum, c.list[i].wei)
	}
	if limit != nil && sum.Cmp(limit) > 0 {
		return errSpent
	}
	if i >= 0 {
		c.list = slices.Delete(c.list, i, i+1)
	}
	c.list = append(c.list, cost{at, now, wei})
	c.total.Set(sum)
	return nil
}

// settle notes what was spent there in the end; nil: nothing.
func (c *costs) settle(at place, wei *big.Int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.list, func(x cost) bool { return x.place == at })
	if i < 0 {
		return
	}
	c.total.Sub(&c.total, c.list[i].wei)
	if wei == nil {
		c.list = slices.Delete(c.list, i, i+1)
		return
	}
	c.total.Add(&c.total, wei)
	c.list[i].wei = wei
}
