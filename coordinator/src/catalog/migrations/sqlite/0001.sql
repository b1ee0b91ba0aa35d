-- Schema 1. Times are nanoseconds since 1970 UTC. Numbers ending in _no are the catalog's own, from
-- `counters`, and never used twice.

CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE domains (
    domain BLOB NOT NULL,
    generation INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    bound_ns INTEGER NOT NULL,
    PRIMARY KEY (domain, generation)
) STRICT, WITHOUT ROWID;

CREATE TABLE volumes (
    volume_no INTEGER NOT NULL PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    domain BLOB NOT NULL,
    facts BLOB NOT NULL,
    bound_ns INTEGER NOT NULL,
    lease_epoch INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL
) STRICT;
CREATE INDEX volumes_by_name ON volumes (name, bound_ns);

-- state: 0 live, 1 condemned, 2 deleting, 3 gone, 4 missing in the store.
CREATE TABLE packs (
    pack_no INTEGER NOT NULL PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    domain BLOB NOT NULL,
    generation INTEGER NOT NULL,
    master INTEGER NOT NULL,
    salt BLOB NOT NULL,
    size INTEGER NOT NULL,
    received_ns INTEGER NOT NULL,
    chunk_count INTEGER NOT NULL,
    node_count INTEGER NOT NULL
) STRICT;

CREATE TABLE frames (
    pack_no INTEGER NOT NULL,
    frame_no INTEGER NOT NULL,
    start INTEGER NOT NULL,
    stored_length INTEGER NOT NULL,
    codec INTEGER NOT NULL,
    plain_length INTEGER NOT NULL,
    PRIMARY KEY (pack_no, frame_no)
) STRICT, WITHOUT ROWID;

-- Chunks and tree nodes: one row for each id, clustered by it. `stamp` is the prune number under which
-- it was last registered, found present or reserved.
CREATE TABLE chunks (
    id BLOB NOT NULL PRIMARY KEY,
    row_no INTEGER NOT NULL,
    pack_no INTEGER NOT NULL,
    frame_no INTEGER NOT NULL,
    item_start INTEGER NOT NULL,
    item_length INTEGER NOT NULL,
    stamp INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Which row numbers a volume holds: 4,096 rows to a segment, as a set (see held.rs).
CREATE TABLE held (
    volume_no INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    rows BLOB NOT NULL,
    PRIMARY KEY (volume_no, segment)
) STRICT, WITHOUT ROWID;

-- state: 0 open, 1 committed. An ended session has no row.
CREATE TABLE sessions (
    id BLOB NOT NULL PRIMARY KEY,
    run_key BLOB NOT NULL UNIQUE,
    volume_no INTEGER NOT NULL,
    node TEXT NOT NULL,
    parent BLOB,
    state INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    opened_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    stamped_since INTEGER NOT NULL,
    snapshot BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_volume ON sessions (volume_no, state);

-- Records that may or may not be in the store: `record` is their exact stored bytes.
CREATE TABLE reservations (
    run_key BLOB NOT NULL PRIMARY KEY,
    session BLOB NOT NULL,
    volume_no INTEGER NOT NULL,
    snapshot BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    root BLOB NOT NULL,
    problems_root BLOB,
    object TEXT NOT NULL,
    record BLOB NOT NULL,
    reserved_ns INTEGER NOT NULL
) STRICT;

-- `record` is the opened record. A forgotten snapshot keeps its row, so that open sessions may still
-- name it as their parent.
CREATE TABLE snapshots (
    id BLOB NOT NULL PRIMARY KEY,
    volume_no INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    started_ns INTEGER NOT NULL,
    received_ns INTEGER NOT NULL,
    parent BLOB,
    root BLOB NOT NULL,
    problems_root BLOB,
    run_key BLOB NOT NULL,
    problem_count INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    record BLOB NOT NULL,
    forgotten_ns INTEGER
) STRICT;
CREATE INDEX snapshots_by_volume ON snapshots (volume_no, sequence);
CREATE INDEX snapshots_by_run ON snapshots (run_key);

CREATE TABLE marks (
    id BLOB NOT NULL PRIMARY KEY,
    kind INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    subject BLOB,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX marks_by_subject ON marks (subject, kind);
