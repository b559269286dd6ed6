package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/postgres"
)

// What had expired and is made again while a sweep waits for it stays: a reservation that is lost would let something be bought twice.
func TestSweepMeetsWhatIsMadeAgain(t *testing.T) {
	name := database(t)
	before := open(t, appURL(name), postgres.Options{Now: func() time.Time { return time.Now().Add(-time.Hour) }})
	s := open(t, appURL(name), postgres.Options{})
	conn, err := pgx.Connect(t.Context(), server.URL(name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for table, expire := range map[string]func() error{
		"reservations": func() error {
			_, err := before.Reserve(t.Context(), ledger.Reservation{Key: common.Hash{1}, Payment: "pay_a"}, "", time.Minute)
			return err
		},
		"allowances": func() error {
			d := ledger.Draw{Key: common.Hash{1}, Want: *uint256.NewInt(1), Limit: *uint256.NewInt(1), Until: before.Now().Add(time.Minute)}
			_, _, err := before.Draw(t.Context(), d)
			return err
		},
		"objects": func() error {
			_, err := before.PutObject(t.Context(), ledger.Object{Kind: "key", ID: "a", Body: []byte("1"), Expires: before.Now().Add(time.Minute)})
			return err
		},
	} {
		if err := expire(); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "BEGIN; UPDATE "+table+" SET expires_at = expires_at * 2"); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := s.Sweep(t.Context(), 0, 10)
			done <- err
		}()
		for one[int](t, server.URL(name), "SELECT count(*) FROM pg_locks WHERE NOT granted") == 0 {
			select {
			case err := <-done:
				t.Fatalf("%s: the sweep did not wait: %v", table, err)
			default:
			}
		}
		if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", table, err)
		}
		if n := one[int](t, server.URL(name), "SELECT count(*) FROM "+table); n != 1 {
			t.Errorf("%s: what was made again was swept", table)
		}
	}
}
