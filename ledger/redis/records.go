package redis

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// idCache is what Records knows of the part that it read last: its ids in their order, as long as none was made or forgotten
// there. An index in Redis for what only exports ask would cost a hundred bytes of memory for every payment.
type idCache struct {
	mu   sync.Mutex
	part int
	born string
	ids  []string
}

// sorted gives the ids of a part in their order.
func (s *Store) sorted(ctx context.Context, part int) ([]string, error) {
	s.ids.mu.Lock()
	defer s.ids.mu.Unlock()
	known := ""
	if s.ids.part == part {
		known = s.ids.born
	}
	names := append([]string{s.keys.part(part, floorKey), s.keys.part(part, bornKey)}, s.keys.states(part)...)
	c := reading("ids", names, known)
	if err := s.one(ctx, c); err != nil {
		return nil, err
	}
	if c.what() != "SAME" {
		ids := c.texts(2)
		slices.Sort(ids)
		s.ids.part, s.ids.born, s.ids.ids = part, c.text(1), ids
	}
	return s.ids.ids, nil
}

// Records implements ledger.Store. The order of parts is the order of ids.
func (s *Store) Records(ctx context.Context, after string, limit int) ([]ledger.Record, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	var got []ledger.Record
	for part := range partitions {
		if last, ok := partitionOf(after); ok && part < last {
			continue
		}
		for len(got) < limit {
			ids, err := s.sorted(ctx, part)
			if err != nil {
				return nil, err
			}
			i := len(ids)
			if after < idPrefix {
				i = 0
			} else if rest, ok := strings.CutPrefix(after, idPrefix); ok {
				i, _ = slices.BinarySearch(ids, rest)
				if i < len(ids) && ids[i] == rest {
					i++
				}
			}
			page := ids[i:min(len(ids), i+limit-len(got))]
			if len(page) == 0 {
				break
			}
			records, err := s.records(ctx, page)
			if err != nil {
				return nil, err
			}
			got = append(got, records...)
			after = idPrefix + page[len(page)-1]
		}
	}
	return got, nil
}

// records reads payments with all that is theirs.
func (s *Store) records(ctx context.Context, shorts []string) ([]ledger.Record, error) {
	ids := make([]string, len(shorts))
	for i, id := range shorts {
		ids[i] = idPrefix + id
	}
	found, err := s.found(ctx, ids)
	if err != nil {
		return nil, err
	}
	var refs []ref
	for _, p := range found {
		refs = append(refs, p.refs...)
	}
	sent := make([]*sent, 0, len(refs))
	for chunk := range slices.Chunk(refs, listPage) {
		some, err := s.sent(ctx, chunk...)
		if err != nil {
			return nil, err
		}
		sent = append(sent, some...)
	}
	got := make([]ledger.Record, 0, len(found))
	for _, p := range found {
		r := ledger.Record{Payment: p.payment}
		if r.Trail, err = p.story(); err != nil {
			return nil, err
		}
		for range p.refs {
			if sent[0] != nil {
				r.Transactions = append(r.Transactions, sent[0].Transaction)
			}
			sent = sent[1:]
		}
		got = append(got, r)
	}
	return got, nil
}

// Wallets implements ledger.Store.
func (s *Store) Wallets(ctx context.Context) ([]ledger.Wallet, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	c := reading("set", []string{s.keys.wallets(), s.keys.wallets()})
	if err := s.one(ctx, c); err != nil {
		return nil, err
	}
	var got []ledger.Wallet
	for _, name := range c.texts(1) {
		chain, address, _ := strings.Cut(name, ":")
		n, err := strconv.ParseUint(chain, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: the wallet %s", errDamaged, name)
		}
		w, known, err := s.wallet(ctx, n, common.HexToAddress(address))
		if err != nil {
			return nil, err
		}
		if known {
			got = append(got, w)
		}
	}
	slices.SortFunc(got, func(a, b ledger.Wallet) int {
		return cmp.Or(cmp.Compare(a.ChainID, b.ChainID), a.Address.Cmp(b.Address))
	})
	return got, nil
}

// wallet reads one; known is false as long as it has no nonce.
func (s *Store) wallet(ctx context.Context, chain uint64, address common.Address) (w ledger.Wallet, known bool, err error) {
	key := s.keys.wallet(chain, address)
	l := lane{key: key}
	next := l.fields("n")
	freed := reading("slice", []string{key + ":f", s.keys.freed(key)}, "0", "-1")
	if err := s.ask(ctx, next, freed); err != nil {
		return w, false, err
	}
	w.ChainID, w.Address = chain, address
	l.take(next)
	if l.next != "" {
		known = true
		if w.NextNonce, err = strconv.ParseUint(l.next, 10, 64); err != nil {
			return w, false, fmt.Errorf("%w: the nonce of %s", errDamaged, address)
		}
	}
	var refs []ref
	for _, h := range freed.texts(1) {
		refs = append(refs, ref{chain, address, common.BytesToHash([]byte(h))})
	}
	ts, err := s.sent(ctx, refs...)
	if err != nil {
		return w, false, err
	}
	for _, t := range ts {
		if t != nil {
			w.Freed = append(w.Freed, t.Transaction)
		}
	}
	return w, known, nil
}
