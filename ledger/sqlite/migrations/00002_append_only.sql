-- The audit trail only grows, and a payment is never forgotten nor made another: SQLite itself refuses.

-- +goose Up

-- +goose StatementBegin
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER payments_no_delete BEFORE DELETE ON payments
BEGIN
    SELECT RAISE(ABORT, 'payments are never deleted');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER payments_no_rename BEFORE UPDATE OF id, chain_id, asset, payer, nonce, pay_to, amount ON payments
BEGIN
    SELECT RAISE(ABORT, 'what a payment is for never changes');
END;
-- +goose StatementEnd
