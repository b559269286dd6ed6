-- What may be used up: the requests of a pass, prepaid credit, what is free in a window of time. The amounts are decimal.

-- +goose Up

CREATE TABLE allowances (
    key           BYTEA    NOT NULL PRIMARY KEY,
    most          TEXT     NOT NULL,
    used          TEXT     NOT NULL,
    created_at    BIGINT   NOT NULL,
    expires_at    BIGINT   NOT NULL
);

CREATE INDEX allowances_expiry ON allowances (expires_at);
