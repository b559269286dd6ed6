-- The audit trail only grows, a payment is never forgotten nor made another, a nonce never goes back: the database itself
-- refuses. Where the application has a role of its own, it lacks the rights as well; these triggers also stop the
-- tables' owner, short of removing them.

-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION x402_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: %', TG_OP, TG_TABLE_NAME, TG_ARGV[0] USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd

CREATE TRIGGER audit_no_update BEFORE UPDATE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION x402_refuse('the audit trail is append-only');
CREATE TRIGGER audit_archive_no_update BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_archive
    FOR EACH STATEMENT EXECUTE FUNCTION x402_refuse('the audit trail is append-only');
CREATE TRIGGER anchors_no_update BEFORE UPDATE OR DELETE OR TRUNCATE ON anchors
    FOR EACH STATEMENT EXECUTE FUNCTION x402_refuse('anchors are append-only');
CREATE TRIGGER payments_no_delete BEFORE DELETE OR TRUNCATE ON payments
    FOR EACH STATEMENT EXECUTE FUNCTION x402_refuse('payments are never deleted');
CREATE TRIGGER payments_no_rename BEFORE UPDATE OF id, chain_id, asset, payer, nonce, pay_to, amount, valid_before,
    header_hash, route, plan, method, host, uri, flow, claim_block ON payments
    FOR EACH STATEMENT EXECUTE FUNCTION x402_refuse('what a payment is for never changes');
CREATE TRIGGER wallets_no_delete BEFORE DELETE OR TRUNCATE ON wallets
    FOR EACH STATEMENT EXECUTE FUNCTION x402_refuse('wallets are never deleted');
CREATE TRIGGER transactions_no_update BEFORE UPDATE OF chain_id, hash, wallet, nonce, carries, created_at OR DELETE OR TRUNCATE ON transactions
    FOR EACH STATEMENT EXECUTE FUNCTION x402_refuse('what was sent never changes');
CREATE TRIGGER transaction_archive_no_update BEFORE UPDATE OR DELETE OR TRUNCATE ON transaction_archive
    FOR EACH STATEMENT EXECUTE FUNCTION x402_refuse('what was sent never changes');
CREATE TRIGGER transaction_payments_no_update BEFORE UPDATE OR DELETE OR TRUNCATE ON transaction_payments
    FOR EACH STATEMENT EXECUTE FUNCTION x402_refuse('what was sent never changes');

-- +goose StatementBegin
CREATE FUNCTION x402_never_lower() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.chain_id <> OLD.chain_id OR NEW.address <> OLD.address OR NEW.next_nonce < OLD.next_nonce THEN
        RAISE EXCEPTION 'a wallet''s nonce never goes back' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER wallets_never_lower BEFORE UPDATE ON wallets FOR EACH ROW EXECUTE FUNCTION x402_never_lower();

-- An entry leaves the audit trail only for the archive, and only as it was: first the archive takes a copy of an entry that is
-- there, of a payment that is closed; then the entry may go, if its copy is equal. The same for raw transactions.

-- +goose StatementBegin
CREATE FUNCTION x402_archived_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (SELECT 1 FROM audit a WHERE a.payment_id = NEW.payment_id AND a.version = NEW.version AND pg_catalog.to_jsonb(a) = pg_catalog.to_jsonb(NEW))
            AND EXISTS (SELECT 1 FROM payments p WHERE p.id = NEW.payment_id AND p.is_closed = 1) THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'the archive takes only copies of entries of closed payments' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF EXISTS (SELECT 1 FROM audit_archive a WHERE a.payment_id = OLD.payment_id AND a.version = OLD.version AND pg_catalog.to_jsonb(a) = pg_catalog.to_jsonb(OLD)) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'DELETE of audit is refused: the audit trail is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER audit_archive_copies BEFORE INSERT ON audit_archive FOR EACH ROW EXECUTE FUNCTION x402_archived_entry();
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION x402_archived_entry();

-- +goose StatementBegin
CREATE FUNCTION x402_archived_raw() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (SELECT 1 FROM transactions t WHERE t.chain_id = NEW.chain_id AND t.hash = NEW.hash AND t.raw = NEW.raw) THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'the archive takes only copies of transactions' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.raw = OLD.raw OR pg_catalog.octet_length(NEW.raw) = 0
        AND EXISTS (SELECT 1 FROM transaction_archive a WHERE a.chain_id = OLD.chain_id AND a.hash = OLD.hash AND a.raw = OLD.raw) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'UPDATE of transactions is refused: what was sent never changes' USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER transaction_archive_copies BEFORE INSERT ON transaction_archive FOR EACH ROW EXECUTE FUNCTION x402_archived_raw();
CREATE TRIGGER transactions_raw BEFORE UPDATE ON transactions FOR EACH ROW EXECUTE FUNCTION x402_archived_raw();
