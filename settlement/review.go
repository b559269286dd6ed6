package settlement

import (
	"context"

	"github.com/ethereum/go-ethereum/common"
)

// Standing is a payment that was sent to the chain, and what is known of where it is there.
type Standing struct {
	Intent Intent
	// Transaction, Block and BlockHash are the transfer's, as an Outcome told; zero if it was not seen yet.
	Transaction common.Hash
	Block       uint64
	BlockHash   common.Hash
	// Candidates are more transactions that may hold it.
	Candidates []common.Hash
}

// Transactions are all that may hold the payment.
func (s *Standing) Transactions() []common.Hash {
	if s.Transaction == (common.Hash{}) {
		return s.Candidates
	}
	return append([]common.Hash{s.Transaction}, s.Candidates...)
}

// Reviewer is a Settler that can look at many payments at once, at the price of a look at one of each block or transaction.
type Reviewer interface {
	// Review says what became of payments, as Resolve would; it sends nothing. nil: that one needs Resolve. An error, which
	// wraps ErrUnavailable, is for all of them. It may add to the Candidates of the list.
	Review(ctx context.Context, list []Standing) ([]*Outcome, error)
}
