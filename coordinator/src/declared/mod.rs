//! Policies without a cluster: from files that are read again when they change, for the volumes that agents
//! list. They are the same objects, held to the schema that a cluster installs, and `policy` decides by them.
//!
//! All mistakes of all files are found at once. Files with a mistake change nothing: the policies before stay
//! in force, and that is said in the log, in a metric and in `status`.

mod feed;
mod fields;
mod line;
mod read;
mod source;
mod subjects;
#[cfg(test)]
mod tests;

pub use feed::{Standing, start};
pub use source::{Loaded, Mistakes, load};
