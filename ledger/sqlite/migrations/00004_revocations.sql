-- Access tokens that were taken back. A number is never given twice, so whoever has seen one need only ask for what is above it.

-- +goose Up

CREATE TABLE revocations (
    sequence      INTEGER  NOT NULL PRIMARY KEY AUTOINCREMENT,
    id            TEXT     NOT NULL UNIQUE,
    until_at      BIGINT   NOT NULL
);

CREATE INDEX revocations_end ON revocations (until_at);
