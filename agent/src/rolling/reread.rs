//! Reads files that should be as their records say, and judges what differs.

use super::{Findings, Known, PassOptions};
use crate::Result;
use crate::beneath::{Errno, Root};
use crate::cancel::Cancel;
use crate::index::{Record, trust};
use crate::journal::Journal;
use crate::mount::Identity;
use crate::read::{BusyPolicy, ContentSink, ReadContext, ReadError, Reader};
use crate::stat::is_unchanged;
use holdfast_format::digest::ContentDigest;
use holdfast_format::entry::Extent;
use holdfast_format::path::RelPath;
use holdfast_format::stamp::Host;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

/// How long it looks away while a run works on the volume.
const GIVE_WAY: Duration = Duration::from_millis(200);
/// How long the event of a change may come after the change shows: a call writes, then tells.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
const TOLD_STEP: Duration = Duration::from_millis(250);
/// Files of one pass that are named; a filesystem that lies about all of them is told of by these.
const NAMED: usize = 1000;

/// How the files of a window are read.
pub(super) struct Reading<'a> {
    pub(super) known: &'a Known,
    pub(super) host: Host,
    pub(super) options: &'a PassOptions,
    /// Whether a run works on the volume now.
    pub(super) is_running: &'a dyn Fn() -> bool,
    /// Whether one began since the files were listed: what they were is not what is known now.
    pub(super) is_since: &'a dyn Fn() -> bool,
    /// The volume is served no more.
    pub(super) gone: &'a Cancel,
    pub(super) volume: &'a str,
}

/// What a file is found to be.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// As it was, or in no state that could be judged.
    Nothing,
    /// Another than its record says, and it shows.
    Changed,
    /// Another than its record says, and nothing shows it.
    Silent,
    /// The same of one that somebody may have been writing when it was read: a write(2) that was under way then
    /// shows nowhere.
    InFlight,
}

impl Reading<'_> {
    /// Reads all of them; what differs is in the findings.
    pub(super) fn all(&self, files: Vec<(RelPath, Record)>) -> Result<Findings> {
        let mut findings = Findings::default();
        let Some(class) = self.root().map(|root| root.class()) else {
            return Ok(findings);
        };
        let mut reader = Reader::new(ReadContext {
            chunker: self.known.chunker.clone(),
            ids: self.known.ids.clone(),
            inline_limit: self.known.inline_limit,
            class,
            busy: BusyPolicy::Settle,
            rate: self.options.rate.clone(),
            cancel: self.options.cancel.clone(),
        });
        for (path, record) in files {
            while (self.is_running)() && !self.gone.is_cancelled() {
                self.options.cancel.check()?;
                sleep(GIVE_WAY);
            }
            self.options.cancel.check()?;
            // For each file anew: what is open keeps others from unmounting the volume.
            let Some(root) = self.root() else {
                return Ok(findings);
            };
            let found = self.judge(&mut reader, &root, &path, &record, &mut findings);
            drop(root);
            match found {
                _ if self.gone.is_cancelled() => return Ok(findings),
                Err(error) => return Err(error),
                Ok(Found::Nothing) => {}
                // Another volume: nothing is wrong.
                Ok(_) if self.root().is_none() => return Ok(findings),
                Ok(Found::Silent) if findings.silent.len() < NAMED => {
                    tracing::error!(
                        volume = self.volume, %path,
                        "a file holds something else than it did, though neither its times nor its size changed"
                    );
                    findings.silent.push(path);
                }
                Ok(Found::InFlight) if findings.in_flight.len() < NAMED => {
                    tracing::warn!(
                        volume = self.volume, %path,
                        "a file holds something else than was read while it was being written: the next run reads it"
                    );
                    findings.in_flight.push(path);
                }
                Ok(Found::Changed) if findings.untold.len() < NAMED => {
                    if self.is_untold(&path) {
                        findings.untold.push(path);
                    }
                }
                Ok(Found::Silent | Found::InFlight | Found::Changed) => {}
            }
        }
        Ok(findings)
    }

    /// The volume's root, if it is still the one that the index knows.
    fn root(&self) -> Option<Root> {
        let root = Root::open(&self.known.path).ok()?;
        (Identity::of(&root).ok()? == self.known.identity).then_some(root)
    }

    fn judge(
        &self,
        reader: &mut Reader,
        root: &Root,
        path: &RelPath,
        record: &Record,
        findings: &mut Findings,
    ) -> Result<Found> {
        let stamp = record.stamp();
        // Of an inode with several names, what happens under one is told of that one only.
        let linked = record.trust & trust::LINKED != 0;
        let found = root.parent_of(path).and_then(|found| {
            let (dir, name) = found.ok_or(Errno::ISDIR)?;
            Ok((dir.stat(name)?, dir, name))
        });
        let (dir, name) = match found {
            Ok((stat, dir, name)) if is_unchanged(stamp.as_ref(), &stat, self.host) => (dir, name),
            Ok((stat, ..)) if !linked && stat.nlink <= 1 => return Ok(Found::Changed),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !linked => {
                return Ok(Found::Changed);
            }
            // It could not be looked at, or is mounted over: a run says so.
            _ => return Ok(Found::Nothing),
        };
        let Some(first) = self.digest(reader, &dir, name, record)? else {
            return Ok(Found::Nothing);
        };
        findings.files += 1;
        findings.bytes += record.size;
        self.options.progress.done_files.add(1);
        self.options.progress.done_bytes.add(record.size);
        if Some(first) == record.content {
            return Ok(Found::Nothing);
        }
        // Twice the same, or nobody knows what it holds.
        let again = self.digest(reader, &dir, name, record)?;
        let was_busy = record.trust & trust::BUSY != 0;
        Ok(match (again, was_busy) {
            (Some(again), false) if again == first => Found::Silent,
            (Some(again), true) if again == first => Found::InFlight,
            _ => Found::Nothing,
        })
    }

    /// What the file holds, if it was quiet and in the state of its record from begin to end.
    fn digest(
        &self,
        reader: &mut Reader,
        dir: &crate::beneath::Dir,
        name: &[u8],
        record: &Record,
    ) -> Result<Option<ContentDigest>> {
        match reader.read_file(dir, name, &mut Nowhere(self.gone)) {
            Ok(outcome) => {
                let same = is_unchanged(record.stamp().as_ref(), &outcome.stat, self.host);
                let judged = same && !outcome.stamp.inconsistent && !outcome.stamp.racy;
                Ok(judged.then_some(outcome.digest))
            }
            Err(ReadError::Stopped(error)) => Err(error),
            // The next run that reads it says so.
            Err(ReadError::Vanished | ReadError::Item(_)) => Ok(None),
        }
    }

    /// Whether the journal should have told of a change of this file and has not: its epoch ends.
    fn is_untold(&self, path: &RelPath) -> bool {
        let Some(journals) = &self.options.journals else {
            return false;
        };
        let journal: Arc<Journal> = journals.of(self.volume, &self.known.path);
        let mut waited = Duration::ZERO;
        while !journal.will_look_at(path) {
            if (self.is_since)() || self.options.cancel.is_cancelled() {
                return false;
            }
            if waited >= TOLD_WITHIN {
                tracing::error!(
                    volume = self.volume, %path,
                    "a file changed and the kernel told nothing of it: the volume is walked"
                );
                journal.missed();
                return true;
            }
            sleep(TOLD_STEP);
            waited += TOLD_STEP;
        }
        false
    }
}

/// Content is only digested, until the volume is gone.
struct Nowhere<'a>(&'a Cancel);

impl ContentSink for Nowhere<'_> {
    fn restart(&mut self) {}

    fn inline(&mut self, _: &[u8]) -> Result<()> {
        self.0.check()
    }

    fn extent(&mut self, _: Extent, _: Option<&[u8]>) -> Result<()> {
        self.0.check()
    }
}
