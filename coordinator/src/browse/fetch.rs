//! The chunks of a restore: read pack by pack, sent on as they are stored where most of a frame is
//! wanted, built again where it is not. What cannot be read is named, and the rest goes on.

use crate::blocking;
use crate::browse::{AHEAD, Results, View};
use crate::error::{Error, Result};
use crate::repo::{FrameAddress, RepoError, StoredFrame};
use crate::restore_plan::{FrameRead, Wanted, plan};
use futures::StreamExt;
use holdfast_format::frame::{Frame, FrameBuilder, FrameItem};
use holdfast_format::id::{ChunkId, PackId};
use holdfast_format::pack::PackFrame;
use holdfast_format::seal::{Header, KeyRef};
use std::collections::HashMap;
use tokio::sync::mpsc;

/// Chunks looked up at once.
const LOOKUP: usize = 4096;
/// zstd level of frames that are built again: they are read once.
const LEVEL: i32 = 1;

/// A part of the answer.
#[derive(Debug)]
pub enum Fetched {
    /// Holds at least one wanted chunk.
    Frame(Frame),
    /// Chunks that cannot be had.
    Damaged {
        /// Their ids.
        chunks: Vec<[u8; 32]>,
        /// A stable word.
        reason: &'static str,
        /// Names the object.
        detail: String,
    },
}

/// Reads these chunks of a snapshot's domain.
pub fn fetch(view: View, chunks: Vec<ChunkId>) -> Results<Fetched> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let fetching = Fetching { view, sender };
        if let Err(error) = fetching.run(&chunks).await {
            // Where the reader has gone, nobody is told.
            let _ = fetching.sender.send(Err(error)).await;
        }
    });
    receiver
}

struct Fetching {
    view: View,
    sender: mpsc::Sender<Result<Fetched>>,
}

/// The frames of the pack that is being read.
#[derive(Default)]
struct Listing {
    pack: Option<PackId>,
    frames: Vec<PackFrame>,
}

/// What was found of the wanted chunks.
#[derive(Default)]
struct Located {
    wanted: Vec<Wanted>,
    packs: HashMap<PackId, (Header, u64)>,
    absent: Vec<[u8; 32]>,
}

fn is_damage(error: &Error) -> bool {
    error.reason() == crate::Reason::DamageFound
        || matches!(error, Error::Repo(RepoError::ObjectMissing { .. }))
}

impl Fetching {
    async fn run(&self, chunks: &[ChunkId]) -> Result<()> {
        let ids: Vec<[u8; 32]> = chunks.iter().map(|id| id.into_bytes()).collect();
        let located = self.locate(&ids).await?;
        let gone = self.read(&located).await?;
        self.absent(located.absent).await?;
        if gone.is_empty() {
            return Ok(());
        }
        // A pack may have been written anew since its chunks were looked up: look once more.
        let ids: Vec<[u8; 32]> = gone.iter().map(|(id, _)| *id).collect();
        let again = self.locate(&ids).await?;
        let still: HashMap<[u8; 32], String> = self.read(&again).await?.into_iter().collect();
        self.absent(again.absent).await?;
        let mut by_pack: HashMap<String, Vec<[u8; 32]>> = HashMap::new();
        for (id, object) in still {
            by_pack.entry(object).or_default().push(id);
        }
        for (detail, chunks) in by_pack {
            let reason = "PackMissing";
            self.send(Fetched::Damaged {
                chunks,
                reason,
                detail,
            })
            .await?;
        }
        Ok(())
    }

    async fn locate(&self, ids: &[[u8; 32]]) -> Result<Located> {
        let own = |header: &Header| {
            matches!(header.key, KeyRef::Domain { domain, generation, .. }
                if domain == self.view.keys.domain && generation == self.view.keys.generation)
        };
        let mut out = Located::default();
        for ids in ids.chunks(LOOKUP) {
            let found = self.view.library.catalog.locate_to_read(ids).await?;
            for (id, place) in ids.iter().zip(found) {
                // Another domain's chunks are not this snapshot's, whoever knows their ids.
                let Some(place) = place.filter(|place| own(&place.header)) else {
                    out.absent.push(*id);
                    continue;
                };
                out.packs
                    .insert(place.pack, (place.header, place.pack_size));
                out.wanted.push(Wanted {
                    id: *id,
                    pack: place.pack,
                    frame_no: place.frame_no,
                    offset: place.offset,
                    stored_length: place.stored_length,
                    plain_length: place.plain_length,
                    start: place.item_offset,
                    length: place.item_length,
                });
            }
        }
        Ok(out)
    }

    /// Sends what can be read; the chunks whose packs are not there, with the packs' names.
    async fn read(&self, located: &Located) -> Result<Vec<([u8; 32], String)>> {
        let packs = plan(&located.wanted);
        let reads: Vec<(PackId, &FrameRead)> = packs
            .iter()
            .flat_map(|pack| pack.frames.iter().map(|frame| (pack.pack, frame)))
            .collect();
        let mut addresses = Vec::with_capacity(reads.len());
        for (pack, frame) in &reads {
            let place = located.packs.get(pack);
            let (header, _) = place.ok_or_else(|| Error::internal("plan a restore"))?;
            addresses.push(FrameAddress {
                pack: *pack,
                header: *header,
                frame_no: frame.frame_no,
                offset: frame.offset,
                stored_length: frame.stored_length,
            });
        }
        let mut gone = Vec::new();
        let mut listing = Listing::default();
        let mut frames = self.view.library.reader.frames(addresses);
        while let Some((index, stored)) = frames.next().await {
            let (pack, frame) = reads[index];
            let wanted: Vec<&Wanted> = frame.wanted.iter().map(|n| &located.wanted[*n]).collect();
            let made = match stored {
                Ok(stored) => {
                    let size = located.packs.get(&pack).map_or(0, |(_, size)| *size);
                    let listed = self.listed(&mut listing, pack, size, frame).await?;
                    self.answer(frame, &wanted, listed, stored).await
                }
                Err(error) => Err(error.into()),
            };
            if made.as_ref().is_err_and(is_damage) {
                // The next run of a volume finds out what is left of it.
                self.view.library.suspects.add(pack);
            }
            match made {
                Ok(frame) => self.send(Fetched::Frame(frame)).await?,
                Err(Error::Repo(RepoError::ObjectMissing { name })) => {
                    gone.extend(wanted.iter().map(|chunk| (chunk.id, name.clone())));
                }
                Err(error) if is_damage(&error) => {
                    let reason = match &error {
                        Error::Repo(RepoError::ObjectTruncated { .. }) => "PackDamaged",
                        _ => "FrameDamaged",
                    };
                    let chunks = wanted.iter().map(|chunk| chunk.id).collect();
                    let detail = error.to_string();
                    self.send(Fetched::Damaged {
                        chunks,
                        reason,
                        detail,
                    })
                    .await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    /// The frame as its pack's footer lists it, where it is to be sent on with chunks that are not
    /// wanted. A footer that cannot be read costs building the frame again.
    async fn listed<'l>(
        &self,
        listing: &'l mut Listing,
        pack: PackId,
        size: u64,
        frame: &FrameRead,
    ) -> Result<Option<&'l PackFrame>> {
        if frame.is_whole() || !frame.forward() {
            return Ok(None);
        }
        if listing.pack != Some(pack) {
            let contents = self.view.library.reader.footer(pack, size).await;
            listing.frames = match contents {
                Ok(contents) => contents.frames,
                Err(error) if error.is_damage() => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            listing.pack = Some(pack);
        }
        let listed = listing.frames.get(frame.frame_no as usize);
        Ok(listed.filter(|listed| listed.frame_no == frame.frame_no))
    }

    async fn answer(
        &self,
        frame: &FrameRead,
        wanted: &[&Wanted],
        listed: Option<&PackFrame>,
        stored: StoredFrame,
    ) -> Result<Frame> {
        let whole = |items| Frame {
            codec: stored.codec,
            plain_length: stored.plain_length,
            items,
            payload: stored.payload.clone(),
        };
        if frame.is_whole() {
            let item = |chunk: &&Wanted| FrameItem {
                id: chunk.id,
                length: chunk.length,
            };
            return Ok(whole(wanted.iter().map(item).collect()));
        }
        if let Some(listed) = listed {
            return Ok(whole(listed.frame_items()));
        }
        let places: Vec<([u8; 32], u32, u32)> = wanted
            .iter()
            .map(|chunk| (chunk.id, chunk.start, chunk.length))
            .collect();
        let frame_no = frame.frame_no;
        blocking("build a frame again", move || {
            let plain = stored.open()?;
            let mut builder = FrameBuilder::new();
            for (id, start, length) in places {
                let end = start as usize + length as usize;
                let bytes = plain
                    .get(start as usize..end)
                    .ok_or_else(|| Error::DamageFound {
                        detail: format!("frame {frame_no} is shorter than the catalog says"),
                    })?;
                builder.push(id, bytes)?;
            }
            Ok(builder.finish(LEVEL)?)
        })
        .await
    }

    async fn absent(&self, chunks: Vec<[u8; 32]>) -> Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        self.send(Fetched::Damaged {
            chunks,
            reason: "ChunkMissing",
            detail: "in no pack that is known".into(),
        })
        .await
    }

    async fn send(&self, fetched: Fetched) -> Result<()> {
        self.sender
            .send(Ok(fetched))
            .await
            .map_err(|_| Error::Cancelled {
                detail: "the reader has hung up".into(),
            })
    }
}
