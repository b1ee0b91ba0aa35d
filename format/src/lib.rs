//! The stored format and its pure rules. No IO, no clock, no async, no randomness: all are arguments.
//!
//! `FORMAT.md` beside this crate is normative for the bytes; this crate is its one implementation.
//! Imports inside the crate go down this list, never up.

pub mod delta;
pub mod entry;
pub mod error;
pub mod id;
pub mod path;
pub mod volume;

pub use error::FormatError;
