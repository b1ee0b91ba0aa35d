//! One upload, from begin to commit.
mod filter;
mod known;
mod ticket;
