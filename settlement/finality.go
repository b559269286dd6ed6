package settlement

import (
	"fmt"

	"github.com/holiman/uint256"
)

// Finality is how deep the block of a transfer must lie before the transfer counts. The zero value takes the newest block.
type Finality struct {
	// Confirmations counts blocks, the transfer's own among them; 0 is as good as 1.
	Confirmations uint64
	// Safe demands that the node calls the block safe.
	Safe bool
}

// Newest reports whether any block will do.
func (f Finality) Newest() bool { return !f.Safe && f.Confirmations <= 1 }

// Lacks is how many blocks must follow, on a chain whose newest block is head and whose newest safe one is safe, until a transfer
// in block counts; 0: it does. A block that is safe is deep enough for every demand. For Safe it is a guess: safe blocks come
// when the chain below says so. safe may be 0 where only confirmations are demanded.
func (f Finality) Lacks(block, head, safe uint64) uint64 {
	if block <= safe {
		return 0
	}
	if f.Safe {
		return block - safe
	}
	deep := max(f.Confirmations, 1) - 1 // blocks on top of it
	if top := head - min(head, block); head >= block && top >= deep {
		return 0
	}
	return block + deep - head
}

// Less reports whether f demands less than o. Nothing demands more than Safe.
func (f Finality) Less(o Finality) bool {
	if f.Safe || o.Safe {
		return o.Safe && !f.Safe
	}
	return max(f.Confirmations, 1) < max(o.Confirmations, 1)
}

// String gives the words for people.
func (f Finality) String() string {
	switch {
	case f.Safe:
		return "safe"
	case f.Newest():
		return "latest"
	}
	return fmt.Sprintf("%d confirmations", f.Confirmations)
}

// Demand is what payments of more than an amount, in atomic units, must have.
type Demand struct {
	Above    uint256.Int
	Finality Finality
}

// Demands are by rising amounts.
type Demands []Demand

// Of is what is demanded of a payment of amount: by the last one whose bound it exceeds.
func (ds Demands) Of(amount *uint256.Int) (f Finality) {
	for i := range ds {
		if amount.Gt(&ds[i].Above) {
			f = ds[i].Finality
		}
	}
	return f
}
