//! The stored format and its pure rules. No IO, no clock, no async, no randomness: all are arguments.
//!
//! `FORMAT.md` beside this crate is normative for the bytes; this crate is its one implementation.

pub mod chunker;
pub mod claim;
pub mod codec;
pub mod coding;
pub mod content;
pub mod deletion;
pub mod delta;
pub mod digest;
pub mod entry;
pub mod error;
pub mod frame;
pub mod fuzz;
pub mod id;
pub mod keys;
pub mod keyslot;
pub mod list;
pub mod mark;
pub mod names;
pub mod pack;
pub mod path;
pub mod repository;
pub mod seal;
pub mod segment;
pub mod signals;
pub mod snapshot;
pub mod stamp;
pub mod stats;
pub mod tree;
pub mod volume;
pub mod wire;

pub use error::FormatError;
