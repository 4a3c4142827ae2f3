-- Transactions are appended and never changed.

CREATE TABLE transactions (
    id               uuid   NOT NULL PRIMARY KEY,  -- of version 7: sorts by when it was kept
    timestamp_ms     bigint NOT NULL,              -- when it happened, since the Unix epoch, UTC
    amount_units     bigint NOT NULL,              -- 10^-8 of the currency's main unit
    currency         text   NOT NULL,
    user_id          text,
    -- What a transaction of the feed says beside that. All null in one that says nothing more.
    transaction_type text,
    product          text,
    status           text,                         -- null is completed
    metadata         jsonb,
    metadata_text    text,                         -- where jsonb would not give back what it was given
    terms            tsvector                      -- what it is found by
);

-- The feed, whose order is by time and then by id; and the start, which sums up the last window.
CREATE INDEX transactions_by_time ON transactions (timestamp_ms, id);

-- A part of the feed each, in the feed's order. A plain transaction is in three of them.
CREATE INDEX transactions_by_user ON transactions (user_id, timestamp_ms, id) WHERE user_id IS NOT NULL;
CREATE INDEX transactions_by_currency ON transactions (currency, timestamp_ms, id);
CREATE INDEX transactions_by_type ON transactions (transaction_type, timestamp_ms, id)
    WHERE transaction_type IS NOT NULL;
CREATE INDEX transactions_by_product ON transactions (product, timestamp_ms, id)
    WHERE product IS NOT NULL;
CREATE INDEX transactions_by_status ON transactions (status, timestamp_ms, id) WHERE status IS NOT NULL;

-- These find what is rare, whatever its time; what is frequent is found sooner by going back in time.
CREATE INDEX transactions_by_amount ON transactions (amount_units);
CREATE INDEX transactions_by_term ON transactions USING gin (terms) WHERE terms IS NOT NULL;

-- What was asked under which key, and what it was answered; kept though the transactions are deleted.
CREATE TABLE idempotency (
    digest      bytea  NOT NULL PRIMARY KEY,
    fingerprint bytea  NOT NULL,                   -- tells a repeat from another request under its key
    packed      bytea  NOT NULL,                   -- the answer, deflated where it is long
    created_ms  bigint NOT NULL                    -- the oldest go first
);
ALTER TABLE idempotency ALTER COLUMN packed SET STORAGE EXTERNAL;
CREATE INDEX idempotency_by_age ON idempotency (created_ms);

-- One row.
CREATE TABLE ledger (
    is_only   boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (is_only),
    openings  bigint  NOT NULL,                    -- tells a process whether another was here meanwhile
    clearings bigint  NOT NULL,
    probes    bigint  NOT NULL                     -- changed for the sake of writing something
);
INSERT INTO ledger (openings, clearings, probes) VALUES (0, 0, 0);

-- Drawn once: what it signs is known again after a restart.
CREATE TABLE secret (
    is_only boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (is_only),
    value   bytea   NOT NULL
);
