-- What is to be paid back is handed out until it is.

-- +goose Up

UPDATE payments SET is_open = 1 WHERE state = 'REFUND_PENDING' AND is_open = 0;
