-- What was asked under which key, and what it was answered; kept though the transactions are deleted.

CREATE TABLE idempotency (
    seq         INTEGER PRIMARY KEY,  -- the oldest go first
    digest      BLOB    NOT NULL UNIQUE,
    fingerprint BLOB    NOT NULL,     -- tells a repeat from another request under the same key
    packed      BLOB    NOT NULL,     -- the answer, deflated where it is long
    created_ms  INTEGER NOT NULL
) STRICT;
