-- +goose Up

-- The database's clock, which dates all changes, in microseconds.
CREATE FUNCTION x402_clock() RETURNS bigint LANGUAGE sql VOLATILE AS
    'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint';

-- Fails while a copy into this database is under way. A copy begins when it has got past all that came here before (by the
-- lock, which who adds an anchor takes as well) and found nothing. The code is read by the program.
-- +goose StatementBegin
CREATE FUNCTION x402_complete() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(40200);
    IF EXISTS (SELECT 1 FROM meta WHERE name = 'incomplete') THEN
        RAISE EXCEPTION 'the copy into this ledger is not complete' USING ERRCODE = 'XL002';
    END IF;
    RETURN true;
END
$$;
-- +goose StatementEnd

-- The time for what is decided now: by the database's clock, or the given one, and always after the last anchor.
-- +goose StatementBegin
CREATE FUNCTION x402_now(given bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN greatest(coalesce(given, x402_clock()), (SELECT until_at + 1 FROM anchors ORDER BY sequence DESC LIMIT 1));
END
$$;
-- +goose StatementEnd

-- Ends every transaction that writes what was dated at the time made: it fails if that is further than slack from the
-- clock, or not after the last anchor. So nothing appears below an anchor, however long its writer was held up: who adds an
-- anchor waits for all that got past here, by the lock. The code is read by the program.
-- +goose StatementBegin
CREATE FUNCTION x402_check(made bigint, slack bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    clock bigint;
    last  bigint;
BEGIN
    PERFORM x402_complete();
    clock := x402_clock();
    last := coalesce((SELECT until_at FROM anchors ORDER BY sequence DESC LIMIT 1), 0);
    IF made <= last OR abs(made - greatest(clock, last + 1)) > slack THEN
        RAISE EXCEPTION 'dated too far from the clock' USING ERRCODE = 'XL001', DETAIL = clock || ' ' || last;
    END IF;
    RETURN clock;
END
$$;
-- +goose StatementEnd

-- Moves what belongs to closed payments that have not changed after the given time to the archive, of at most how_many; it
-- tells of how many. The application may call it without the rights that it uses: it can do nothing else with them. One runs
-- at a time, for two that move the payments of one transaction would each leave it to the other.
-- +goose StatementBegin
CREATE FUNCTION x402_archive(unchanged_since bigint, how_many bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
DECLARE
    closed text[];
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock(40202);
    closed := ARRAY(SELECT id FROM payments WHERE is_closed = 1 AND is_archived = 0 AND updated_at <= unchanged_since
        ORDER BY updated_at LIMIT how_many FOR UPDATE SKIP LOCKED);
    INSERT INTO audit_archive SELECT * FROM audit WHERE payment_id = ANY (closed);
    DELETE FROM audit WHERE payment_id = ANY (closed);
    UPDATE payments SET is_archived = 1 WHERE id = ANY (closed);
    INSERT INTO transaction_archive (chain_id, hash, raw)
        SELECT DISTINCT t.chain_id, t.hash, t.raw FROM transaction_payments tp
        JOIN transactions t ON t.chain_id = tp.chain_id AND t.hash = tp.hash
        WHERE tp.payment_id = ANY (closed) AND NOT EXISTS (
            SELECT 1 FROM transaction_payments other JOIN payments p ON p.id = other.payment_id
            WHERE other.chain_id = t.chain_id AND other.hash = t.hash AND p.is_archived = 0)
        AND NOT EXISTS (SELECT 1 FROM transaction_archive a WHERE a.chain_id = t.chain_id AND a.hash = t.hash);
    UPDATE transactions SET raw = '' WHERE pg_catalog.octet_length(raw) > 0 AND (chain_id, hash) IN (
        SELECT a.chain_id, a.hash FROM transaction_payments tp
        JOIN transaction_archive a ON a.chain_id = tp.chain_id AND a.hash = tp.hash WHERE tp.payment_id = ANY (closed));
    RETURN coalesce(pg_catalog.array_length(closed, 1), 0);
END
$$;
-- +goose StatementEnd

-- What guards and moves looks at these tables only, not at some of the same name that a session has made before them. Its
-- functions are called by their full names: one of another's making in the same schema, whose arguments fit better, would run with
-- the owner's rights.
-- +goose StatementBegin
DO $$
DECLARE
    f text;
BEGIN
    FOREACH f IN ARRAY ARRAY['x402_archived_entry()', 'x402_archived_raw()', 'x402_archive(bigint, bigint)'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
    END LOOP;
    REVOKE ALL ON FUNCTION x402_archive(bigint, bigint) FROM PUBLIC;
END
$$;
-- +goose StatementEnd
