//! Doubt of what is stored, once a part of it could not be read: packs are read whole, and what cannot
//! be read of them counts as absent, so that whoever has it stores it again.
//!
//! Nothing is deleted from the store. An id that lost its place gets a new one with the next pack that
//! brings it, and every snapshot that refers to it is whole again.

use crate::Core;
use crate::error::{Error, Result};
use crate::repo::FrameAddress;
use crate::session::pack_pool::{Domain, Presence};
use holdfast_format::id::PackId;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The packs that a session has read because it doubts them.
#[derive(Default)]
pub struct Doubt {
    examined: Mutex<HashSet<PackId>>,
}

impl Doubt {
    /// What is present of these ids, after the packs that hold them were read.
    pub async fn presence(
        &self,
        core: &Core,
        domain: &Domain,
        ids: &[[u8; 32]],
    ) -> Result<Vec<Presence>> {
        let found = core.pool.presence(domain, ids).await?;
        let stored = ids.iter().zip(&found);
        let stored: Vec<[u8; 32]> = stored
            .filter(|(_, presence)| matches!(presence, Presence::Stored))
            .map(|(id, _)| *id)
            .collect();
        let places = core.catalog.locate(&stored).await?;
        let packs: HashSet<PackId> = {
            let mut examined = self.examined.lock().unwrap_or_else(PoisonError::into_inner);
            let packs = places.into_iter().flatten().map(|place| place.pack);
            packs.filter(|pack| examined.insert(*pack)).collect()
        };
        let mut lost = 0;
        for pack in packs {
            lost += core.examine(pack).await?;
        }
        match lost {
            0 => Ok(found),
            _ => core.pool.presence(domain, ids).await,
        }
    }
}

impl Core {
    /// Examines every pack of which something could not be read since this process began.
    pub(super) async fn examine_suspects(&self) -> Result<()> {
        for pack in self.library.suspects.take() {
            if let Err(error) = self.examine(pack).await {
                self.library.suspects.add(pack);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Reads a pack past all caches; what cannot be read of it counts as absent. How many ids that was.
    async fn examine(&self, pack: PackId) -> Result<u64> {
        let Some((info, frames)) = self.catalog.pack_frames(&pack).await? else {
            return Ok(0);
        };
        let addresses: Vec<FrameAddress> = frames
            .iter()
            .map(|frame| FrameAddress {
                pack,
                header: info.pack.header(),
                frame_no: frame.frame_no,
                offset: frame.offset,
                stored_length: frame.stored_length,
            })
            .collect();
        let mut unreadable = Vec::new();
        let reader = &self.library.reader;
        let done: Result<()> = reader
            .read_frames(&addresses, |index, frame| {
                let opened = frame.and_then(|frame| frame.open().map(drop));
                let kept = match opened {
                    Err(error) if error.is_damage() => {
                        tracing::error!(%error, "damage in the store");
                        unreadable.push(addresses[index].frame_no);
                        Ok(())
                    }
                    other => other.map_err(Error::from),
                };
                std::future::ready(kept)
            })
            .await;
        done?;
        if unreadable.is_empty() {
            return Ok(0);
        }
        let lost = self.catalog.forget_frames(info.no, &unreadable).await?;
        tracing::warn!(%pack, frames = unreadable.len(), ids = lost, "they count as absent from now on");
        Ok(lost)
    }
}
