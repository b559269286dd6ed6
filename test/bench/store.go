package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/postgres"
	"github.com/caddy-x402/caddy-x402/ledger/redis"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/test/service"
	"github.com/caddy-x402/caddy-x402/x402"
)

// store is an empty ledger.
type store struct {
	line string // what stands after `store`
	open func(context.Context) (ledger.Store, error)
	end  func() error // of what it needs
}

// newStore makes a ledger; what it keeps in files is in dir.
func (s *stage) newStore(ctx context.Context, dir string) (store, error) {
	nothing := func() error { return nil }
	switch s.store {
	case "sqlite":
		file := filepath.Join(dir, "ledger.db")
		return store{"sqlite " + file, func(ctx context.Context) (ledger.Store, error) {
			return sqlite.Open(ctx, file, sqlite.Options{})
		}, nothing}, nil
	case "postgres":
		name, err := s.postgres.CreateDatabase(ctx, "")
		if err != nil {
			return store{}, err
		}
		url := s.postgres.URL(name)
		return store{"postgres " + strconv.Quote(url), func(ctx context.Context) (ledger.Store, error) {
			return postgres.Open(ctx, url, postgres.Options{})
		}, nothing}, nil
	case "redis":
		server, err := service.StartRedis(ctx, service.RedisOptions{})
		if err != nil {
			return store{}, err
		}
		return store{"redis " + server.URL(), func(ctx context.Context) (ledger.Store, error) {
			return redis.Open(ctx, server.URL(), redis.Options{Durable: true})
		}, server.Stop}, nil
	}
	return store{}, fmt.Errorf("BENCH_STORE: %q is none of sqlite, postgres, redis", s.store)
}

// probe measures claims, each on the disk before it counts, by one caller.
func (s *store) probe(ctx context.Context) (l latencies, err error) {
	const claims = 200
	opened, err := s.open(ctx)
	if err != nil {
		return l, fmt.Errorf("measuring a claim: %w", err)
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	took := make([]time.Duration, claims)
	for i := range took {
		payer := devnet.Payer(0).Address
		p := ledger.Payment{
			AuthorizationID: x402.AuthorizationID{ChainID: devnet.ChainID, Asset: devnet.TokenAddress, Payer: payer},
			PayTo:           payTo, Amount: *uint256.NewInt(price), ValidBefore: uint64(time.Now().Add(validity).Unix()),
			Binding: ledger.Binding{Route: "paid", Method: "GET", Host: "example.com", URI: "/paid"}, Flow: ledger.FlowUpfront,
		}
		if _, err := rand.Read(p.Nonce[:]); err != nil {
			return l, fmt.Errorf("a nonce: %w", err)
		}
		if p.ID, err = ledger.NewID(rand.Reader, payer); err != nil {
			return l, err
		}
		began := time.Now()
		if _, err := opened.Claim(ctx, p, ledger.Change{Actor: "bench", Hold: time.Minute}); err != nil {
			return l, fmt.Errorf("measuring a claim: %w", err)
		}
		took[i] = time.Since(began)
	}
	return latenciesOf(took), nil
}
