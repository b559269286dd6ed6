-- What the operator's side keeps: API keys, webhook endpoints, deliveries, answers to idempotency keys. 0 is for no time.

-- +goose Up

CREATE TABLE objects (
    kind          TEXT     NOT NULL,
    id            TEXT     NOT NULL,
    group_id      TEXT     NOT NULL,
    version       BIGINT   NOT NULL,
    body          BYTEA    NOT NULL,
    due_at        BIGINT   NOT NULL,
    expires_at    BIGINT   NOT NULL,
    PRIMARY KEY (kind, id)
);

CREATE INDEX objects_group ON objects (kind, group_id, id) WHERE group_id <> '';
CREATE INDEX objects_due ON objects (kind, due_at, id) WHERE due_at > 0;
CREATE INDEX objects_expiry ON objects (expires_at) WHERE expires_at > 0;
