//! Index segments in the store: a rebuild reads them in place of the footers of the packs they cover, and
//! writes some for packs that none covers yet.
//!
//! A segment never says which packs there are: it is asked about packs that the store lists, and believed
//! only about those whose size it names. One that is damaged, or of packs that are all gone, is noted and
//! passed over, and footers are read instead. Losing every segment loses nothing.

use crate::repo::error::{RepoError, Result};
use crate::repo::keyring::current;
use crate::repo::reader::PackContents;
use crate::repo::store::Listed;
use crate::repo::{Repository, kek};
use holdfast_format::id::{DomainId, PackId, RepositoryId};
use holdfast_format::keys::DomainKeys;
use holdfast_format::names::{ObjectName, SEGMENTS};
use holdfast_format::pack::trailer_bytes;
use holdfast_format::seal::{Header, KeyMaterial, KeyRef};
use holdfast_format::segment::{
    FinishedSegment, MAX_SEGMENT_BYTES, MAX_SEGMENT_ITEMS, MAX_SEGMENT_PACKS, SegmentPack,
    build_segment, decode_segment_trailer, open_segment, open_segment_footer,
};
use std::collections::HashMap;
use std::sync::Arc;

/// The footers of fewer packs are read as quickly as a segment.
const MIN_PACKS: usize = 8;
/// Items that are held until they become segments, or a pack's more.
const HELD_ITEMS: usize = MAX_SEGMENT_ITEMS / 2;
/// Read from the end of a segment at first: trailer, and the footers of most.
const TAIL_BYTES: u64 = 256 * 1024;

/// A segment that is there.
struct Known {
    id: [u8; 32],
    keys: Arc<DomainKeys>,
    /// Packs that it alone is asked about.
    packs: u64,
}

/// What the segments of a store cover. Memory: some 60 bytes for each pack.
pub struct Segments {
    repository: Repository,
    known: Vec<Known>,
    covered: HashMap<PackId, (usize, u64)>,
}

impl Segments {
    /// Reads the footers of all segments. Those that cannot be read are told to `note` and left out.
    pub async fn load(
        repository: &Repository,
        mut note: impl FnMut(ObjectName, &RepoError),
    ) -> Result<Self> {
        let mut segments = Self {
            repository: repository.clone(),
            known: Vec::new(),
            covered: HashMap::new(),
        };
        let mut listed = repository.store().list(SEGMENTS).await?;
        // Whichever host rebuilds asks the same segment about a pack that two of them cover.
        listed.sort_unstable_by(|a, b| a.text.cmp(&b.text));
        for found in listed {
            let Some(name @ ObjectName::Segment(id)) = found.name else {
                continue;
            };
            match segments.learn(name, id, &found).await {
                Ok(()) => {}
                Err(error) if error.is_of_object() => note(name, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(segments)
    }

    async fn learn(&mut self, name: ObjectName, id: [u8; 32], found: &Listed) -> Result<()> {
        let size = found.size;
        let damaged = |error| RepoError::of_object(name, error);
        let trailer_bytes = trailer_bytes() as u64;
        if !(trailer_bytes..=MAX_SEGMENT_BYTES).contains(&size) {
            return Err(RepoError::ObjectDamaged {
                name: name.to_string(),
                detail: format!("no index segment has {size} bytes"),
            });
        }
        let store = self.repository.store();
        let start = size.saturating_sub(TAIL_BYTES);
        let tail = store.get_range(&name, start..size).await?;
        let trailer = decode_segment_trailer(&tail[tail.len() - trailer_bytes as usize..]);
        let trailer = trailer.map_err(damaged)?;
        let range = trailer.footer_range(size).map_err(damaged)?;
        let footer = match range.start >= start {
            true => tail.slice((range.start - start) as usize..(range.end - start) as usize),
            false => store.get_range(&name, range).await?,
        };
        let keys = self.keys(name, &trailer.header).await?;
        let key =
            key_of(&keys, &trailer.header.key).ok_or_else(|| unknown_key(name, &trailer.header))?;
        let footer = open_segment_footer(&self.repository.id(), key, &trailer, &footer);
        let footer = footer.map_err(damaged)?;
        let index = self.known.len();
        let mut packs = 0;
        for pack in footer.packs {
            packs += 1;
            self.covered.entry(pack.id).or_insert((index, pack.size));
        }
        self.known.push(Known { id, keys, packs });
        Ok(())
    }

    async fn keys(&self, name: ObjectName, header: &Header) -> Result<Arc<DomainKeys>> {
        match header.key {
            KeyRef::Domain {
                domain, generation, ..
            } => self.repository.domain_keys(&domain, generation).await,
            KeyRef::Kek => Err(unknown_key(name, header)),
        }
    }

    /// The segment that tells of this pack, if one does and names its size.
    pub fn covering(&self, pack: &PackId, size: u64) -> Option<usize> {
        let (segment, named) = self.covered.get(pack)?;
        (*named == size).then_some(*segment)
    }

    /// How many segments there are.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// A segment's name, and how many packs it covers.
    pub fn name(&self, segment: usize) -> (ObjectName, u64) {
        let known = &self.known[segment];
        (ObjectName::Segment(known.id), known.packs)
    }

    /// All packs of a segment, checked to its last byte.
    pub async fn read(&self, segment: usize) -> Result<Vec<PackContents>> {
        let known = &self.known[segment];
        let (id, name) = (known.id, ObjectName::Segment(known.id));
        let store = self.repository.store();
        let stored = store.get_limited(&name, MAX_SEGMENT_BYTES).await?;
        let (repository, keys) = (self.repository.id(), known.keys.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let key_for = |key: &KeyRef| key_of(&keys, key);
            open_segment(&repository, &id, key_for, &stored)
        });
        let opened = opened.await.map_err(|_| RepoError::Internal {
            doing: "read an index segment",
        })?;
        let packs = opened.map_err(|error| RepoError::of_object(name, error))?;
        let contents = |pack: SegmentPack| PackContents {
            id: pack.id,
            header: pack.header,
            size: pack.size,
            frames: pack.frames,
        };
        Ok(packs.into_iter().map(contents).collect())
    }
}

fn key_of<'k>(keys: &'k DomainKeys, key: &KeyRef) -> Option<KeyMaterial<'k>> {
    match key {
        KeyRef::Domain { master, .. } => keys.master(*master).map(KeyMaterial::Master),
        KeyRef::Kek => None,
    }
}

fn unknown_key(name: ObjectName, header: &Header) -> RepoError {
    RepoError::ObjectDamaged {
        name: name.to_string(),
        detail: format!("it is sealed with {}, which is not known", header.key),
    }
}

/// Makes segments of packs whose footers were read. It needs no claim: a segment names nothing that must
/// stay, and no other object names it.
pub struct SegmentWriter {
    repository: Repository,
    held: HashMap<(DomainId, u32), Vec<SegmentPack>>,
    held_items: usize,
    /// Segments that were put.
    pub written: u64,
}

impl SegmentWriter {
    /// One that has no pack yet.
    pub fn new(repository: &Repository) -> Self {
        Self {
            repository: repository.clone(),
            held: HashMap::new(),
            held_items: 0,
            written: 0,
        }
    }

    /// Takes a pack in; puts segments when enough is held.
    pub async fn add(&mut self, contents: &PackContents) -> Result<()> {
        let KeyRef::Domain {
            domain, generation, ..
        } = contents.header.key
        else {
            return Ok(());
        };
        let items = count_items(&contents.frames);
        if items == 0 {
            return Ok(());
        }
        let held = self.held.get(&(domain, generation)).map_or(0, Vec::len);
        if self.held_items + items > MAX_SEGMENT_ITEMS || held == MAX_SEGMENT_PACKS {
            self.flush().await?;
        }
        let pack = SegmentPack {
            id: contents.id,
            size: contents.size,
            header: contents.header,
            frames: contents.frames.clone(),
        };
        let packs = self.held.entry((domain, generation)).or_default();
        packs.push(pack);
        self.held_items += items;
        match self.held_items >= HELD_ITEMS {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// Puts segments of what is held. Packs of domains with few of them get none.
    pub async fn flush(&mut self) -> Result<()> {
        self.held_items = 0;
        for ((domain, generation), packs) in std::mem::take(&mut self.held) {
            if packs.len() < MIN_PACKS {
                continue;
            }
            let keys = self.repository.domain_keys(&domain, generation).await?;
            let (repository, salt) = (self.repository.id(), kek::random()?);
            let built = tokio::task::spawn_blocking(move || build(&repository, &keys, salt, packs));
            let built = built.await.map_err(|_| RepoError::Internal {
                doing: "make an index segment",
            })??;
            self.repository.writer().segment(&built).await?;
            self.written += 1;
        }
        Ok(())
    }
}

fn build(
    repository: &RepositoryId,
    keys: &DomainKeys,
    salt: [u8; 32],
    packs: Vec<SegmentPack>,
) -> Result<FinishedSegment> {
    let (master, key) = current(keys)?;
    Ok(build_segment(repository, key, master, salt, packs)?)
}

fn count_items(frames: &[holdfast_format::pack::PackFrame]) -> usize {
    frames.iter().map(|frame| frame.items.len()).sum()
}
