//! Whether a caller may do what it asks. Every service call passes here before it does anything.
//!
//! Until identities exist, the boundary is the listener (loopback, a unix socket, or this process), so
//! every caller that reached us is `Peer::Local` and may do everything; the call sites stay.

use crate::error::{Error, Result};
use holdfast_format::volume::VolumeFacts;

/// Longest node name, in bytes.
pub const MAX_NODE: usize = 253;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody whom the listener let in.
    Local,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    /// Back up the volume with these facts.
    Backup(&'a VolumeFacts),
    /// Go on with a session that `Backup` opened.
    Session,
    /// Receive orders as this node.
    Serve(&'a str),
    /// Read snapshots.
    Read,
    /// List, forget, start jobs.
    Administer,
}

/// Decides; `NotAllowed` names what was refused.
pub fn authorize(peer: &Peer, action: Action<'_>) -> Result<()> {
    match (peer, action) {
        (Peer::Local, Action::Backup(facts)) if facts.node.len() > MAX_NODE => {
            Err(Error::NotAllowed {
                detail: "node name above 253 bytes".into(),
            })
        }
        (Peer::Local, Action::Serve("")) => Err(Error::NotAllowed {
            detail: "an agent must name its node".into(),
        }),
        (Peer::Local, _) => Ok(()),
    }
}
