-- The audit trail only grows, and a payment is never forgotten nor made another: SQLite itself refuses. What goes to the
-- archive must be there, byte by byte, before it may go from where it was.

-- +goose Up

-- +goose StatementBegin
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
WHEN NOT EXISTS (
    SELECT 1 FROM audit_archive a WHERE a.payment_id = OLD.payment_id AND a.version = OLD.version
        AND a.at = OLD.at AND a.event = OLD.event AND a.actor = OLD.actor AND a.reason = OLD.reason
        AND a.settlement = OLD.settlement AND a.delivery = OLD.delivery AND a.refund = OLD.refund
        AND a.hold_fence = OLD.hold_fence AND a.hold_until = OLD.hold_until
        AND a.tx_hash = OLD.tx_hash AND a.block_number = OLD.block_number AND a.block_hash = OLD.block_hash
        AND a.plan_until = OLD.plan_until AND a.served_by = OLD.served_by
        AND a.subject = OLD.subject AND a.previous = OLD.previous AND a.hash = OLD.hash)
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_archive_no_update BEFORE UPDATE ON audit_archive
BEGIN
    SELECT RAISE(ABORT, 'the archive is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_archive_no_delete BEFORE DELETE ON audit_archive
BEGIN
    SELECT RAISE(ABORT, 'the archive is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER anchors_no_update BEFORE UPDATE ON anchors
BEGIN
    SELECT RAISE(ABORT, 'anchors are append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER anchors_no_delete BEFORE DELETE ON anchors
BEGIN
    SELECT RAISE(ABORT, 'anchors are append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER payments_no_delete BEFORE DELETE ON payments
BEGIN
    SELECT RAISE(ABORT, 'payments are never deleted');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER payments_no_rename BEFORE UPDATE OF id, chain_id, asset, payer, nonce, pay_to, amount, valid_before,
    header_hash, route, plan, method, host, uri, flow, claim_block ON payments
BEGIN
    SELECT RAISE(ABORT, 'what a payment is for never changes');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER transactions_no_update BEFORE UPDATE ON transactions
WHEN NEW.chain_id <> OLD.chain_id OR NEW.hash <> OLD.hash OR NEW.wallet <> OLD.wallet OR NEW.nonce <> OLD.nonce
    OR NEW.carries <> OLD.carries OR NEW.created_at <> OLD.created_at
    OR length(NEW.raw) <> 0
    OR length(OLD.raw) <> 0 AND NOT EXISTS (
        SELECT 1 FROM transaction_archive a WHERE a.chain_id = OLD.chain_id AND a.hash = OLD.hash AND a.raw = OLD.raw)
BEGIN
    SELECT RAISE(ABORT, 'what was signed never changes');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER transactions_no_delete BEFORE DELETE ON transactions
BEGIN
    SELECT RAISE(ABORT, 'transactions are never deleted');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER transaction_archive_no_update BEFORE UPDATE ON transaction_archive
BEGIN
    SELECT RAISE(ABORT, 'the archive is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER transaction_archive_no_delete BEFORE DELETE ON transaction_archive
BEGIN
    SELECT RAISE(ABORT, 'the archive is append-only');
END;
-- +goose StatementEnd
