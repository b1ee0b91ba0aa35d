//! A pack that is being filled: first a few frames as they came, then a builder that seals them.
//!
//! Frames are not sealed before they exceed the limit of a mixed pack, so that a small commit can still
//! put its chunks and nodes into one pack. Above the memory budget the sealed bytes go to a file that
//! has no name, so that nothing is left of it after a crash.

use crate::catalog::VolumeNo;
use crate::error::{Error, Result};
use crate::session::ticket::Ticket;
use holdfast_format::FormatError;
use holdfast_format::frame::Frame;
use holdfast_format::id::{ChunkId, RepositoryId};
use holdfast_format::keys::DomainKeys;
use holdfast_format::pack::{FinishedPack, ItemKind, PackBuilder};
use holdfast_format::seal::{KeyRef, ObjectKind};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

/// Items after which a pack is full, however small they are: bounds the memory for their ids.
pub const MAX_OPEN_ITEMS: usize = 32 * 1024;
/// What an item costs in memory while its pack is open, roughly: its places in maps and lists.
const ITEM_BYTES: u64 = 160;

/// What is needed to seal a pack of a domain generation.
pub struct Recipe<'a> {
    /// The repository.
    pub repository: RepositoryId,
    /// Keys of the domain generation.
    pub keys: &'a DomainKeys,
    /// Draws a salt.
    pub salt: &'a dyn Fn() -> Result<[u8; 32]>,
    /// Stored bytes above which a pack holds one kind of items only.
    pub mixed_bytes: u64,
    /// Stored bytes at which a pack is full.
    pub target_bytes: u64,
}

/// A pack that is being filled.
pub struct OpenPack {
    tickets: Vec<Arc<Ticket>>,
    kind: ObjectKind,
    waiting: Vec<(Frame, ItemKind)>,
    waiting_bytes: u64,
    builder: Option<PackBuilder>,
    spill: Option<File>,
    held: HashMap<VolumeNo, Vec<ChunkId>>,
    items: usize,
}

/// A pack ready to be put.
pub struct ClosedPack {
    /// All of it.
    pub pack: FinishedPack,
    /// Which volumes hold which of its chunks.
    pub held: Vec<(VolumeNo, Vec<ChunkId>)>,
}

impl OpenPack {
    /// An empty pack for items of this kind.
    pub fn new(items: ItemKind) -> Self {
        Self {
            tickets: vec![Ticket::new()],
            kind: match items {
                ItemKind::Chunk => ObjectKind::DataPack,
                ItemKind::Node => ObjectKind::TreePack,
            },
            waiting: Vec::new(),
            waiting_bytes: 0,
            builder: None,
            spill: None,
            held: HashMap::new(),
            items: 0,
        }
    }

    /// What stands for the fate of everything in it.
    pub fn ticket(&self) -> &Arc<Ticket> {
        &self.tickets[0]
    }

    /// Everybody who waits for it.
    pub fn tickets(&self) -> &[Arc<Ticket>] {
        &self.tickets
    }

    /// Whether one of these tickets is this pack's.
    pub fn is_one_of(&self, tickets: &[Arc<Ticket>]) -> bool {
        tickets
            .iter()
            .any(|wanted| self.tickets.iter().any(|own| Arc::ptr_eq(own, wanted)))
    }

    /// Takes a frame in; `holder` then holds its chunks.
    pub fn push(
        &mut self,
        frame: Frame,
        kind: ItemKind,
        holder: Option<VolumeNo>,
        recipe: &Recipe<'_>,
    ) -> Result<()> {
        if let Some(volume) = holder {
            let ids = frame.items.iter().map(|item| ChunkId::from_bytes(item.id));
            self.held.entry(volume).or_default().extend(ids);
        }
        self.items += frame.items.len();
        if let Some(builder) = &mut self.builder {
            builder.add(&frame, kind)?;
            return Ok(());
        }
        self.waiting_bytes += frame.payload.len() as u64;
        self.waiting.push((frame, kind));
        if self.waiting_bytes >= recipe.mixed_bytes {
            self.seal(recipe)?;
        }
        Ok(())
    }

    /// Frames of both into one pack, if both are small enough; otherwise they come back.
    #[allow(clippy::result_large_err)] // not an error: the packs themselves, moved once a commit
    pub fn merge(self, tree: Self, recipe: &Recipe<'_>) -> std::result::Result<Self, (Self, Self)> {
        let small = self.builder.is_none() && tree.builder.is_none();
        if !small || self.waiting_bytes + tree.waiting_bytes >= recipe.mixed_bytes {
            return Err((self, tree));
        }
        let mut merged = self;
        merged.kind = ObjectKind::MixedPack;
        merged.tickets.extend(tree.tickets);
        merged.waiting.extend(tree.waiting);
        merged.waiting_bytes += tree.waiting_bytes;
        merged.items += tree.items;
        for (volume, ids) in tree.held {
            merged.held.entry(volume).or_default().extend(ids);
        }
        Ok(merged)
    }

    /// Whether it is time to put it.
    pub fn is_full(&self, recipe: &Recipe<'_>) -> bool {
        let full = |builder: &PackBuilder| {
            builder.is_full() || builder.stored_bytes() >= recipe.target_bytes
        };
        self.items >= MAX_OPEN_ITEMS || self.builder.as_ref().is_some_and(full)
    }

    /// Bytes in memory.
    pub fn memory_bytes(&self) -> u64 {
        let sealed = self.builder.as_ref().map_or(0, PackBuilder::memory_bytes);
        self.waiting_bytes + sealed as u64 + self.items as u64 * ITEM_BYTES
    }

    /// Bytes that `spill` would take out of memory.
    pub fn spillable_bytes(&self) -> u64 {
        self.builder.as_ref().map_or(0, PackBuilder::memory_bytes) as u64
    }

    /// Stored bytes of the whole pack once it is put, footer not counted.
    pub fn stored_bytes(&self) -> u64 {
        let sealed = self.builder.as_ref().map_or(0, PackBuilder::stored_bytes);
        self.waiting_bytes + sealed
    }

    /// Moves the sealed bytes to a file in `dir`.
    pub fn spill(&mut self, dir: &Path) -> Result<()> {
        let Some(builder) = &mut self.builder else {
            return Ok(());
        };
        let failed = |source| Error::io(format!("write a spill file in {}", dir.display()), source);
        let file = match &mut self.spill {
            Some(file) => file,
            None => self
                .spill
                .insert(tempfile::tempfile_in(dir).map_err(failed)?),
        };
        let parts = builder.take_sealed();
        let written = parts.iter().try_for_each(|part| file.write_all(part));
        written.map_err(failed)
    }

    /// Seals what waits and the footer.
    pub fn close(mut self, recipe: &Recipe<'_>) -> Result<ClosedPack> {
        self.seal(recipe)?;
        let builder = self
            .builder
            .ok_or_else(|| Error::internal("close a pack"))?;
        let mut pack = builder.finish()?;
        if let Some(file) = self.spill {
            let read = spilled(file, &pack);
            let spilled = read.map_err(|source| Error::io("read a spill file", source))?;
            pack.parts.insert(0, spilled.into());
        }
        Ok(ClosedPack {
            pack,
            held: self.held.into_iter().collect(),
        })
    }

    fn seal(&mut self, recipe: &Recipe<'_>) -> Result<()> {
        let builder = match &mut self.builder {
            Some(builder) => builder,
            None => {
                let master = recipe
                    .keys
                    .current()
                    .ok_or_else(|| FormatError::KeyMissing {
                        what: "pack",
                        key: format!("a master of domain {}", recipe.keys.domain),
                    })?;
                let key = KeyRef::Domain {
                    domain: recipe.keys.domain,
                    generation: recipe.keys.generation,
                    master: master.number,
                };
                let salt = (recipe.salt)()?;
                self.builder.insert(PackBuilder::new(
                    recipe.repository,
                    self.kind,
                    key,
                    master,
                    salt,
                ))
            }
        };
        for (frame, kind) in std::mem::take(&mut self.waiting) {
            builder.add(&frame, kind)?;
        }
        self.waiting_bytes = 0;
        Ok(())
    }
}

/// The start of a pack, whose end was not spilled.
fn spilled(mut file: File, pack: &FinishedPack) -> std::io::Result<Vec<u8>> {
    let whole = usize::try_from(pack.stored_bytes).map_err(std::io::Error::other)?;
    let end: usize = pack.parts.iter().map(bytes::Bytes::len).sum();
    let length = whole.saturating_sub(end);
    let mut bytes = Vec::with_capacity(length);
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    if bytes.len() != length {
        return Err(std::io::Error::other("it does not have the length written"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_format::frame::FrameBuilder;
    use holdfast_format::id::DomainId;
    use holdfast_format::keys::{IdKey, SealingMaster};
    use holdfast_format::pack::open_pack;
    use holdfast_format::seal::KeyMaterial;

    const REPOSITORY: RepositoryId = RepositoryId::from_bytes([1; 16]);

    fn keys() -> DomainKeys {
        DomainKeys {
            domain: DomainId::from_bytes([2; 16]),
            generation: 1,
            id_key: IdKey::from_bytes([3; 32]),
            masters: vec![SealingMaster::from_bytes(1, [4; 32])],
        }
    }

    fn recipe<'a>(keys: &'a DomainKeys, salt: &'a dyn Fn() -> Result<[u8; 32]>) -> Recipe<'a> {
        Recipe {
            repository: REPOSITORY,
            keys,
            salt,
            mixed_bytes: 1000,
            target_bytes: 50_000,
        }
    }

    fn frame(keys: &DomainKeys, seed: u8, length: usize) -> Frame {
        let bytes: Vec<u8> = (0..length).map(|n| ((n * n) >> 3) as u8 ^ seed).collect();
        let mut builder = FrameBuilder::new();
        let id = keys.id_key.ids().chunk(&bytes).into_bytes();
        builder.push(id, &bytes).unwrap();
        builder.finish(1).unwrap()
    }

    fn check(keys: &DomainKeys, closed: &ClosedPack) -> Vec<[u8; 32]> {
        let master = keys.current().unwrap();
        let key_for = |_: &KeyRef| Some(KeyMaterial::Master(master));
        let bytes = &closed.pack.bytes();
        assert_eq!(bytes.len() as u64, closed.pack.stored_bytes);
        let (_, frames) = open_pack(&REPOSITORY, &closed.pack.id, key_for, bytes).unwrap();
        frames
            .iter()
            .flat_map(|f| f.items.iter().map(|i| i.id))
            .collect()
    }

    #[test]
    fn a_small_pair_becomes_one_mixed_pack() {
        let (keys, salt) = (keys(), || Ok([9; 32]));
        let recipe = recipe(&keys, &salt);
        let (mut data, mut tree) = (
            OpenPack::new(ItemKind::Chunk),
            OpenPack::new(ItemKind::Node),
        );
        data.push(frame(&keys, 1, 100), ItemKind::Chunk, None, &recipe)
            .unwrap();
        tree.push(frame(&keys, 2, 100), ItemKind::Node, None, &recipe)
            .unwrap();
        let tickets = [data.ticket().clone(), tree.ticket().clone()];
        let merged = data.merge(tree, &recipe).ok().unwrap();
        assert!(
            tickets
                .iter()
                .all(|t| merged.is_one_of(std::slice::from_ref(t)))
        );
        let closed = merged.close(&recipe).unwrap();
        assert_eq!(closed.pack.header.kind, ObjectKind::MixedPack);
        assert_eq!(check(&keys, &closed).len(), 2);
    }

    #[test]
    fn a_large_pair_stays_apart() {
        let (keys, salt) = (keys(), || Ok([9; 32]));
        let recipe = recipe(&keys, &salt);
        let (mut data, mut tree) = (
            OpenPack::new(ItemKind::Chunk),
            OpenPack::new(ItemKind::Node),
        );
        for n in 0..20 {
            data.push(frame(&keys, n, 300), ItemKind::Chunk, None, &recipe)
                .unwrap();
        }
        tree.push(frame(&keys, 99, 100), ItemKind::Node, None, &recipe)
            .unwrap();
        let (data, tree) = data.merge(tree, &recipe).err().unwrap();
        let data = data.close(&recipe).unwrap();
        assert_eq!(data.pack.header.kind, ObjectKind::DataPack);
        assert_eq!(check(&keys, &data).len(), 20);
        let tree = tree.close(&recipe).unwrap();
        assert_eq!(tree.pack.header.kind, ObjectKind::TreePack);
    }

    #[test]
    fn what_was_spilled_is_in_the_pack() {
        let (keys, salt) = (keys(), || Ok([9; 32]));
        let recipe = recipe(&keys, &salt);
        let dir = tempfile::tempdir().unwrap();
        let mut pack = OpenPack::new(ItemKind::Chunk);
        let mut sent = Vec::new();
        for n in 0..60 {
            let frame = frame(&keys, n, 1500);
            sent.extend(frame.items.iter().map(|i| i.id));
            pack.push(frame, ItemKind::Chunk, None, &recipe).unwrap();
            if n % 7 == 0 {
                pack.spill(dir.path()).unwrap();
                assert_eq!(pack.spillable_bytes(), 0);
            }
        }
        assert!(pack.is_full(&recipe));
        let closed = pack.close(&recipe).unwrap();
        assert_eq!(check(&keys, &closed), sent);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
