-- Transactions are appended and never changed.

CREATE TABLE transactions (
    seq          INTEGER PRIMARY KEY,  -- order of arrival; never used twice
    id           BLOB    NOT NULL,     -- UUID version 7, 16 bytes
    epoch        INTEGER NOT NULL,     -- the deletion epoch it arrived in; another is as good as gone
    amount_units INTEGER NOT NULL,     -- 10^-8 of the currency's main unit
    currency     TEXT    NOT NULL,
    timestamp_ms INTEGER NOT NULL,     -- when it happened, since the Unix epoch, UTC
    latest_ms    INTEGER NOT NULL,     -- no row up to this one has a later timestamp
    user_id      TEXT
) STRICT;

-- There is no index by time: rows arrive nearly in its order, but not quite, and in a second's disorder
-- every row would touch an index page of its own. The start finds the last window by going back from
-- the newest row to the first whose latest_ms lies before it.

-- One row. DELETE /transactions raises the epoch, whatever the number of rows; they go later.
CREATE TABLE ledger (
    epoch       INTEGER NOT NULL,
    cleared_seq INTEGER NOT NULL,      -- every row up to this one was cleared
    probes      INTEGER NOT NULL       -- changed for the sake of writing something
) STRICT;

INSERT INTO ledger VALUES (0, 0, 0);
