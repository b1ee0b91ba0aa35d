-- Schema 4. `unfinished_hooks`: post-hooks that must run although their coordinator may not be there any more. A
-- row is written before the pre-hook is sent and removed when the post-hook has run. Of this catalog only: it
-- cannot be built again from the store, and where it is lost the watchdog in the container is left.

CREATE TABLE unfinished_hooks (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    body TEXT NOT NULL
) STRICT;
