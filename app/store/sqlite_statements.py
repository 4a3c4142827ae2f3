"""The ledger in SQL: what is said to the file it is kept in.

Statements that only the feed's index knows are `sqlite_index`'s; the tables are `migrations/sqlite`'s.
"""

from typing import Final

import msgspec

from app.core.transaction import Transaction

_CACHE_KIB: Final = 32_768

PRAGMAS: Final = f"""
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA cache_size = -{_CACHE_KIB};
    PRAGMA cache_spill = OFF;
    PRAGMA temp_store = MEMORY;
"""

STATE: Final = """
    SELECT epoch, cleared_seq, max(cleared_seq, spent_seq, coalesce(seq, 0)), coalesce(latest_ms, 0)
    FROM ledger LEFT JOIN (SELECT seq, latest_ms FROM transactions ORDER BY seq DESC LIMIT 1)
"""

INSERT: Final = """
    INSERT INTO transactions
        (seq, id, epoch, amount_units, currency, timestamp_ms, latest_ms, user_id,
         transaction_type, product, status, metadata, terms)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

REMEMBER: Final = """
    INSERT INTO idempotency (digest, fingerprint, packed, created_ms) VALUES (?, ?, ?, ?)
"""

FIND: Final = """
    SELECT digest, fingerprint, packed, created_ms FROM idempotency
    WHERE digest IN (SELECT unhex(value) FROM json_each(?))
"""

EXPIRE: Final = """
    DELETE FROM idempotency WHERE seq IN
        (SELECT seq FROM idempotency WHERE created_ms < ?1 ORDER BY created_ms LIMIT ?2)
"""

# A sum of amounts may pass 64 bits, where SQLite's sum() fails; the sums of their halves do not.
TALLY: Final = """
    SELECT currency, timestamp_ms / ?1 * ?1 AS slot_ms, count(*),
           sum(amount_units >> 32), sum(amount_units & 0xffffffff),
           min(amount_units), max(amount_units)
    FROM transactions
    WHERE timestamp_ms BETWEEN ?2 AND ?3 AND epoch = ?4 AND seq > coalesce(
        (SELECT seq FROM transactions WHERE latest_ms < ?2 ORDER BY seq DESC LIMIT 1), 0
    )
    GROUP BY slot_ms, currency
"""

# No number of a row is used again, though all of them may be trimmed.
TRIM: Final = """
    UPDATE ledger SET spent_seq = max(spent_seq, coalesce((SELECT max(seq) FROM transactions), 0));
    DELETE FROM transactions WHERE seq IN (
        SELECT seq FROM (
            SELECT seq, id FROM transactions
            WHERE seq > (SELECT cleared_seq FROM ledger) ORDER BY seq LIMIT ?2
        ) WHERE id < ?1
    )
"""

FIRST_RECENT: Final = """
    SELECT max(cleared_seq, coalesce(
        (SELECT seq FROM transactions WHERE latest_ms < ? ORDER BY seq DESC LIMIT 1), 0
    )) FROM ledger
"""

# One text for all rows: each row's own step would hand the interpreter over.
RECENT: Final = """
    SELECT json_group_array(json_object(
        'amount_units', amount_units, 'timestamp_ms', timestamp_ms,
        'currency', currency, 'user_id', user_id
    ))
    FROM transactions
    WHERE seq > ?1 AND seq <= ?2 AND timestamp_ms BETWEEN ?3 AND ?4 AND epoch = ?5
        AND user_id IS NOT NULL
"""
decode_recent: Final = msgspec.json.Decoder(list[Transaction]).decode

# SQLite writes nothing where a value stays what it was.
PROBE: Final = "UPDATE ledger SET probes = probes + 1"

PURGE: Final = """
    DELETE FROM transactions WHERE seq IN
        (SELECT seq FROM transactions WHERE seq <= (SELECT cleared_seq FROM ledger) ORDER BY seq LIMIT ?)
"""
