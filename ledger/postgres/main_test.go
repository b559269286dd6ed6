package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/ledger/postgres"
	"github.com/caddy-x402/caddy-x402/test/service"
)

// server is the PostgreSQL of all tests but those that kill one of their own.
var server *service.Postgres

// The roles of the tables' owner and of the application: the suite runs with no more rights than the application has.
const (
	ownerRole, ownerPassword = "ledger_owner", "the owner's/password"
	appRole, appPassword     = "ledger_app", "the application's@password"
)

func ownerURL(name string) string { return server.URLAs(ownerRole, ownerPassword, name) }
func appURL(name string) string   { return server.URLAs(appRole, appPassword, name) }

// template is a database with an empty ledger, of which the others are copies: the tables are made once.
var template string

func TestMain(m *testing.M) {
	if err := begin(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), goleak.Cleanup(func(code int) {
		if err := server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		os.Exit(code)
	}))
}

func begin(ctx context.Context) (err error) {
	if server, err = service.StartPostgres(ctx, service.PostgresOptions{NoSync: true}); err != nil {
		return err
	}
	if template, err = prepare(ctx, server); err == nil {
		observer, err = pgx.Connect(ctx, server.URL("postgres"))
	}
	if err != nil {
		return errors.Join(err, server.Stop())
	}
	return nil
}

// prepare makes the roles, and a database with an empty ledger.
func prepare(ctx context.Context, server *service.Postgres) (name string, err error) {
	for role, password := range map[string]string{ownerRole: ownerPassword, appRole: appPassword} {
		statement := fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", role, strings.ReplaceAll(password, "'", "''"))
		if err := server.Exec(ctx, "postgres", statement); err != nil {
			return "", err
		}
	}
	if name, err = newDatabase(ctx, server); err != nil {
		return "", err
	}
	s, err := postgres.Open(ctx, server.URLAs(appRole, appPassword, name),
		postgres.Options{MigrateURL: server.URLAs(ownerRole, ownerPassword, name)})
	if err != nil {
		return "", err
	}
	return name, s.Close()
}

// newDatabase makes an empty database, which is the owner's.
func newDatabase(ctx context.Context, server *service.Postgres) (name string, err error) {
	if name, err = server.CreateDatabase(ctx, ""); err != nil {
		return "", err
	}
	return name, server.Exec(ctx, "postgres", "ALTER DATABASE "+name+" OWNER TO "+ownerRole)
}

// one at a time: a template can't be copied by two at once.
var creating sync.Mutex

// database makes a database with an empty ledger, and gives its name.
func database(t testing.TB) string {
	t.Helper()
	creating.Lock()
	defer creating.Unlock()
	name, err := server.CreateDatabase(context.Background(), template)
	if err != nil {
		t.Fatal(err)
	}
	dropAtEnd(t, name)
	return name
}

// observer is a connection that looks at the server.
var (
	observer  *pgx.Conn
	observing sync.Mutex
)

// used are databases that can be used again: emptying one takes a tenth of the time of making and removing one.
var used struct {
	sync.Mutex
	names []string
}

// pooled gives a database with an empty ledger until giveBack.
func pooled(t testing.TB) string {
	t.Helper()
	used.Lock()
	defer used.Unlock()
	if n := len(used.names); n > 0 {
		name := used.names[n-1]
		used.names = used.names[:n-1]
		return name
	}
	name, err := server.CreateDatabase(context.Background(), template)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// empty removes all that is in a ledger, behind the triggers' back.
const empty = `SET session_replication_role = replica;
	DELETE FROM payments; DELETE FROM audit; DELETE FROM audit_archive; DELETE FROM anchors; DELETE FROM wallets; DELETE FROM transactions;
	DELETE FROM transaction_archive; DELETE FROM transaction_payments; DELETE FROM reservations; DELETE FROM revocations; DELETE FROM allowances;
	DELETE FROM objects; DELETE FROM meta; DELETE FROM heartbeat`

func giveBack(t testing.TB, name string) {
	t.Helper()
	if err := server.Exec(context.Background(), name, empty); err != nil {
		t.Errorf("emptying a database: %v", err)
		return
	}
	used.Lock()
	defer used.Unlock()
	used.names = append(used.names, name)
}

// emptyDatabase makes a database without a ledger, and gives its name.
func emptyDatabase(t testing.TB) string {
	t.Helper()
	name, err := newDatabase(context.Background(), server)
	if err != nil {
		t.Fatal(err)
	}
	dropAtEnd(t, name)
	return name
}

func dropAtEnd(t testing.TB, name string) {
	t.Cleanup(func() {
		if err := server.DropDatabase(context.Background(), name); err != nil {
			t.Error(err)
		}
	})
}

// open opens a ledger until the test ends.
func open(t testing.TB, url string, o postgres.Options) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(context.Background(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
