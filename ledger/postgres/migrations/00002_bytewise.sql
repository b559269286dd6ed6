-- Ids are compared by their bytes, whatever the database's collation: stores list them in one order. All other texts
-- too, which makes their indexes smaller work.

-- +goose Up

-- +goose StatementBegin
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN
        SELECT table_name, string_agg(format('ALTER COLUMN %I TYPE text COLLATE "C"', column_name), ', ') AS changes
        FROM information_schema.columns
        WHERE table_schema = current_schema() AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'
            AND table_name IN ('payments', 'audit', 'audit_archive', 'transactions', 'transaction_payments', 'reservations', 'meta')
        GROUP BY table_name
    LOOP
        EXECUTE format('ALTER TABLE %I %s', c.table_name, c.changes);
    END LOOP;
END
$$;
-- +goose StatementEnd
