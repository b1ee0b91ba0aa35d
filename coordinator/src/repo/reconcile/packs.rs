//! Packs: those of the store that the catalog does not know are adopted, those that it counts on and the
//! store does not list are marked.

use super::{CONCURRENCY, Index, PAGE, Reconciled, Result, Stage, Work};
use crate::catalog::{PackImport, PackNo, PackRow, PackState};
use crate::repo::error::RepoError;
use crate::repo::reader::{PackContents, Reader};
use crate::repo::segments::{SegmentWriter, Segments};
use crate::repo::store::Listed;
use futures::{StreamExt, stream};
use holdfast_format::id::PackId;
use holdfast_format::names::{ObjectName, PACKS, SEGMENTS};
use std::collections::HashSet;
use std::pin::pin;

/// Items of footers that are registered in one transaction, so many or a few more.
const IMPORT_ITEMS: usize = 100_000;
/// Packs that are registered in one transaction.
const IMPORT_PACKS: usize = 256;

/// Packs that the catalog counts on and the store does not list.
#[derive(Default)]
pub(super) struct MissingPacks {
    pub packs: Vec<PackId>,
    pub newly_count: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Adoption {
    New,
    Again,
}

/// One comparison of all packs.
struct Comparison<'w> {
    work: &'w Work<'w>,
    reader: Reader,
    /// Packs of the catalog that the store lists.
    listed: Bits,
    /// Objects compared so far.
    done_count: u64,
    segments: Option<Segments>,
    /// New packs of each segment: it is read once, after the listing.
    covered: Vec<Vec<(PackId, u64)>>,
    writer: Option<SegmentWriter>,
}

impl Work<'_> {
    /// Adopts packs that are not known, and marks known ones that are not listed. `again`: index rows were
    /// dropped, of which another known pack may have a copy, so all footers are read.
    pub(super) async fn packs(&self, found: &mut Reconciled, again: bool) -> Result<MissingPacks> {
        // What segments tell is of packs that are not known yet.
        let index = if again { Index::Footers } else { self.index };
        let segments = match index {
            Index::Footers => None,
            Index::Segments | Index::SegmentsAndMore => {
                let note = |name, error: &RepoError| found.note(name, useless(error));
                Some(Segments::load(self.repository, note).await?)
            }
        };
        let writes = index == Index::SegmentsAndMore;
        let mut comparison = Comparison {
            work: self,
            reader: Reader::new(self.repository.clone(), 1 << 20, None),
            listed: Bits::default(),
            done_count: 0,
            covered: vec![Vec::new(); segments.as_ref().map_or(0, Segments::count)],
            segments,
            writer: writes.then(|| SegmentWriter::new(self.repository)),
        };
        comparison.listing(found, again).await?;
        comparison.covered(found).await?;
        comparison.written(found, None).await;
        comparison.missing().await
    }
}

impl Comparison<'_> {
    /// Compares what the store lists with the catalog.
    async fn listing(&mut self, found: &mut Reconciled, again: bool) -> Result<()> {
        let work = self.work;
        let mut listing = pin!(work.repository.store().list_stream(PACKS).chunks(PAGE));
        while let Some(page) = listing.next().await {
            let page = page
                .into_iter()
                .collect::<Result<Vec<Listed>, RepoError>>()?;
            self.done_count += page.len() as u64;
            let packs: Vec<(PackId, u64)> = page.into_iter().filter_map(pack_of).collect();
            let ids: Vec<PackId> = packs.iter().map(|(id, _)| *id).collect();
            let known = work.catalog.pack_states(&ids).await?;
            let mut returned = Vec::new();
            let mut wanted = Vec::new();
            for (pack, known) in packs.into_iter().zip(known) {
                match known {
                    None => match self.segment_of(pack) {
                        Some(segment) => self.covered[segment].push(pack),
                        None => wanted.push((pack, Adoption::New)),
                    },
                    // Its object is a left-over of a deletion.
                    Some((_, PackState::Deleting | PackState::Gone, _)) => {}
                    // Cut off or written over: nothing of it is counted on.
                    Some((_, _, size)) if size != pack.1 => {}
                    Some((no, state, _)) => {
                        self.listed.set(no.index());
                        if state == PackState::Missing {
                            returned.push(no);
                        }
                        // Adopting it would revive a condemned one.
                        if again && state != PackState::Condemned {
                            wanted.push((pack, Adoption::Again));
                        }
                    }
                }
            }
            work.catalog.packs_found(&returned).await?;
            self.adopt(found, wanted).await?;
            work.step(Stage::Packs, self.done_count);
        }
        Ok(())
    }

    fn segment_of(&self, (id, size): (PackId, u64)) -> Option<usize> {
        self.segments.as_ref()?.covering(&id, size)
    }

    /// Adopts the new packs that segments cover; those of a segment that cannot be read by their footers.
    async fn covered(&mut self, found: &mut Reconciled) -> Result<()> {
        let Some(segments) = self.segments.take() else {
            return Ok(());
        };
        for (segment, wanted) in std::mem::take(&mut self.covered).into_iter().enumerate() {
            let (name, covers) = segments.name(segment);
            if wanted.is_empty() {
                let none = format!("none of the {covers} packs that it covers is wanted");
                found.note(name, format!("{none}; it may be deleted"));
                continue;
            }
            let mut contents = match segments.read(segment).await {
                Ok(contents) => contents,
                Err(error) if error.is_of_object() => {
                    found.note(name, useless(&error));
                    let wanted = wanted.into_iter().map(|pack| (pack, Adoption::New));
                    self.adopt(found, wanted.collect()).await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let wanted: HashSet<PackId> = wanted.into_iter().map(|(id, _)| id).collect();
            contents.retain(|pack| wanted.contains(&pack.id));
            found.packs += contents.len() as u64;
            found.from_segments += contents.len() as u64;
            let mut imports = Imports::default();
            for contents in contents {
                imports.push(contents, self.work.now_ns);
                self.import(&mut imports, false).await?;
            }
            self.import(&mut imports, true).await?;
            self.work.step(Stage::Packs, self.done_count);
        }
        Ok(())
    }

    /// Adopts packs by their footers.
    async fn adopt(
        &mut self,
        found: &mut Reconciled,
        wanted: Vec<((PackId, u64), Adoption)>,
    ) -> Result<()> {
        let reader = self.reader.clone();
        let footers = stream::iter(wanted).map(|((id, size), adoption)| {
            let reader = &reader;
            async move { (id, adoption, reader.footer(id, size).await) }
        });
        let mut footers = pin!(footers.buffer_unordered(CONCURRENCY));
        let mut imports = Imports::default();
        while let Some((id, adoption, read)) = footers.next().await {
            let Some(contents) = found.readable(ObjectName::Pack(id), read)? else {
                continue;
            };
            if adoption == Adoption::New {
                found.packs += 1;
                self.written(found, Some(&contents)).await;
            }
            imports.push(contents, self.work.now_ns);
            self.import(&mut imports, false).await?;
        }
        self.import(&mut imports, true).await
    }

    /// Registers what has come, if it is enough or the last.
    async fn import(&mut self, imports: &mut Imports, last: bool) -> Result<()> {
        if !last && imports.items < IMPORT_ITEMS && imports.packs.len() < IMPORT_PACKS {
            return Ok(());
        }
        let packs = std::mem::take(imports).packs;
        self.work.catalog.import_packs(&packs).await?;
        let ids: Vec<PackId> = packs.iter().map(|import| import.pack.id).collect();
        let states = self.work.catalog.pack_states(&ids).await?;
        let known = states.into_iter().flatten();
        known.for_each(|(no, ..)| self.listed.set(no.index()));
        Ok(())
    }

    /// Gives a pack to the writer of segments, or tells it that there are no more. A segment that cannot
    /// be written is no reason to fail: there are no more of them, then.
    async fn written(&mut self, found: &mut Reconciled, contents: Option<&PackContents>) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let done = match contents {
            Some(contents) => writer.add(contents).await,
            None => writer.flush().await,
        };
        found.segments = writer.written;
        if let Err(error) = done {
            found.note(SEGMENTS, format!("no index segments are written: {error}"));
            self.writer = None;
        }
    }

    async fn missing(&self) -> Result<MissingPacks> {
        let catalog = self.work.catalog;
        let mut after: Option<PackNo> = None;
        let mut missing = MissingPacks::default();
        loop {
            let page = catalog.packs(after, PAGE as u32).await?;
            let Some(last) = page.last() else {
                return Ok(missing);
            };
            after = Some(last.no);
            let expected = [PackState::Live, PackState::Condemned, PackState::Missing];
            let mut numbers = Vec::new();
            for pack in page {
                if expected.contains(&pack.state) && !self.listed.contains(pack.no.index()) {
                    numbers.push(pack.no);
                    missing.packs.push(pack.pack.id);
                }
            }
            missing.newly_count += catalog.packs_missing(&numbers).await?;
        }
    }
}

fn useless(error: &RepoError) -> String {
    match error.is_damage() {
        true => format!("{error}; it may be deleted"),
        false => error.to_string(),
    }
}

/// Packs that wait to be registered.
#[derive(Default)]
struct Imports {
    packs: Vec<PackImport>,
    items: usize,
}

impl Imports {
    fn push(&mut self, contents: PackContents, received_ns: i64) {
        let frames = contents.frames.iter();
        self.items += frames.map(|frame| frame.items.len()).sum::<usize>();
        self.packs.extend(import_of(contents, received_ns));
    }
}

fn pack_of(listed: Listed) -> Option<(PackId, u64)> {
    match listed.name {
        Some(ObjectName::Pack(id)) => Some((id, listed.size)),
        _ => None,
    }
}

fn import_of(contents: PackContents, received_ns: i64) -> Option<PackImport> {
    Some(PackImport {
        // A footer that was opened has a pack's header.
        pack: PackRow::of(contents.id, &contents.header, contents.size, received_ns)?,
        frames: contents.frames,
    })
}

/// A set of dense numbers.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, number: usize) {
        if self.0.len() <= number / 64 {
            self.0.resize(number / 64 + 1, 0);
        }
        self.0[number / 64] |= 1 << (number % 64);
    }

    fn contains(&self, number: usize) -> bool {
        self.0
            .get(number / 64)
            .is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}
