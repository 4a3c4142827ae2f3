-- What was asked under which key, and what it was answered; kept though the transactions are deleted.

CREATE TABLE idempotency (
    seq         INTEGER PRIMARY KEY,
    digest      BLOB    NOT NULL UNIQUE,
    fingerprint BLOB    NOT NULL,     -- tells a repeat from another request under the same key
    packed      BLOB    NOT NULL,     -- the answer, deflated where it is long
    created_ms  INTEGER NOT NULL      -- the oldest go first
) STRICT;

-- By age and not by seq: records of a clock that was once wrong would keep those behind them.
CREATE INDEX idempotency_by_age ON idempotency (created_ms);
