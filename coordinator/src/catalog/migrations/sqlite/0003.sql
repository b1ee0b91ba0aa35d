-- Schema 3. `suspicious`: the record says so; it and what is older of its volume is kept until a mark
-- acknowledges it. Records from before have no signals and are not.

ALTER TABLE snapshots ADD COLUMN suspicious INTEGER NOT NULL DEFAULT 0;
CREATE INDEX snapshots_suspicious ON snapshots (volume_no, sequence) WHERE suspicious = 1;
