package postgres_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Where the application may make functions beside the tables (in the schema public of databases that were made before
// PostgreSQL 15 everybody may), none of them runs with the owner's rights.
func TestNothingOfTheApplicationRunsAsTheOwner(t *testing.T) {
	name := database(t)
	lived(t, name)
	if err := server.Exec(t.Context(), name, "GRANT CREATE ON SCHEMA public TO "+appRole); err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(t.Context(), appURL(name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	for _, head := range []string{
		"pg_advisory_xact_lock(int) RETURNS void", "array_length(text[], int) RETURNS int", "octet_length(bytea) RETURNS int",
		"to_jsonb(audit) RETURNS jsonb", "to_jsonb(audit_archive) RETURNS jsonb",
	} {
		if _, err := c.Exec(t.Context(), "CREATE FUNCTION public."+head+" LANGUAGE plpgsql AS $$ BEGIN RAISE 'it runs as %', current_user; END $$"); err != nil {
			t.Fatal(err)
		}
	}
	for _, since := range []int64{1 << 62, 0} {
		var n int
		if err := c.QueryRow(t.Context(), "SELECT x402_archive($1, 100)", since).Scan(&n); err != nil || n == 0 && since > 0 {
			t.Errorf("archived %d, %v", n, err)
		}
	}
}
