//! The coordinator: owns a repository, receives backups, serves restores.
//!
//! Imports inside the crate go down this list, never up:
//! `service → session, restore_plan → catalog, repo → format`. `repo` never names tonic, `service`
//! never names object_store, and `catalog` has the only SQL.

pub mod auth;
pub mod catalog;
pub mod error;
pub mod restore_plan;
pub mod schedule;
pub mod service;
pub mod session;
pub mod settings;

pub use error::{Error, Kind, Reason, Result};
