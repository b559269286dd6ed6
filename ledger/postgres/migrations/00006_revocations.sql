-- Access tokens that were taken back. A number is never given twice, so whoever has seen one need only ask for what is above it.

-- +goose Up

CREATE TABLE revocations (
    sequence      BIGINT   NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id            TEXT     COLLATE "C" NOT NULL UNIQUE,
    until_at      BIGINT   NOT NULL
);

CREATE INDEX revocations_end ON revocations (until_at);

-- Takes a token back. One at a time: a number may be seen only after all below it, and the lock is held until the commit.
-- +goose StatementBegin
CREATE FUNCTION x402_revoke(token text, ends bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM x402_complete();
    PERFORM pg_advisory_xact_lock(40204);
    DELETE FROM revocations WHERE id = token AND until_at < ends;
    INSERT INTO revocations (id, until_at) VALUES (token, ends) ON CONFLICT (id) DO NOTHING;
    RETURN true;
END
$$;
-- +goose StatementEnd
