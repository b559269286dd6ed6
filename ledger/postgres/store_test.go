package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/postgres"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// contractErrors are those that say that nothing was changed.
var contractErrors = []error{
	context.Canceled, context.DeadlineExceeded, ledger.ErrTransition, ledger.ErrFence, ledger.ErrConflict, ledger.ErrNotFound, ledger.ErrExists,
	ledger.ErrNonce, ledger.ErrIncomplete, ledger.ErrClosed,
}

// promises reports whether err says that nothing was changed.
func promises(err error) bool {
	for _, e := range contractErrors {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// own starts a server that the test may kill, with an empty ledger.
func own(t *testing.T, o service.PostgresOptions) (*service.Postgres, string) {
	t.Helper()
	p, err := service.StartPostgres(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	name, err := prepare(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	url := p.URLAs(appRole, appPassword, name)
	return p, url
}

// The server is killed under a load of claims, twice, and comes back with its data: every call returns, all that was
// acknowledged is there, and the store goes on by itself.
func TestServerKilledUnderLoad(t *testing.T) {
	p, url := own(t, service.PostgresOptions{})
	s := open(t, url, postgres.Options{})
	var mu sync.Mutex
	acknowledged := map[string]ledger.Payment{}
	for round := range 2 {
		var wg sync.WaitGroup
		var claimed atomic.Int64
		enough := make(chan struct{})
		for i := range uint64(32) {
			wg.Go(func() {
				for {
					p := fresh(t, i)
					got, err := s.Claim(t.Context(), p, ledger.Change{Hold: time.Minute})
					if err != nil {
						if promises(err) {
							t.Errorf("round %d: %v, although nobody can know that", round, err)
						}
						return
					}
					mu.Lock()
					acknowledged[got.ID] = got
					mu.Unlock()
					if claimed.Add(1) == 300 {
						close(enough)
					}
				}
			})
		}
		<-enough
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if err := s.Ping(t.Context()); err == nil || promises(err) && !errors.Is(err, context.Canceled) {
			t.Errorf("ping without a server: %v", err)
		}
		if err := p.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		for id, want := range acknowledged {
			if got, err := s.Payment(t.Context(), id); err != nil || got != want {
				t.Fatalf("round %d: %s was acknowledged and is %+v, %v", round, id, got, err)
			}
		}
		claim(t, s, 1)
	}
	if len(acknowledged) < 600 {
		t.Errorf("only %d claims", len(acknowledged))
	}
}

// A server that stands still: who may leave leaves at once, who has sent something waits for the outcome, but not for ever, and
// is told that it is not known.
func TestServerStandsStill(t *testing.T) {
	p, url := own(t, service.PostgresOptions{NoSync: true})
	s := open(t, url, postgres.Options{})
	had := claim(t, s, 1)
	s.SetPatience(300 * time.Millisecond)
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Claim(t.Context(), fresh(t, 2), ledger.Change{})
	if !errors.Is(err, postgres.ErrStalled) || promises(err) {
		t.Errorf("claim: %v, want ErrStalled", err)
	}
	if _, err := s.Payment(t.Context(), had.ID); !errors.Is(err, postgres.ErrStalled) || promises(err) {
		t.Errorf("read: %v, want ErrStalled", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := s.Payment(short, had.ID); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("read: %v, want the context's error", err)
	}
	if now := s.Now(); time.Since(now).Abs() > time.Minute {
		t.Errorf("now is %v", now)
	}
	if err := p.Continue(); err != nil {
		t.Fatal(err)
	}
	s.SetPatience(10 * time.Second)
	if got, err := s.Payment(t.Context(), had.ID); err != nil || got != had {
		t.Errorf("%+v, %v", got, err)
	}
	claim(t, s, 3)
}

// A caller that leaves while its statement is under way is told what came of it, not that nothing happened.
func TestOutcomeIsAwaited(t *testing.T) {
	name := database(t)
	s := open(t, appURL(name), postgres.Options{})
	conn, err := pgx.Connect(t.Context(), server.URL(name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE payments IN EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	p := fresh(t, 1)
	done := make(chan error, 1)
	go func() {
		_, err := s.Claim(ctx, p, ledger.Change{})
		done <- err
	}()
	for one[int](t, server.URL(name), "SELECT count(*) FROM pg_locks WHERE NOT granted") == 0 {
		select {
		case err := <-done:
			t.Fatalf("the claim did not wait: %v", err)
		default:
		}
	}
	leave()
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the claim was made and its caller told %v", err)
	}
	if _, err := s.Payment(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
}

// deaf are connections that send, and hear no more once they are deaf.
type deaf struct {
	net.Conn
	on *atomic.Bool
}

func (d *deaf) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	if d.on.Load() {
		return 0, errors.Join(errCut, d.Conn.Close())
	}
	return n, err
}

// A commit whose answer is lost is no promise that nothing happened: here it did.
func TestLostAnswer(t *testing.T) {
	var on atomic.Bool
	s := open(t, appURL(database(t)), postgres.WithDial(postgres.Options{MaxConns: 1},
		func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			return &deaf{conn, &on}, err
		}))
	had := claim(t, s, 1) // the statement is prepared, so that the next one goes in one message
	on.Store(true)
	p := fresh(t, 2)
	_, err := s.Claim(t.Context(), p, ledger.Change{})
	on.Store(false)
	if err == nil || promises(err) {
		t.Errorf("%v, want an error that leaves it open", err)
	}
	for id, name := range map[string]string{had.ID: "what was there", p.ID: "what was claimed"} {
		if _, err := s.Payment(t.Context(), id); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Transactions over the same payments in any order, of many wallets at once, end: nobody waits in a circle.
func TestNoDeadlock(t *testing.T) {
	s := open(t, appURL(database(t)), postgres.Options{})
	var payments []ledger.Payment
	for i := range uint64(6) {
		payments = append(payments, claim(t, s, i))
	}
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			for n := range 5 {
				mine := append([]ledger.Payment(nil), payments...)
				rand.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
				tx := transaction(mine[:4]...)
				tx.Wallet, tx.Hash, tx.Nonce = common.Address{byte(i + 1)}, common.Hash{byte(i + 1), byte(n + 1)}, uint64(n)
				if err := s.Record(t.Context(), tx, "request"); err != nil {
					t.Errorf("wallet %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	if n, err := deadlocks(); err != nil || n > 0 {
		t.Errorf("the database ended %d deadlocks, %v", n, err)
	}
}

func deadlocks() (int, error) {
	log, err := server.Log()
	return bytes.Count(log, []byte("deadlock detected")), err
}

// No error and no log line shows a password, whatever is wrong with the URL.
func TestPasswordsAreNotShown(t *testing.T) {
	const secret = "s3cr3t"
	var log bytes.Buffer
	for _, url := range []string{
		"postgres://app:" + secret + "@127.0.0.1:1/ledger",
		"postgres://app:" + secret + "@127.0.0.1:" + secret + "/ledger",
		"postgres://app:" + secret + "@nosuchhost.invalid/ledger?connect_timeout=2",
		"postgres://app:" + secret + "@[::1/ledger",
		"postgres://app:" + secret + "@localhost/ledger?sslmode=" + secret,
		"postgres://app:%zz" + secret + "@localhost/ledger",
		"postgres://app:a/" + secret + "@localhost/ledger",
		"postgres://app:a b" + secret + "@localhost/ledger",
		"host=localhost port=x password=" + secret,
		"host=localhost port=x password = '" + secret + " more'",
		"host=localhost password='" + secret,
		server.URLAs(appRole, secret, template),
	} {
		for _, o := range []postgres.Options{{}, {MigrateURL: url}} {
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			s, err := postgres.Open(t.Context(), url, o)
			if err == nil {
				t.Errorf("%s was opened", url)
				_ = s.Close()
				continue
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(log.String(), secret) {
				t.Errorf("%s: shown in %v, or %s", url, err, log.String())
			}
		}
	}
}

// An operator's list, a stranger's question for an id: what the database can't hold is not there.
func TestStrangeTexts(t *testing.T) {
	s := open(t, appURL(database(t)), postgres.Options{})
	ctx := t.Context()
	for _, id := range []string{"\x00", "pay_\xff", "", "pay_'; DROP TABLE payments; --"} {
		if _, err := s.Payment(ctx, id); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("payment %q: %v", id, err)
		}
		if _, err := s.Audit(ctx, id); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("audit of %q: %v", id, err)
		}
		if _, err := s.Update(ctx, id, 1, ledger.Change{Event: ledger.EventVoid}); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("update of %q: %v", id, err)
		}
		if err := s.Recheck(ctx, id, time.Minute); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("recheck of %q: %v", id, err)
		}
		if got, err := s.Transactions(ctx, id); err != nil || got != nil {
			t.Errorf("transactions of %q: %v, %v", id, got, err)
		}
		if err := s.KeepAnswer(ctx, common.Hash{1}, id, nil, time.Minute); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("answer for %q: %v", id, err)
		}
		if _, err := s.LivePlans(ctx, common.Address{1}, id, id, 1); err != nil {
			t.Errorf("plans of %q: %v", id, err)
		}
		if _, err := s.List(ctx, ledger.Query{State: ledger.State(id), Before: ledger.Mark{At: time.Now(), Payment: id}, Limit: 1}); err != nil {
			t.Errorf("list of %q: %v", id, err)
		}
		if _, err := s.Records(ctx, id, 1); err != nil {
			t.Errorf("records after %q: %v", id, err)
		}
		if _, err := s.Entries(ctx, ledger.Mark{Payment: id}, time.Now(), 1); err != nil {
			t.Errorf("entries after %q: %v", id, err)
		}
	}
}
