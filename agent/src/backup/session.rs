//! What Begin answered, checked and turned into types.

use crate::client::{Client, PROTOCOL};
use crate::error::{Error, Result};
use crate::index::{Meta, Totals};
use crate::upload::SessionRef;
use bytes::Bytes;
use holdfast_format::chunker::{Chunker, Profile};
use holdfast_format::entry::MAX_INLINE_LIMIT;
use holdfast_format::id::{DomainId, IdempotencyKey, SnapshotId, VolumeId};
use holdfast_format::keys::{IdKey, Ids};
use holdfast_format::path::RelPath;
use holdfast_format::volume::VolumeFacts;
use holdfast_format::wire::{id_from_wire, optional_id_from_wire};
use holdfast_proto::v1 as proto;
use std::collections::HashSet;

/// Most paths that a coordinator may ask to be read again.
const MOST_REREAD: usize = 100_000;

/// What a run asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The same for every try of one run.
    pub key: IdempotencyKey,
    /// The volume.
    pub facts: VolumeFacts,
    /// What the index describes.
    pub parent: Option<SnapshotId>,
    /// Start of the run.
    pub started_ns: i64,
    /// Take the name over.
    pub adopt: bool,
    /// What should be the parent cannot be read: there is to be none.
    pub parent_damaged: bool,
}

/// An open session.
#[derive(Debug)]
pub struct Session {
    /// How uploads name it.
    pub reference: SessionRef,
    /// The volume's id.
    pub volume: VolumeId,
    /// Its dedup domain.
    pub domain: DomainId,
    /// The domain's generation.
    pub generation: u32,
    /// Names chunks and digests.
    pub ids: Ids,
    /// Cuts contents.
    pub chunker: Chunker,
    /// Number of the chunking profile.
    pub profile: u8,
    /// Largest inline content, bytes.
    pub inline_limit: u32,
    /// What to work against.
    pub parent: Option<SnapshotId>,
    /// No chunk of the volume is held.
    pub holds_nothing: bool,
    /// Paths to read whatever their stamps say.
    pub reread: HashSet<RelPath>,
    /// What is lost of the snapshot before; empty: nothing that is known.
    pub parent_damage: String,
    /// This run was committed by an earlier try.
    pub committed: Option<SnapshotId>,
}

impl Session {
    /// Opens or resumes the session of a run.
    pub async fn begin(client: &Client, wanted: &Wanted) -> Result<Self> {
        let request = proto::BeginRequest {
            protocol: PROTOCOL,
            features: Vec::new(),
            idempotency_key: Bytes::copy_from_slice(wanted.key.as_bytes()),
            volume: Some(wanted.facts.clone().into()),
            parent: wanted
                .parent
                .map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes())),
            started_ns: wanted.started_ns,
            adopt: wanted.adopt,
            parent_damaged: wanted.parent_damaged,
        };
        let reply = client.begin(request).await?;
        let what = "begin a session";
        let wrong = |source| Error::Answer { what, source };
        let key: [u8; 32] = reply
            .id_key
            .as_ref()
            .try_into()
            .map_err(|_| Error::Protocol {
                what,
                rule: "the id key does not have 32 bytes".to_owned(),
            })?;
        let key = IdKey::from_bytes(key);
        let profile = u8::try_from(reply.profile).map_err(|_| Error::Protocol {
            what,
            rule: format!("chunking profile {} is not known", reply.profile),
        })?;
        if reply.inline_limit > MAX_INLINE_LIMIT || reply.reread.len() > MOST_REREAD {
            return Err(Error::Protocol {
                what,
                rule: "inline limit or number of paths above what is possible".to_owned(),
            });
        }
        let reread = reply.reread.into_iter().map(RelPath::new);
        Ok(Self {
            reference: SessionRef {
                session: reply.session,
                lease_epoch: reply.lease_epoch,
            },
            volume: id_from_wire(&reply.volume).map_err(wrong)?,
            domain: id_from_wire(&reply.domain).map_err(wrong)?,
            generation: reply.generation,
            ids: key.ids(),
            chunker: Chunker::new(Profile::by_number(profile).map_err(wrong)?, key.gear()),
            profile,
            inline_limit: reply.inline_limit,
            parent: optional_id_from_wire(&reply.parent).map_err(wrong)?,
            holds_nothing: reply.holds_nothing,
            reread: reread.collect::<Result<_, _>>().map_err(wrong)?,
            parent_damage: reply.parent_damage,
            committed: optional_id_from_wire(&reply.committed).map_err(wrong)?,
        })
    }

    /// The description of an index of this volume at a snapshot, taken here.
    pub fn meta(&self, snapshot: SnapshotId, boot_id: &str, node: &str) -> Meta {
        Meta {
            volume: self.volume,
            domain: self.domain,
            generation: self.generation,
            profile: u32::from(self.profile),
            inline_limit: self.inline_limit,
            snapshot,
            boot_id: boot_id.to_owned(),
            node: node.to_owned(),
            totals: Totals::default(),
        }
    }
}
