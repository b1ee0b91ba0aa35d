-- Schema 2. `losses` grows whenever something that was counted on is found to be gone. A volume whose
-- `losses_seen` is lower has its newest snapshot walked before a run may rely on it.

ALTER TABLE volumes ADD COLUMN losses_seen INTEGER NOT NULL DEFAULT 0;
INSERT INTO counters (name, value) SELECT 'losses', EXISTS (SELECT 1 FROM packs WHERE state = 4);
