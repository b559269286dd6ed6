-- What a payer owes is asked before each of its payments of the flow deferred.

-- +goose Up

CREATE INDEX payments_owed ON payments (payer, created_at, id) WHERE state = 'OWED';
