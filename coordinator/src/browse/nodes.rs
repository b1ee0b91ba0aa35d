//! Nodes of trees and lists, for code on blocking threads.
//!
//! A node is found through the catalog. A walk that goes on in one pack asks for its footer once and
//! then knows where all of its nodes are, and nodes that are announced are found many at once: a lookup
//! for each node costs more than reading it.

use crate::browse::Library;
use crate::catalog::Location;
use crate::error::{Error, Result};
use crate::repo::{FrameAddress, PackContents, Reader, RepoError};
use bytes::Bytes;
use holdfast_format::id::{NodeId, PackId};
use holdfast_format::pack::ItemKind;
use holdfast_format::tree::NodeSource;
use std::cell::RefCell;
use std::collections::HashMap;
use tokio::runtime::Handle;

/// Lookups in one pack after which its footer is worth reading.
const LOOKUPS: u32 = 8;
/// Packs whose footers are remembered.
const PACKS: usize = 4;
/// Nodes of a pack whose footer is worth the memory.
const MAX_NODES: usize = 64 * 1024;
/// Announced nodes whose places are remembered.
const MAX_EXPECTED: usize = 4 * 1024;
/// Announced frames that are brought into the caches at once: no more than these hold.
const MAX_FETCHED: usize = 128;

/// Reads nodes by id, for one thread. Made on the runtime that its thread belongs to.
pub struct Nodes {
    library: Library,
    runtime: Handle,
    known: RefCell<Known>,
}

#[derive(Default)]
struct Known {
    packs: Vec<(PackId, HashMap<[u8; 32], Place>)>,
    expected: HashMap<[u8; 32], Place>,
    lookups: HashMap<PackId, u32>,
}

/// Where a node lies.
#[derive(Clone, Copy)]
struct Place {
    address: FrameAddress,
    offset: u32,
    length: u32,
}

impl Nodes {
    /// Nodes of this repository.
    pub fn new(library: Library) -> Self {
        Self {
            library,
            runtime: Handle::current(),
            known: RefCell::default(),
        }
    }

    fn known(&self, id: &NodeId) -> Option<Place> {
        let known = self.known.borrow();
        let packs = known.packs.iter().map(|(_, places)| places);
        let mut places = std::iter::once(&known.expected).chain(packs);
        places.find_map(|places| places.get(id.as_bytes()).copied())
    }

    async fn find(&self, id: &NodeId) -> Result<Place> {
        let found = self
            .library
            .catalog
            .locate_to_read(&[id.into_bytes()])
            .await?;
        let found = found.into_iter().next().flatten();
        let found = found.ok_or_else(|| Error::DamageFound {
            detail: format!("tree node {id} is in no pack that is known"),
        })?;
        if self.is_due(found.pack) {
            // Where the footer cannot be read, nodes are found one by one.
            if let Ok(contents) = self
                .library
                .reader
                .footer(found.pack, found.pack_size)
                .await
            {
                self.remember(&contents);
            }
        }
        Ok(place(&found))
    }

    /// Finds those of the nodes that are not known yet, and fetches them in few requests where that
    /// is worth it. What fails is left to the load that needs it.
    async fn find_all(&self, ids: &[NodeId]) -> Result<()> {
        let unknown = ids.iter().filter(|id| self.known(id).is_none());
        let unknown: Vec<[u8; 32]> = unknown.map(|id| id.into_bytes()).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let found = self.library.catalog.locate_to_read(&unknown).await?;
        let mut frames = Vec::new();
        {
            let mut known = self.known.borrow_mut();
            if known.expected.len() + unknown.len() > MAX_EXPECTED {
                known.expected.clear();
            }
            for (id, found) in unknown.into_iter().zip(found) {
                let Some(place) = found.as_ref().map(place) else {
                    continue;
                };
                if !frames.contains(&place.address) && frames.len() < MAX_FETCHED {
                    frames.push(place.address);
                }
                known.expected.insert(id, place);
            }
        }
        self.library.reader.prefetch_tree(&frames).await;
        Ok(())
    }

    fn is_due(&self, pack: PackId) -> bool {
        let mut known = self.known.borrow_mut();
        let lookups = known.lookups.entry(pack).or_insert(0);
        *lookups += 1;
        *lookups == LOOKUPS
    }

    fn remember(&self, contents: &PackContents) {
        let mut places = HashMap::new();
        for frame in &contents.frames {
            let address = FrameAddress::of(contents.id, contents.header, frame);
            let nodes = frame
                .items
                .iter()
                .filter(|item| item.kind == ItemKind::Node);
            places.extend(nodes.map(|item| {
                let (offset, length) = (item.offset_in_frame, item.length);
                (
                    item.id,
                    Place {
                        address,
                        offset,
                        length,
                    },
                )
            }));
        }
        if places.len() > MAX_NODES {
            return;
        }
        let mut known = self.known.borrow_mut();
        known.packs.truncate(PACKS - 1);
        known.packs.insert(0, (contents.id, places));
    }
}

fn place(found: &Location) -> Place {
    Place {
        address: FrameAddress {
            pack: found.pack,
            header: found.header,
            frame_no: found.frame_no,
            offset: found.offset,
            stored_length: found.stored_length,
        },
        offset: found.item_offset,
        length: found.item_length,
    }
}

impl Nodes {
    async fn read(&self, place: &Place) -> Result<Bytes, RepoError> {
        let address = &place.address;
        let plain = self.library.reader.tree_frame(address).await?;
        Reader::item(address, &plain, place.offset, place.length)
    }

    async fn read_or_doubt(&self, place: &Place) -> Result<Bytes> {
        let read = self.read(place).await;
        if read.as_ref().is_err_and(RepoError::is_damage) {
            self.library.suspects.add(place.address.pack);
        }
        Ok(read?)
    }
}

impl NodeSource for Nodes {
    type Error = Error;

    fn load(&self, id: &NodeId) -> Result<Bytes> {
        self.runtime.block_on(async {
            if let Some(place) = self.known(id) {
                // Where a footer's place is worth nothing, the catalog may know a better one.
                match self.read(&place).await {
                    Err(error) if error.is_damage() => {}
                    read => return Ok(read?),
                }
            }
            self.read_or_doubt(&self.find(id).await?).await
        })
    }

    fn expect(&self, ids: &[NodeId]) {
        if let Err(error) = self.runtime.block_on(self.find_all(ids)) {
            tracing::debug!(%error, "nodes are looked up one by one");
        }
    }
}
