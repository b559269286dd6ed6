-- The SQL is what PostgreSQL and SQLite both read: BIGINT and BYTEA are names that SQLite takes as they come.
-- Times are microseconds since 1970 in UTC, 0 for none. Addresses and hashes are bytes (half the size of hex in
-- every row and index), empty for none. Amounts are decimal text: they have up to 256 bits. Ids are compared by their
-- bytes: PostgreSQL needs COLLATE "C" for that, which its own migration adds.

-- +goose Up

CREATE TABLE payments (
    id            TEXT     NOT NULL PRIMARY KEY,
    version       BIGINT   NOT NULL,
    -- what is paid for; never changes
    chain_id      BIGINT   NOT NULL,
    asset         BYTEA    NOT NULL,
    payer         BYTEA    NOT NULL,
    nonce         BYTEA    NOT NULL,
    pay_to        BYTEA    NOT NULL,
    amount        TEXT     NOT NULL,
    valid_before  BIGINT   NOT NULL,
    header_hash   BYTEA    NOT NULL,
    route         TEXT     NOT NULL,
    plan          TEXT     NOT NULL,
    method        TEXT     NOT NULL,
    host          TEXT     NOT NULL,
    uri           TEXT     NOT NULL,
    flow          TEXT     NOT NULL,
    claim_block   BIGINT   NOT NULL,
    -- what became of it
    settlement    TEXT     NOT NULL,
    delivery      TEXT     NOT NULL,
    refund        TEXT     NOT NULL,
    reason        TEXT     NOT NULL,
    tx_hash       BYTEA    NOT NULL,
    block_number  BIGINT   NOT NULL,
    block_hash    BYTEA    NOT NULL,
    is_final      SMALLINT NOT NULL,
    hold_fence    BIGINT   NOT NULL,
    hold_until    BIGINT   NOT NULL,
    plan_until    BIGINT   NOT NULL,
    served_by     TEXT     NOT NULL,
    created_at    BIGINT   NOT NULL,
    updated_at    BIGINT   NOT NULL,
    settled_at    BIGINT   NOT NULL,
    delivered_at  BIGINT   NOT NULL,
    -- derived from the above on every write, for the indexes
    state         TEXT     NOT NULL,
    is_open       SMALLINT NOT NULL,
    is_unserved   SMALLINT NOT NULL,
    is_closed     SMALLINT NOT NULL,
    -- the hash of the last audit entry
    audit_hash    BYTEA    NOT NULL,
    -- when somebody should look at an open payment again; belongs to the leases, not to the payment
    check_at      BIGINT   NOT NULL,
    -- 1: its trail is in the archive; every change sets it to 0
    is_archived   SMALLINT NOT NULL,
    CONSTRAINT payments_authorization UNIQUE (chain_id, asset, payer, nonce),
    CONSTRAINT payments_never_both CHECK (delivery <> 'delivered' OR refund = 'none')
);

CREATE INDEX payments_unserved ON payments (payer, route, created_at, id) WHERE is_unserved = 1;
CREATE INDEX payments_plans ON payments (payer, plan_until DESC, id) WHERE plan_until > 0;
CREATE INDEX payments_due ON payments (check_at, created_at, id) WHERE is_open = 1;
CREATE INDEX payments_closed ON payments (updated_at) WHERE is_closed = 1 AND is_archived = 0;
CREATE INDEX payments_list ON payments (created_at, id);
CREATE INDEX payments_state ON payments (state, created_at, id);
CREATE INDEX payments_payer ON payments (payer, created_at, id);

CREATE TABLE audit (
    payment_id    TEXT     NOT NULL REFERENCES payments (id),
    version       BIGINT   NOT NULL,
    at            BIGINT   NOT NULL,
    event         TEXT     NOT NULL,
    actor         TEXT     NOT NULL,
    reason        TEXT     NOT NULL,
    settlement    TEXT     NOT NULL,
    delivery      TEXT     NOT NULL,
    refund        TEXT     NOT NULL,
    hold_fence    BIGINT   NOT NULL,
    hold_until    BIGINT   NOT NULL,
    tx_hash       BYTEA    NOT NULL,
    block_number  BIGINT   NOT NULL,
    block_hash    BYTEA    NOT NULL,
    plan_until    BIGINT   NOT NULL,
    served_by     TEXT     NOT NULL,
    subject       BYTEA    NOT NULL,
    previous      BYTEA    NOT NULL,
    hash          BYTEA    NOT NULL,
    PRIMARY KEY (payment_id, version)
);

CREATE INDEX audit_at ON audit (at, payment_id, version);

-- Where the trails of payments go that are long closed: row for row as they were.
CREATE TABLE audit_archive (
    payment_id    TEXT     NOT NULL REFERENCES payments (id),
    version       BIGINT   NOT NULL,
    at            BIGINT   NOT NULL,
    event         TEXT     NOT NULL,
    actor         TEXT     NOT NULL,
    reason        TEXT     NOT NULL,
    settlement    TEXT     NOT NULL,
    delivery      TEXT     NOT NULL,
    refund        TEXT     NOT NULL,
    hold_fence    BIGINT   NOT NULL,
    hold_until    BIGINT   NOT NULL,
    tx_hash       BYTEA    NOT NULL,
    block_number  BIGINT   NOT NULL,
    block_hash    BYTEA    NOT NULL,
    plan_until    BIGINT   NOT NULL,
    served_by     TEXT     NOT NULL,
    subject       BYTEA    NOT NULL,
    previous      BYTEA    NOT NULL,
    hash          BYTEA    NOT NULL,
    PRIMARY KEY (payment_id, version)
);

CREATE INDEX audit_archive_at ON audit_archive (at, payment_id, version);

-- The last row is the newest anchor.
CREATE TABLE anchors (
    sequence      BIGINT   NOT NULL PRIMARY KEY,
    until_at      BIGINT   NOT NULL,
    entry_count   BIGINT   NOT NULL,
    entries       BYTEA    NOT NULL,
    previous      BYTEA    NOT NULL,
    hash          BYTEA    NOT NULL
);

CREATE TABLE wallets (
    chain_id      BIGINT   NOT NULL,
    address       BYTEA    NOT NULL,
    next_nonce    BIGINT   NOT NULL,
    PRIMARY KEY (chain_id, address)
);

-- carries are the ids of the transaction's payments, in order, a space between; raw is empty where it is in the archive.
CREATE TABLE transactions (
    chain_id      BIGINT   NOT NULL,
    hash          BYTEA    NOT NULL,
    wallet        BYTEA    NOT NULL,
    nonce         BIGINT   NOT NULL,
    raw           BYTEA    NOT NULL,
    carries       TEXT     NOT NULL,
    created_at    BIGINT   NOT NULL,
    PRIMARY KEY (chain_id, hash)
);

CREATE INDEX transactions_nonce ON transactions (chain_id, wallet, nonce);
CREATE INDEX transactions_freed ON transactions (chain_id, wallet, created_at, nonce, hash) WHERE carries = '';

CREATE TABLE transaction_archive (
    chain_id      BIGINT   NOT NULL,
    hash          BYTEA    NOT NULL,
    raw           BYTEA    NOT NULL,
    PRIMARY KEY (chain_id, hash),
    FOREIGN KEY (chain_id, hash) REFERENCES transactions (chain_id, hash)
);

-- seq counts the transactions of a payment, position the payments of a transaction.
CREATE TABLE transaction_payments (
    payment_id    TEXT     NOT NULL REFERENCES payments (id),
    seq           BIGINT   NOT NULL,
    chain_id      BIGINT   NOT NULL,
    hash          BYTEA    NOT NULL,
    position      BIGINT   NOT NULL,
    PRIMARY KEY (payment_id, seq),
    CONSTRAINT transaction_payments_order UNIQUE (chain_id, hash, position),
    FOREIGN KEY (chain_id, hash) REFERENCES transactions (chain_id, hash)
);

CREATE TABLE reservations (
    key           BYTEA    NOT NULL PRIMARY KEY,
    fingerprint   BYTEA    NOT NULL,
    payment_id    TEXT     NOT NULL,
    answer        BYTEA,
    created_at    BIGINT   NOT NULL,
    expires_at    BIGINT   NOT NULL
);

CREATE INDEX reservations_expiry ON reservations (expires_at);

-- What is to be known of the store itself. The row 'incomplete' is there while a copy into it is under way.
CREATE TABLE meta (
    name          TEXT     NOT NULL PRIMARY KEY,
    value         TEXT     NOT NULL
);

-- One row, written to find out whether the store can be written.
CREATE TABLE heartbeat (
    id            BIGINT   NOT NULL PRIMARY KEY,
    at            BIGINT   NOT NULL
);
