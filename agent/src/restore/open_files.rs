//! Temporary files that are being filled, at most so many open at once; the others are opened again
//! by name when their next chunk comes.

use super::context::lock;
use super::output::Output;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Most descriptors of files kept open.
const MAX_OPEN_FILES: usize = 128;

/// The files used last, by job number.
#[derive(Default)]
pub struct OpenFiles {
    files: Mutex<HashMap<u64, (Arc<Output>, u64)>>,
    clock: AtomicU64,
    next: AtomicU64,
}

impl OpenFiles {
    /// A number that no other job has.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The job's file, if it is still open.
    pub fn get(&self, job: u64) -> Option<Arc<Output>> {
        let mut files = lock(&self.files);
        let (file, used) = files.get_mut(&job)?;
        *used = self.clock.fetch_add(1, Ordering::Relaxed);
        Some(file.clone())
    }

    /// Keeps the job's file open; the one unused for longest is closed where there are too many.
    pub fn keep(&self, job: u64, file: Output) -> Arc<Output> {
        let file = Arc::new(file);
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut files = lock(&self.files);
        files.insert(job, (file.clone(), now));
        if files.len() > MAX_OPEN_FILES {
            let oldest = files.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(job, _)| *job) {
                files.remove(&oldest);
            }
        }
        file
    }

    /// Takes the job's file out.
    pub fn take(&self, job: u64) -> Option<Arc<Output>> {
        lock(&self.files).remove(&job).map(|(file, _)| file)
    }
}
