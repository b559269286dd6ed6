package redis

import (
	"context"
	"strconv"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Unserved implements ledger.Store.
func (s *Store) Unserved(ctx context.Context, like ledger.Payment, limit int) ([]ledger.Payment, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	return s.listed(ctx, like.Payer, s.keys.unserved(&like), "ZRANGEBYSCORE", "-inf", "+inf", limit, func(p *ledger.Payment) bool {
		a, b := p.Binding, like.Binding
		return p.Unserved() && p.Payer == like.Payer && p.ChainID == like.ChainID && p.Asset == like.Asset && p.Amount == like.Amount &&
			a.Route == b.Route && a.Plan == b.Plan && a.Host == b.Host
	})
}

// LivePlans implements ledger.Store.
func (s *Store) LivePlans(ctx context.Context, payer common.Address, route, host string, limit int) ([]ledger.Payment, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	now := s.clock.now()
	return s.listed(ctx, payer, s.keys.plans(payer, route, host), "ZREVRANGEBYSCORE", "+inf", "("+micros(now), limit,
		func(p *ledger.Payment) bool {
			return p.Payer == payer && p.Binding.Route == route && p.Binding.Host == host &&
				p.Delivery == ledger.Delivered && p.PlanUntil.After(now)
		})
}

// listPage is how many payments are read from an index at once.
const listPage = 100

// listed reads the payments of one index of a payer that want accepts.
func (s *Store) listed(
	ctx context.Context, payer common.Address, index, command, from, to string, limit int, want func(*ledger.Payment) bool,
) ([]ledger.Payment, error) {
	part := partitionOfPayer(payer)
	var got []ledger.Payment
	for offset := 0; len(got) < limit; {
		page := min(limit, listPage)
		c := reading("list", []string{s.keys.part(part, floorKey), index}, s.keys.paymentPrefix(part), command, from, to,
			strconv.Itoa(offset), strconv.Itoa(page))
		if err := s.one(ctx, c); err != nil {
			return nil, err
		}
		values := c.texts(1)
		for _, v := range values {
			if v == "" {
				continue
			}
			p, err := parse(v)
			if err != nil {
				return nil, err
			}
			if p, err = s.seen(ctx, p); err != nil {
				return nil, err
			}
			if want(&p.payment) && len(got) < limit {
				got = append(got, p.payment)
			}
		}
		if len(values) < page {
			break
		}
		offset += page
	}
	return got, nil
}
