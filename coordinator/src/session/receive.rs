//! Frames from an agent: nothing in them is believed. Each is opened with a cap, every chunk is hashed
//! again with the domain's key, and only then does it reach a pack.
//!
//! A frame of which at least half is new goes into the pack as it came; otherwise it is built again
//! from what is new. Either way the volume holds all of its chunks afterwards.

use crate::blocking;
use crate::error::{Error, Result};
use crate::session::Session;
use crate::session::pack_pool::Presence;
use crate::session::run::Run;
use crate::session::ticket::Ticket;
use bytes::Bytes;
use holdfast_format::FormatError;
use holdfast_format::frame::{Frame, FrameBuilder, verify_chunks};
use holdfast_format::id::ChunkId;
use holdfast_format::keys::Ids;
use holdfast_format::pack::ItemKind;
use std::collections::HashSet;
use std::sync::Arc;

/// A frame whose every chunk has its id, and its plain bytes.
pub struct Verified {
    frame: Frame,
    plain: Bytes,
}

/// Opens and checks a frame. Takes a core for about a millisecond per MiB: for a blocking thread.
pub fn verify(ids: &Ids, frame: Frame) -> Result<Verified> {
    let plain = frame.open().map_err(refuse)?;
    verify_chunks(ids, &frame, &plain).map_err(refuse)?;
    Ok(Verified { frame, plain })
}

fn refuse(error: FormatError) -> Error {
    match error {
        FormatError::ChunkMismatch(chunk) => Error::InvalidChunkId { chunk },
        FormatError::Limit { .. } | FormatError::Codec { .. } => Error::FrameTooLarge {
            detail: error.to_string(),
        },
        error => Error::Format(error),
    }
}

impl Session {
    /// Stores what is new in a frame. Everything in it is durable, and held, when the tickets are.
    pub(super) async fn take_frame(
        &self,
        run: &mut Run,
        verified: Verified,
    ) -> Result<Vec<Arc<Ticket>>> {
        let Verified { frame, plain } = verified;
        let ids: Vec<[u8; 32]> = frame.items.iter().map(|item| item.id).collect();
        let found = self.core.pool.presence(&self.domain, &ids).await?;

        let mut tickets: Vec<Arc<Ticket>> = Vec::new();
        let mut fresh = vec![false; ids.len()];
        let mut fresh_ids = HashSet::new();
        let mut fresh_bytes = 0;
        {
            let mut proven = self.proven();
            for (n, presence) in found.into_iter().enumerate() {
                let id = &ids[n];
                let after = match presence {
                    Presence::Absent => {
                        fresh[n] = fresh_ids.insert(*id);
                        if fresh[n] {
                            fresh_bytes += u64::from(frame.items[n].length);
                        }
                        continue;
                    }
                    Presence::Pending(ticket) => {
                        note(&mut tickets, &ticket);
                        Some(ticket)
                    }
                    Presence::Stored => None,
                };
                let chunk = ChunkId::from_bytes(*id);
                if proven.length(&chunk).is_none() {
                    run.holds.push(chunk, after);
                    note(&mut tickets, run.holds.ticket());
                }
            }
            for item in &frame.items {
                proven.insert(&ChunkId::from_bytes(item.id), item.length)?;
            }
        }
        if fresh_bytes > 0 {
            run.stats.new_chunks += fresh_ids.len() as u64;
            run.stats.new_chunk_bytes += fresh_bytes;
            let frame = if fresh_bytes * 2 >= u64::from(frame.plain_length) {
                frame
            } else {
                let level = self.core.settings.packs.level;
                blocking("build a frame again", move || {
                    rebuild(&frame, &plain, &fresh, level)
                })
                .await?
            };
            run.stats.stored_bytes += frame.payload.len() as u64;
            run.stats.frame_packed_bytes += frame.payload.len() as u64;
            run.stats.frame_plain_bytes += u64::from(frame.plain_length);
            let volume = Some(self.volume.no);
            let kind = ItemKind::Chunk;
            let ticket = self
                .core
                .pool
                .add(&self.domain, frame, kind, volume)
                .await?;
            note(&mut tickets, &ticket);
        }
        for ticket in &tickets {
            run.wait_for(ticket);
        }
        if run.holds.is_full() {
            self.write_holds(run).await?;
        }
        Ok(tickets)
    }

    /// Writes the collected batch of held chunks.
    pub(super) async fn write_holds(&self, run: &mut Run) -> Result<()> {
        if run.holds.is_empty() {
            return Ok(());
        }
        self.core
            .pool
            .close(&self.domain, run.holds.after())
            .await?;
        run.holds.write(&self.core.catalog, self.volume.no).await
    }
}

fn note(tickets: &mut Vec<Arc<Ticket>>, ticket: &Arc<Ticket>) {
    if !tickets.iter().any(|known| Arc::ptr_eq(known, ticket)) {
        tickets.push(ticket.clone());
    }
}

/// A frame of the new chunks only.
fn rebuild(frame: &Frame, plain: &[u8], fresh: &[bool], level: i32) -> Result<Frame> {
    let mut builder = FrameBuilder::new();
    for ((id, bytes), fresh) in frame.slices(plain).zip(fresh) {
        if *fresh {
            builder.push(id, bytes)?;
        }
    }
    Ok(builder.finish(level)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;
    use holdfast_format::keys::IdKey;

    fn frame(ids: &Ids, parts: &[&[u8]]) -> Frame {
        let mut builder = FrameBuilder::new();
        for part in parts {
            builder.push(ids.chunk(part).into_bytes(), part).unwrap();
        }
        builder.finish(1).unwrap()
    }

    #[test]
    fn lies_are_told_apart() {
        let ids = IdKey::from_bytes([1; 32]).ids();
        let text = b"some words again and again ".repeat(40);
        let good = frame(&ids, &[&text, b"x"]);
        verify(&ids, good.clone()).unwrap();

        let other = IdKey::from_bytes([2; 32]).ids();
        let reason = |frame| verify(&ids, frame).err().unwrap().reason();
        assert_eq!(reason(frame(&other, &[b"x"])), Reason::InvalidChunkId);
        let mut bomb = good.clone();
        bomb.plain_length = u32::MAX;
        assert_eq!(reason(bomb), Reason::FrameTooLarge);
        let mut short = good;
        short.items.pop();
        assert_eq!(reason(short), Reason::InvalidRequest);
    }

    #[test]
    fn a_frame_built_again_has_the_new_chunks_only() {
        let ids = IdKey::from_bytes([1; 32]).ids();
        let whole = frame(&ids, &[b"one", b"two", b"three"]);
        let plain = whole.open().unwrap();
        let part = rebuild(&whole, &plain, &[false, true, false], 3).unwrap();
        assert_eq!(part.items.len(), 1);
        assert_eq!(&part.open().unwrap()[..], b"two");
    }
}
