//! What all threads of one run share: parameters, queues, memory, the first failure.

use super::budget::Budget;
use super::pool::{Part, Pool};
use super::sent::Sent;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::scan::Seen;
use crate::some_paths::SomePaths;
use holdfast_format::chunker::Chunker;
use holdfast_format::keys::Ids;
use holdfast_format::path::RelPath;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Plain bytes that a part is made of before it is sent on.
pub const PART_BYTES: usize = 1 << 20;
/// Most plain bytes of a part.
pub const PART_MOST_BYTES: u64 = (PART_BYTES + PART_BYTES / 4) as u64;

/// Shared by the threads of a run.
#[derive(Debug)]
pub struct Shared {
    /// Names chunks.
    pub ids: Ids,
    /// Cuts contents.
    pub chunker: Chunker,
    /// zstd level of frames.
    pub level: i32,
    /// Memory in flight.
    pub budget: Arc<Budget>,
    /// Work to be done.
    pub pool: Pool,
    /// Chunks taken on.
    pub sent: Sent,
    /// Where to ask what the volume holds; none: it holds nothing, or what it holds is not believed.
    pub asker: Option<mpsc::UnboundedSender<Part>>,
    /// Whether it must be asked from the start, or only once `sent` has forgotten ids.
    pub ask_always: bool,
    /// What the walk met.
    pub seen: Arc<Seen>,
    /// Counters.
    pub progress: Arc<Progress>,
    /// Where temporary files are made.
    pub temporary: Arc<Path>,
    /// Ends this run only.
    pub stop: Cancel,
    failure: Mutex<Option<Error>>,
    absent: Mutex<SomePaths>,
}

impl Shared {
    /// Of a run that begins.
    #[allow(clippy::too_many_arguments)] // all are parameters of the run, named where it is made
    pub fn new(
        ids: Ids,
        chunker: Chunker,
        level: i32,
        budget: Arc<Budget>,
        asker: Option<mpsc::UnboundedSender<Part>>,
        ask_always: bool,
        progress: Arc<Progress>,
        temporary: &Path,
        stop: Cancel,
    ) -> Self {
        Self {
            ids,
            chunker,
            level,
            budget,
            pool: Pool::default(),
            sent: Sent::default(),
            asker,
            ask_always,
            seen: Arc::new(Seen::new(temporary)),
            progress,
            temporary: temporary.into(),
            stop,
            failure: Mutex::new(None),
            absent: Mutex::default(),
        }
    }

    /// Ends the run; the first failure is the one that is told.
    pub fn fail(&self, error: Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        // "Cancelled" is how threads notice that another has failed: the reason is worth more.
        if matches!(*failure, None | Some(Error::Cancelled)) {
            *failure = Some(error);
        }
        drop(failure);
        self.end();
    }

    /// Ends the run for a reason that is told elsewhere.
    pub fn end(&self) {
        self.stop.cancel();
        self.pool.close();
    }

    /// A name of the parent was asked for and was not there.
    pub fn is_absent(&self, path: RelPath) {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.push(path);
    }

    /// Those names, as many as there was room for.
    pub fn absent(&self) -> Vec<RelPath> {
        let absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.iter().cloned().collect()
    }

    /// What ended the run.
    pub fn take_failure(&self) -> Option<Error> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Whether the chunks of a part must be asked for before they are shipped.
    pub fn asks(&self) -> bool {
        self.asker.is_some() && (self.ask_always || self.sent.has_forgotten())
    }

    /// Sends a finished part on its way: to the coordinator for its word, or to be compressed.
    pub fn forward(&self, mut part: Part) -> Result<Option<Part>> {
        for chunk in &mut part.chunks {
            chunk.wanted = self.sent.claim(&chunk.id, part.number);
        }
        let any = part.chunks.iter().any(|chunk| chunk.wanted);
        match &self.asker {
            Some(asker) if any && self.asks() => {
                asker.send(part).map_err(|_| Error::Cancelled)?;
                Ok(None)
            }
            _ => Ok(Some(part)),
        }
    }
}
