package postgres_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/postgres"
)

// one runs a statement in a database, as the role of url, and gives the one value that comes of it.
func one[T any](t testing.TB, url, statement string, args ...any) (got T) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	err = conn.QueryRow(context.Background(), statement, args...).Scan(&got)
	if err := errors.Join(err, conn.Close(context.Background())); err != nil {
		t.Fatal(err)
	}
	return got
}

// Many that start at once on an empty database: one makes the tables, and all work.
func TestManyStartAtOnce(t *testing.T) {
	name := emptyDatabase(t)
	const instances = 8
	var stores [instances]*postgres.Store
	var errs [instances]error
	var wg sync.WaitGroup
	for i := range instances {
		wg.Go(func() {
			stores[i], errs[i] = postgres.Open(t.Context(), appURL(name), postgres.Options{MigrateURL: ownerURL(name), MaxConns: 2})
		})
	}
	wg.Wait()
	for i, s := range stores {
		if errs[i] != nil {
			t.Errorf("instance %d: %v", i, errs[i])
			continue
		}
		claim(t, s, uint64(i))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A ledger that a newer program has changed is left alone.
func TestNewerSchema(t *testing.T) {
	name := database(t)
	if err := server.Exec(t.Context(), name, "INSERT INTO ledger_schema (version_id, is_applied) VALUES (99, true)"); err != nil {
		t.Fatal(err)
	}
	for _, o := range []postgres.Options{{}, {MigrateURL: ownerURL(name)}} {
		s, err := postgres.Open(t.Context(), appURL(name), o)
		if !errors.Is(err, postgres.ErrSchema) || !strings.Contains(err.Error(), "use a newer program") {
			t.Errorf("%v, want ErrSchema", err)
		}
		if err == nil {
			_ = s.Close()
		}
	}
}

// A ledger that an older version has made is brought up to date by its owner, with all that is in it.
func TestOlderSchema(t *testing.T) {
	name := emptyDatabase(t)
	s, err := postgres.Open(t.Context(), appURL(name), postgres.Options{MigrateURL: ownerURL(name)})
	if err != nil {
		t.Fatal(err)
	}
	p := claim(t, s, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, undo := range []string{
		"DROP INDEX payments_owed", "DROP TABLE revocations", "DROP FUNCTION x402_revoke", "DROP TABLE allowances", "DROP TABLE objects",
		"DELETE FROM ledger_schema WHERE version_id > 4",
	} {
		if err := server.Exec(t.Context(), name, undo); err != nil {
			t.Fatal(err)
		}
	}
	if s, err = postgres.Open(t.Context(), appURL(name), postgres.Options{}); err == nil || !strings.Contains(err.Error(), "migrate_url") {
		t.Errorf("without the owner: %v, want an error that names migrate_url", err)
	}
	if err == nil {
		_ = s.Close()
	}
	if s, err = postgres.Open(t.Context(), appURL(name), postgres.Options{MigrateURL: ownerURL(name)}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if got, err := s.Payment(t.Context(), p.ID); err != nil || got != p {
		t.Errorf("%+v, %v", got, err)
	}
	if n := one[int](t, appURL(name), "SELECT count(*) FROM pg_indexes WHERE indexname = 'payments_owed'"); n != 1 {
		t.Errorf("there are %d indexes of what is owed", n)
	}
}

// Where the application's role may not make tables, the error says whose work that is; once they are there, that role is enough.
func TestWithoutTheOwner(t *testing.T) {
	name := emptyDatabase(t)
	s, err := postgres.Open(t.Context(), appURL(name), postgres.Options{})
	if err == nil || !strings.Contains(err.Error(), "migrate_url") {
		t.Errorf("%v, want an error that names migrate_url", err)
	}
	if err == nil {
		_ = s.Close()
	}
	claim(t, open(t, appURL(database(t)), postgres.Options{}), 1)
}

// A role that is the owner itself needs no second one; neither does a schema other than public.
func TestOneRole(t *testing.T) {
	name := emptyDatabase(t)
	if err := server.Exec(t.Context(), name, "CREATE SCHEMA x402 AUTHORIZATION "+ownerRole); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "&search_path=x402"} {
		s := open(t, ownerURL(name)+path, postgres.Options{})
		claim(t, s, 1)
		if _, err := s.Sweep(t.Context(), 1, 10); err != nil {
			t.Error(err)
		}
		if counts, err := s.Counts(t.Context()); err != nil || counts[ledger.StateSettling] != 1 {
			t.Errorf("%v, %v", counts, err)
		}
	}
}

// Two roles in a schema of its own: the rights are given there.
func TestTwoRolesInASchema(t *testing.T) {
	name := emptyDatabase(t)
	if err := server.Exec(t.Context(), name, "CREATE SCHEMA x402 AUTHORIZATION "+ownerRole); err != nil {
		t.Fatal(err)
	}
	const path = "&search_path=x402"
	s := open(t, appURL(name)+path, postgres.Options{MigrateURL: ownerURL(name) + path})
	claim(t, s, 1)
	if _, err := s.Sweep(t.Context(), 1, 10); err != nil {
		t.Error(err)
	}
}

// Ids are ordered by their bytes whatever the database's own order is.
func TestBytewise(t *testing.T) {
	name := emptyDatabase(t)
	if err := server.DropDatabase(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	err := server.Exec(t.Context(), "postgres", "CREATE DATABASE "+name+" TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en' OWNER "+ownerRole)
	if err != nil {
		t.Fatal(err)
	}
	if !one[bool](t, server.URL(name), "SELECT 'a' < 'B'") {
		t.Fatal("the database's own order is by bytes: this test shows nothing")
	}
	s := open(t, ownerURL(name), postgres.Options{})
	for _, end := range []string{"a", "B", "_"} {
		p := fresh(t, 1)
		p.ID = p.ID[:len("pay_xx")] + end
		if _, err := s.Claim(t.Context(), p, ledger.Change{}); err != nil {
			t.Fatal(err)
		}
	}
	records, err := s.Records(t.Context(), "", 10)
	var order string
	for _, r := range records {
		order += r.Payment.ID[len("pay_xx"):]
	}
	if err != nil || order != "B_a" {
		t.Errorf("the order is %q, %v; want B_a", order, err)
	}
	n := one[int](t, server.URL(name), `SELECT count(*) FROM information_schema.columns
		WHERE table_schema = 'public' AND data_type = 'text' AND table_name <> 'ledger_schema' AND collation_name IS DISTINCT FROM 'C'`)
	if n != 0 {
		t.Errorf("%d columns are not compared by bytes", n)
	}
}

// What the server, the database or the role have for defaults does not make a commit less than it must be.
func TestSessions(t *testing.T) {
	name := database(t)
	for _, setting := range []string{"synchronous_commit = off", "default_transaction_isolation = 'serializable'", "statement_timeout = 0"} {
		if err := server.Exec(t.Context(), "postgres", "ALTER DATABASE "+name+" SET "+setting); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, appURL(name), postgres.Options{})
	for setting, want := range map[string]string{
		"synchronous_commit": "on", "default_transaction_isolation": "read committed", "statement_timeout": "8s", "lock_timeout": "5s",
		"idle_in_transaction_session_timeout": "8s", "application_name": "caddy-x402",
	} {
		var got string
		if err := s.Pool().QueryRow(t.Context(), "SHOW "+setting).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", setting, got, err, want)
		}
	}
	if got := s.Pool().Config().MaxConns; got != postgres.DefaultMaxConns {
		t.Errorf("at most %d connections", got)
	}
	if got := open(t, appURL(name)+"&pool_max_conns=3", postgres.Options{}).Pool().Config().MaxConns; got != 3 {
		t.Errorf("at most %d connections, the URL says 3", got)
	}
}

// The ledger is handed to another role: it is told what it lacks, and gets it from the owner.
func TestAnotherRole(t *testing.T) {
	name := database(t)
	const role = "ledger_another"
	if err := server.Exec(t.Context(), name, "CREATE ROLE "+role+" LOGIN PASSWORD 'secret'; GRANT SELECT ON ledger_schema TO "+role); err != nil {
		t.Fatal(err)
	}
	url := server.URLAs(role, "secret", name)
	s, err := postgres.Open(t.Context(), url, postgres.Options{})
	if err == nil || !strings.Contains(err.Error(), "migrate_url") {
		t.Errorf("%v, want an error that names migrate_url", err)
	}
	if err == nil {
		_ = s.Close()
	}
	claim(t, open(t, url, postgres.Options{MigrateURL: ownerURL(name)}), 1)
	claim(t, open(t, url, postgres.Options{}), 2)
	// What a role has got stays its own until its database goes.
	if err := server.Exec(t.Context(), name, "DROP OWNED BY "+role); err != nil {
		t.Error(err)
	}
	if err := server.Exec(t.Context(), name, "DROP ROLE "+role); err != nil {
		t.Error(err)
	}
}
