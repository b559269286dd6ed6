package facilitator

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
)

// handed is the content of a note: which facilitator was given a payment. Of the payload it has nothing: that holds the
// echo with which the payer comes back.
type handed struct {
	Facilitator string `json:"facilitator"` // remote.id
	Host        string `json:"host"`        // for whoever reads it
}

// desks write notes into the journal. Each writes one after another, so there are several.
type desks struct {
	next atomic.Uint32
	all  [8]desk
}

// desk numbers its notes under an address that nobody else has: a random one, anew in each process. So no two processes
// ever wait for one another, and the journal keeps one number for each desk, not one for each payment.
type desk struct {
	mu      sync.Mutex
	address common.Address
	nonce   uint64
}

// hand notes, durable when it returns, that r is given the payment. settlement.ErrNotClaimed: the ledger does not want it
// settled any more. After any other error nothing may be handed over either.
func (s *Settler) hand(ctx context.Context, in settlement.Intent, r *remote) error {
	content, err := json.Marshal(handed{Facilitator: r.id, Host: r.host})
	if err != nil {
		return fmt.Errorf("writing a note: %w", err)
	}
	d := &s.desks.all[s.desks.next.Add(1)%uint32(len(s.desks.all))]
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.address == (common.Address{}) {
		if _, err := rand.Read(d.address[:]); err != nil {
			return fmt.Errorf("naming a desk: %w", err)
		}
	}
	err = s.journal.Record(ctx, settlement.NewNote(s.network.ChainID, d.address, d.nonce, in.Payment, content))
	switch {
	case err == nil:
		d.nonce++
	case !errors.Is(err, settlement.ErrNotClaimed):
		// Whether it was written nobody knows, so the number is spoilt. The next note begins a new sequence.
		d.address, d.nonce = common.Address{}, 0
	}
	return err
}

// history is what was recorded for a payment before.
type history struct {
	// last is the id of the facilitator that was handed it last; empty if none was.
	last string
	// own are transactions of a wallet that had the payment before us.
	own []settlement.Transaction
}

func (s *Settler) history(ctx context.Context, payment string) (history, error) {
	var h history
	txs, err := s.journal.Transactions(ctx, payment)
	if err != nil {
		return h, unavailable(err)
	}
	for i := range txs {
		content, ok := txs[i].Note()
		if !ok {
			h.own = append(h.own, txs[i])
			continue
		}
		var n handed
		if err := json.Unmarshal(content, &n); err != nil || n.Facilitator == "" {
			n.Facilitator = "unreadable"
		}
		h.last = n.Facilitator
	}
	return h, nil
}

func (h *history) begun() bool { return h.last != "" || len(h.own) > 0 }

// rebroadcast gives the transactions of another wallet to the chain, which may not have them.
func (s *Settler) rebroadcast(ctx context.Context, txs []settlement.Transaction) {
	for _, tx := range txs {
		if status, err := s.chain.SendRaw(ctx, tx.Raw); err != nil {
			s.log.DebugContext(ctx, "a recorded transaction was not taken", "transaction", tx.Hash, "status", status.String(), "error", err)
		}
	}
}
