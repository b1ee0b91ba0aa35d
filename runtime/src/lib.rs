//! What any process of Holdfast needs beside its own work; knows nothing of backups.
//!
//! | module | what it gives |
//! |---|---|
//! | `alloc` | the allocator of every process |
//! | `clock` | the only source of the time; tests set it |
//! | `backoff` | how long to wait before the next try |
//! | `exit` | the exit codes, each with its one meaning |
//! | `shutdown` | one request to stop, seen by everything, and the wait for what still runs |
//! | `settings` | file and environment, every error at once, unknown keys refused, secrets hidden |
//! | `logging` | one line per event on stderr |
//! | `listen` | where to listen, and where plaintext is allowed |
//! | `certificate` | until when a certificate holds |
//! | `tls` | the crypto provider, server and client identities |
//! | `metrics` | Prometheus families with bounded labels |
//! | `readiness` | latches: ready when the last one is released |
//! | `http` | `/livez`, `/readyz`, `/metrics` |
//! | `program` | command line, settings, logs, then the work |
//!
//! Imports inside the crate go up this table, never down.

mod alloc;
pub mod backoff;
pub mod certificate;
pub mod clock;
pub mod exit;
pub mod http;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod program;
pub mod readiness;
pub mod settings;
pub mod shutdown;
pub mod tls;
