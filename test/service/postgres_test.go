//go:build unix

package service_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-x402/caddy-x402/test/service"
)

func startPostgres(t *testing.T, o service.PostgresOptions) *service.Postgres {
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
	return p
}

// count is what one new connection sees in the table.
func count(ctx context.Context, url string) (n int, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(ctx) }()
	err = conn.QueryRow(ctx, "SELECT count(*) FROM things").Scan(&n)
	return n, err
}

// What was committed survives the death of all processes; what runs then is cut off.
func TestPostgresIsKilledAndRestarted(t *testing.T) {
	p := startPostgres(t, service.PostgresOptions{NoSync: true})
	name, err := p.CreateDatabase(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Exec(t.Context(), name, "CREATE TABLE things (n int); INSERT INTO things VALUES (1), (2)"); err != nil {
		t.Fatal(err)
	}
	slow := make(chan error, 1)
	go func() { slow <- p.Exec(t.Context(), name, "INSERT INTO things SELECT 3 FROM pg_sleep(3600)") }()
	for running := 0; running == 0; {
		conn, err := pgx.Connect(t.Context(), p.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		err = conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO things SELECT 3%'").Scan(&running)
		if err := errors.Join(err, conn.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-slow; err == nil {
		t.Error("a statement was answered that can't have ended")
	}
	if _, err := count(t.Context(), p.URL(name)); err == nil {
		t.Error("it answers although it was killed")
	}
	if err := p.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := count(t.Context(), p.URL(name)); n != 2 || err != nil {
		t.Errorf("after the restart there are %d things, %v; want 2", n, err)
	}
}

// A paused server keeps who asks waiting, and goes on where it was.
func TestPostgresIsPaused(t *testing.T) {
	p := startPostgres(t, service.PostgresOptions{NoSync: true})
	if err := p.Exec(t.Context(), "postgres", "CREATE TABLE things (n int)"); err != nil {
		t.Fatal(err)
	}
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := count(short, p.URL("postgres")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused server answered: %v", err)
	}
	if err := p.Continue(); err != nil {
		t.Fatal(err)
	}
	if n, err := count(t.Context(), p.URL("postgres")); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// orphan, in the environment, makes the test's own program one that starts a server and dies without ending it.
const orphan = "SERVICE_TEST_ORPHAN"

// A server does not outlive who started it.
func TestPostgresEndsWithItsStarter(t *testing.T) {
	if os.Getenv(orphan) != "" {
		p, err := service.StartPostgres(t.Context(), service.PostgresOptions{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stdout.WriteString("at " + p.URL("postgres") + "\n"); err != nil {
			t.Fatal(err)
		}
		os.Exit(0)
	}
	// The orphan's data, which nobody else would remove. Who runs the server must get there, so it is no t.TempDir.
	dir, err := os.MkdirTemp("", "orphan-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPostgresEndsWithItsStarter$")
	cmd.Env = append(os.Environ(), orphan+"=1", "TMPDIR="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	_, url, ok := strings.Cut(strings.TrimSpace(string(out)), "at ")
	if err != nil || !ok {
		t.Fatalf("%v: %s", err, out)
	}
	for ctx := t.Context(); ; {
		conn, err := pgx.Connect(ctx, url)
		if err != nil && strings.Contains(err.Error(), "connection refused") {
			return
		}
		if err == nil {
			err = conn.Close(ctx)
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}
