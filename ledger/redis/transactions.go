package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// lane is what is known of a wallet, for a transaction that it wants to record.
type lane struct {
	key string
	// next is the next nonce as it stands there; empty: none is known.
	next string
	had  string // the transaction, if its hash is recorded
	// rivals are the hashes that were recorded with its nonce, 32 bytes each.
	rivals string
}

func nonceField(nonce uint64) string { return "u" + strconv.FormatUint(nonce, 10) }

func (s *Store) lane(ctx context.Context, t *ledger.Transaction) (*lane, error) {
	l := &lane{key: s.keys.wallet(t.ChainID, t.Wallet)}
	c := l.fields("n", "t"+string(t.Hash[:]), nonceField(t.Nonce))
	if err := s.one(ctx, c); err != nil {
		return nil, err
	}
	l.take(c)
	return l, nil
}

// fields is the call that reads fields of the wallet.
func (l *lane) fields(names ...string) *call {
	args := make([]any, len(names))
	for i, n := range names {
		args[i] = n
	}
	return reading("fields", []string{l.key + ":f", l.key}, args...)
}

func (l *lane) take(c *call) {
	got := append(c.texts(1), "", "", "")
	l.next, l.had, l.rivals = got[0], got[1], got[2]
}

// Nonce implements ledger.Store.
func (s *Store) Nonce(ctx context.Context, chainID uint64, wallet common.Address) (nonce uint64, known bool, err error) {
	if err := s.enter(ctx); err != nil {
		return 0, false, err
	}
	defer s.leave()
	l, err := s.lane(ctx, &ledger.Transaction{ChainID: chainID, Wallet: wallet})
	if err != nil || l.next == "" {
		return 0, false, err
	}
	nonce, err = strconv.ParseUint(l.next, 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("%w: the nonce of %s", errDamaged, wallet)
	}
	return nonce, true, nil
}

// AdvanceNonce implements ledger.Store.
func (s *Store) AdvanceNonce(ctx context.Context, chainID uint64, wallet common.Address, to uint64) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	return s.raise(ctx, chainID, wallet, to)
}

func (s *Store) raise(ctx context.Context, chainID uint64, wallet common.Address, to uint64) error {
	for {
		l, err := s.lane(ctx, &ledger.Transaction{ChainID: chainID, Wallet: wallet})
		if err != nil {
			return err
		}
		if l.next == "" {
			if err := s.introduce(ctx, chainID, wallet, false); err != nil {
				return err
			}
		} else if err := s.complete(ctx); err != nil {
			return err
		} else if next, err := strconv.ParseUint(l.next, 10, 64); err != nil {
			return fmt.Errorf("%w: the nonce of %s", errDamaged, wallet)
		} else if next >= to {
			return nil
		}
		c := writing("raise", []string{l.key + ":f", l.key}, l.next, strconv.FormatUint(to, 10))
		if err := s.one(ctx, c); err != nil || c.what() == "OK" {
			return err
		}
	}
}

// introduce adds a wallet to the list of all, before anything is recorded for it.
func (s *Store) introduce(ctx context.Context, chainID uint64, wallet common.Address, imported bool) error {
	c := writing("introduce", []string{s.keys.wallets(), s.keys.meta()},
		fmt.Sprintf("%d:%s", chainID, strings.ToLower(wallet.Hex()[2:])), flag(imported))
	if err := s.one(ctx, c); err != nil {
		return err
	}
	if c.what() != "OK" {
		return ledger.ErrIncomplete
	}
	return nil
}

// sent reads transactions from their wallets; one that is not there is nil.
func (s *Store) sent(ctx context.Context, refs ...ref) ([]*sent, error) {
	calls := make([]*call, len(refs))
	for i, r := range refs {
		l := lane{key: s.keys.wallet(r.chain, r.wallet)}
		calls[i] = l.fields("t" + string(r.hash[:]))
	}
	if err := s.ask(ctx, calls...); err != nil {
		return nil, err
	}
	got := make([]*sent, len(refs))
	for i, r := range refs {
		v := append(calls[i].texts(1), "")[0]
		if v == "" {
			continue
		}
		t, err := parseSent(v, r)
		if err != nil {
			return nil, err
		}
		got[i] = &t
	}
	return got, nil
}

// Transactions implements ledger.Store.
func (s *Store) Transactions(ctx context.Context, paymentID string) ([]ledger.Transaction, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	p, err := s.read(ctx, paymentID)
	switch {
	case isNotFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return s.transactions(ctx, p)
}

func (s *Store) transactions(ctx context.Context, p *stored) ([]ledger.Transaction, error) {
	if len(p.refs) == 0 {
		return nil, nil
	}
	got, err := s.sent(ctx, p.refs...)
	if err != nil {
		return nil, err
	}
	var ts []ledger.Transaction
	for _, t := range got {
		if t != nil {
			ts = append(ts, t.Transaction)
		}
	}
	return ts, nil
}

// hashes cuts the list of those that were recorded with one nonce.
func (l *lane) hashes() []common.Hash {
	var got []common.Hash
	for h := range slices.Chunk([]byte(l.rivals), common.HashLength) {
		got = append(got, common.BytesToHash(h))
	}
	return got
}
