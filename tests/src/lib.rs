//! What whole-system tests share: the binaries driven as a user drives them, trees that are hard to
//! back up, filesystems on loop images, and oracles that are not our own code.

pub mod cli;
pub mod fixture;
pub mod image;
pub mod kube;
pub mod oracle;
pub mod processes;
pub mod prometheus;
pub mod scale;
pub mod server;
pub mod store_contract;
