package wallet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/multicall"
	"github.com/caddy-x402/caddy-x402/settlement/proof"
	"github.com/caddy-x402/caddy-x402/x402"
)

var _ settlement.Surveyor = (*Settler)(nil)

// Survey implements settlement.Surveyor. It has a reason to look when
//   - the chain's count of the wallet's transactions is ahead of the journal: from the block where it got ahead;
//   - a recorded transaction is dead, since another one took its nonce: from the block of that one;
//   - the journal knows nothing of a wallet that was used: from Settings.Lookback before the head;
//   - q.Back asks for it.
//
// What was noticed is looked for twice: at once, and again when the head of then is safe, since blocks may change.
//
// It finds what the wallet, or q.Wallets, sent to the token for q.PayTo and the ledger does not know. It does not find
// payments to another payTo or in another token (their settlers do, if they notice), nor, without q.Back, what a
// store lost that still knows the wallet's nonce; and it can't know for whom the other payments to q.PayTo were. All that a
// wallet sends is taken for the ledger's: two ledgers must not share a wallet.
func (s *Settler) Survey(ctx context.Context, q settlement.Survey) (settlement.Surveyed, error) {
	l := &s.losses
	if err := l.turn.lock(ctx); err != nil {
		return settlement.Surveyed{}, unavailable(err)
	}
	defer l.turn.unlock()
	e, err := s.plan(ctx, q)
	if err != nil || e.todo == nil {
		return settlement.Surveyed{}, err
	}
	if e.noticed {
		l.repeat(e.todo.from, e.head)
	}
	l.going = e.todo
	sum, err := s.walk(ctx, q, e.todo, e.head)
	if err != nil {
		l.compared = time.Time{} // what is to be advanced is found out anew
		return sum, err
	}
	l.going = nil
	for wallet, nonce := range e.advance {
		// Not before: a process that dies here finds the same reason again.
		err = errors.Join(err, s.journal.Advance(ctx, s.network.ChainID, wallet, nonce))
	}
	return sum, err
}

// errand is what a survey is to do.
type errand struct {
	// todo are the blocks to look at, up to head; nil where there is no reason to.
	todo *stretch
	head uint64
	// noticed: something is missing, which is not only asked for.
	noticed bool
	// advance is what to raise the journal's nonces to at the end.
	advance map[common.Address]uint64
}

func (s *Settler) plan(ctx context.Context, q settlement.Survey) (e errand, err error) {
	done, err := s.enter()
	if err != nil {
		return errand{}, err
	}
	defer done()
	l := &s.losses
	if e.advance, err = s.compare(ctx, q.Back > 0); err != nil {
		return errand{}, err
	}
	g := l.take()
	e.noticed = g.any()
	if !e.noticed && q.Back <= 0 && l.going == nil && l.again == nil {
		return errand{}, nil
	}
	if e.todo, e.head, err = s.stretch(ctx, g, q.Back); err != nil {
		l.note(g)
		return errand{}, err
	}
	return e, nil
}

// stretch puts together what there is reason to look at.
func (s *Settler) stretch(ctx context.Context, g signs, back time.Duration) (todo *stretch, upTo uint64, err error) {
	l := &s.losses
	head, err := s.chain.Head(ctx)
	if err != nil {
		return nil, 0, err
	}
	from, ok, err := s.since(ctx, g, back, head)
	if err != nil {
		return nil, 0, err
	}
	if ok {
		todo = &stretch{from: from, next: from}
	}
	if l.going != nil {
		if todo == nil || l.going.from <= todo.from {
			todo = l.going
		}
		return todo, head.Number, nil
	}
	if l.again != nil {
		safe, err := s.chain.Safe(ctx)
		if err != nil {
			return nil, 0, err
		}
		if safe.Number >= l.again.next {
			if todo == nil || l.again.from < todo.from {
				todo = &stretch{from: l.again.from, next: l.again.from}
			}
			l.again = nil
		}
	}
	return todo, head.Number, nil
}

// The number of blocks that are looked at at once follows the number of payments in them.
const (
	firstPage, lastPage       = 8, 2000
	fewPayments, manyPayments = 500, 4000
)

// walk looks at the blocks of todo up to head, and moves todo on.
func (s *Settler) walk(ctx context.Context, q settlement.Survey, todo *stretch, head uint64) (settlement.Surveyed, error) {
	sum := settlement.Surveyed{From: todo.next, To: head}
	for span := uint64(firstPage); todo.next <= head; {
		to := min(head, todo.next+span-1)
		before := sum.Payments
		if err := s.page(ctx, q, todo.next, to, &sum); err != nil {
			return sum, err
		}
		todo.next = to + 1
		switch n := sum.Payments - before; {
		case n < fewPayments:
			span = min(2*span, lastPage)
		case n > manyPayments:
			span = max(span/2, 1)
		}
	}
	return sum, nil
}

// page looks at some blocks. Closing the wallet waits for it, not for the survey.
func (s *Settler) page(ctx context.Context, q settlement.Survey, from, to uint64, sum *settlement.Surveyed) error {
	done, err := s.enter()
	if err != nil {
		return err
	}
	defer done()
	paid, err := s.paidIn(ctx, q.PayTo, from, to)
	if err != nil {
		return err
	}
	sum.Payments += len(paid)
	var missing []movement
	var hashes []common.Hash
	for _, m := range paid {
		id := x402.AuthorizationID{ChainID: s.network.ChainID, Asset: s.network.Asset.Address, Payer: m.from, Nonce: m.nonce}
		known, err := q.Known(ctx, id)
		if err != nil {
			return err
		}
		if !known {
			missing = append(missing, m)
			hashes = append(hashes, m.transfer.TxHash)
		}
	}
	txs, err := s.chain.Transactions(ctx, hashes)
	if err != nil {
		return err
	}
	for i, m := range missing {
		if txs[i] == nil || txs[i].BlockHash != m.transfer.BlockHash {
			return proof.ErrReorganized
		}
		a, ours := s.sent(q, txs[i], m)
		if !ours {
			sum.Others++
			continue
		}
		sum.Found++
		if err := q.Found(ctx, settlement.Find{
			Authorization: a, Transaction: m.transfer.TxHash, Block: m.transfer.BlockNumber, BlockHash: m.transfer.BlockHash,
		}); err != nil {
			return err
		}
	}
	return nil
}

// movement is an authorization that was used, directly followed by the transfer that it is for.
type movement struct {
	from     common.Address
	nonce    common.Hash
	transfer types.Log
}

var errWrongLogs = fmt.Errorf("%w: the endpoint gave other logs than those that were asked for", settlement.ErrUnavailable)

// payersAtOnce bounds how many payers one question for logs names.
const payersAtOnce = 100

// paidIn lists the movements to payTo in some blocks. Transfers can be asked for by who gets them, authorizations only by
// who gave them: so first the ones, then the others.
func (s *Settler) paidIn(ctx context.Context, payTo common.Address, from, to uint64) ([]movement, error) {
	transfers, err := s.chain.Logs(ctx, chain.Filter{
		Address: s.network.Asset.Address, From: from, To: to,
		Topics: [][]common.Hash{{x402.TopicTransfer}, nil, {topic(payTo)}},
	})
	if err != nil {
		return nil, err
	}
	var payers []common.Hash
	seen := make(map[common.Hash]bool)
	for i := range transfers {
		l := &transfers[i]
		if len(l.Topics) != 3 || len(l.Data) != 32 || l.Address != s.network.Asset.Address {
			return nil, errWrongLogs
		}
		if p := l.Topics[1]; !seen[p] {
			seen[p] = true
			payers = append(payers, p)
		}
	}
	used := make(map[spot]common.Hash)
	for len(payers) > 0 {
		part := payers[:min(len(payers), payersAtOnce)]
		payers = payers[len(part):]
		logs, err := s.chain.Logs(ctx, chain.Filter{
			Address: s.network.Asset.Address, From: from, To: to,
			Topics: [][]common.Hash{{x402.TopicAuthorizationUsed}, part},
		})
		if err != nil {
			return nil, err
		}
		for _, l := range logs {
			if len(l.Topics) == 3 && l.Address == s.network.Asset.Address && l.Topics[0] == x402.TopicAuthorizationUsed {
				used[spot{l.BlockHash, l.TxHash, l.Index, l.Topics[1]}] = l.Topics[2]
			}
		}
	}
	var all []movement
	for _, l := range transfers {
		if nonce, ok := used[spot{l.BlockHash, l.TxHash, l.Index - 1, l.Topics[1]}]; ok && l.Index > 0 {
			all = append(all, movement{from: common.BytesToAddress(l.Topics[1][:]), nonce: nonce, transfer: l})
		}
	}
	return all, nil
}

// spot is where a log stands, and whose it is.
type spot struct {
	block, transaction common.Hash
	index              uint
	payer              common.Hash
}

// sent gives the authorization that t carried for m, if a wallet of ours sent t.
func (s *Settler) sent(q settlement.Survey, t *chain.Transaction, m movement) (x402.Authorization, bool) {
	ours := s.laneOf(t.From) != nil
	for _, w := range q.Wallets {
		ours = ours || t.From == w
	}
	if !ours {
		return x402.Authorization{}, false
	}
	for _, a := range s.carried(t) {
		if a.From == m.from && a.Nonce == m.nonce && topic(a.To) == m.transfer.Topics[2] &&
			common.Hash(a.Value.Bytes32()) == common.Hash(m.transfer.Data) {
			return a, true
		}
	}
	s.log.Warn("a wallet of ours moved money in a way that is not ours", "transaction", t.Hash, "wallet", t.From)
	return x402.Authorization{}, false
}

// carried lists the authorizations in a transaction's calldata. Whoever makes transactions of another form adds it here.
func (s *Settler) carried(t *chain.Transaction) []x402.Authorization {
	if t.To == nil {
		return nil
	}
	return s.authorizations(*t.To, t.Input)
}

// authorizations are those that a call of ours executes.
func (s *Settler) authorizations(to common.Address, data []byte) []x402.Authorization {
	calls := []multicall.Call{{Target: to, Data: data}}
	if to == multicall.Address {
		var err error
		if calls, err = multicall.ParseCalldata(data); err != nil {
			return nil
		}
	}
	var all []x402.Authorization
	for _, c := range calls {
		if a, _, err := x402.ParseTransferCalldata(c.Data); err == nil && c.Target == s.network.Asset.Address {
			all = append(all, a)
		}
	}
	return all
}
