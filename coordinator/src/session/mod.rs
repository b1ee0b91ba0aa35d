//! One upload, from begin to commit.
mod acks;
mod filter;
mod holds;
mod known;
mod lease;
mod open_pack;
mod spool;
mod ticket;
