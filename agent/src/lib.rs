//! Reads volumes, ships what changed, and writes snapshots back.
//!
//! A backup, station by station: `volumes` finds what may be backed up; `backup` opens a session
//! through `client`; `scan` walks the volume in key order; `backup::compare` merges the walk with
//! `index`; `read` reads what may have changed; `upload` ships frames and entries; after the
//! commit's acknowledgement, and only then, `index` moves forward. `restore` is the way back.
//!
//! Everything that touches a volume is synchronous and runs on blocking threads; what talks to the
//! coordinator is async; they are joined by channels bounded in bytes.

pub mod backup;
pub mod beneath;
pub mod cancel;
pub mod client;
pub mod error;
pub mod index;
pub mod limits;
pub mod mount;
pub mod priority;
pub mod probe;
pub mod progress;
pub mod read;
pub mod restore;
pub mod rules;
pub mod scan;
mod sort;
mod spool;
pub mod stat;
mod sys;
pub mod upload;
pub mod volumes;

pub use cancel::Cancel;
pub use error::{Error, ItemProblem, Result};
pub use progress::Progress;
