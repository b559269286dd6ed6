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
	mu   sync.Mutex
	list []cost // oldest first
}

type cost struct {
	place place
	at    time.Time
	wei   *big.Int
}

var errSpent = fmt.Errorf("%w: the wallets have spent as much on gas in the last hour as they may", settlement.ErrUnavailable)

func (c *costs) sum(now time.Time) *big.Int {
	for len(c.list) > 0 && now.Sub(c.list[0].at) >= time.Hour {
		c.list = c.list[1:]
	}
	sum := new(big.Int)
	for _, x := range c.list {
		sum.Add(sum, x.wei)
	}
	return sum
}

// room is nil if something may still be spent.
func (c *costs) room(now time.Time, limit *big.Int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if limit != nil && c.sum(now).Cmp(limit) >= 0 {
		return errSpent
	}
	return nil
}

// reserve notes that up to wei will be spent at a place, if that is not more than the limit allows.
func (c *costs) reserve(now time.Time, at place, wei, limit *big.Int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sum := c.sum(now); limit != nil && sum.Add(sum, wei).Cmp(limit) > 0 {
		return errSpent
	}
	c.list = append(c.list, cost{at, now, wei})
	return nil
}

// settle notes what was spent there in the end; nil: nothing.
func (c *costs) settle(at place, wei *big.Int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.list, func(x cost) bool { return x.place == at })
	switch {
	case i < 0:
	case wei == nil:
		c.list = slices.Delete(c.list, i, i+1)
	default:
		c.list[i].wei = wei
	}
}
