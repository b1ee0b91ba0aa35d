//! One entry as the writer takes it: validated, its path relative to what is restored, its attributes
//! at hand.

use super::meta::Meta;
use bytes::Bytes;
use holdfast_format::entry::Extent;
use holdfast_format::path::RelPath;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Nothing (also of what is no regular file).
    Empty,
    /// All of it.
    Inline(Bytes),
    /// All of it, in order.
    Extents(Vec<Extent>),
}

/// Membership in a link group, of all members but the smallest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Of a path that is restored too, relative to what is restored.
    Inside(RelPath),
    /// Of a path of the volume that is not.
    Outside(RelPath),
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Path below the target.
    pub path: RelPath,
    /// Metadata.
    pub meta: Meta,
    /// Content; the first extents where more follow.
    pub body: Body,
    /// Its link group.
    pub link: Option<Link>,
}

/// What a stream of entries turns into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// The entry of what is restored itself, when that is a directory; first.
    Root(Meta),
    /// An entry below it.
    Item(Item),
    /// A regular file whose extents follow, `More` until `End`.
    Long(Item),
    /// The next extents of the file before.
    More(Vec<Extent>),
    /// That file's content is complete.
    End,
    /// Entries here could not be read from the repository.
    Lost {
        /// Where, as far as known, escaped.
        path: String,
        /// What and why.
        detail: String,
    },
    /// An entry that breaks a rule; it is left out.
    Refused {
        /// What it called itself, escaped.
        path: String,
        /// The rule.
        rule: String,
    },
}

impl Item {
    /// Bytes of memory it stands for, roughly.
    pub fn weight(&self) -> usize {
        let body = match &self.body {
            Body::Empty => 0,
            Body::Inline(bytes) => bytes.len(),
            Body::Extents(extents) => extents.len() * 48,
        };
        body + self.path.as_bytes().len() + self.meta.weight()
    }

    /// Extents it holds.
    pub fn extent_count(&self) -> usize {
        match &self.body {
            Body::Extents(extents) => extents.len(),
            _ => 0,
        }
    }
}
