-- What a transaction of the feed says beside the plain fields. All null in one that says nothing more.

ALTER TABLE transactions ADD COLUMN transaction_type TEXT;
ALTER TABLE transactions ADD COLUMN product TEXT;
ALTER TABLE transactions ADD COLUMN status TEXT;    -- null is completed
ALTER TABLE transactions ADD COLUMN metadata TEXT;  -- JSON
ALTER TABLE transactions ADD COLUMN terms TEXT;     -- what it is found by, separated by spaces

-- Drawn once: what it signs is known again after a restart.
CREATE TABLE secret (
    value BLOB NOT NULL
) STRICT;

-- Every number of a row up to this one was used, though the row may be trimmed.
ALTER TABLE ledger ADD COLUMN spent_seq INTEGER NOT NULL DEFAULT 0;
