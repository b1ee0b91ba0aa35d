//! What the caller of a backup may choose.

use crate::journal::Journals;
use crate::limits::RateLimit;
use crate::priority::Priority;
use crate::read::BusyPolicy;
use crate::rolling::Rolling;
use crate::rules::Rules;
use holdfast_format::frame;
use holdfast_runtime::backoff::BackoffPolicy;
use holdfast_runtime::clock::{Clock, SystemClock};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

/// Knobs of one run.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Where the volumes' indexes lie; never in a volume or a repository.
    pub index_directory: PathBuf,
    /// Where unnamed temporary files are made.
    pub temporary_directory: PathBuf,
    /// Name of this node.
    pub node: String,
    /// Boot id of this kernel.
    pub boot_id: String,
    /// What to leave out.
    pub rules: Rules,
    /// What to believe of files that are open for writing.
    pub busy: BusyPolicy,
    /// zstd level of frames.
    pub compression_level: i32,
    /// Bytes in flight between the threads.
    pub memory_bytes: u64,
    /// Threads that read and compress, and threads that walk; `None`: as many as there are processors.
    pub workers: Option<NonZero<usize>>,
    /// How far the run's threads step back behind others.
    pub priority: Priority,
    /// Bytes read per second.
    pub read_rate: RateLimit,
    /// Bytes sent per second.
    pub upload_rate: RateLimit,
    /// Take the volume's name over although another source had it.
    pub adopt: bool,
    /// How often and how fast a broken run is tried again.
    pub retry: Retry,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// What the kernel tells of changes, for an agent that stays; none: every run walks its volume.
    pub journals: Option<Journals>,
    /// What is found by reading files again; none: nobody does.
    pub rolling: Option<Rolling>,
    /// Whether files are read whatever their stamps say.
    pub reading: Reading,
}

/// Which files a run reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// Those whose stamps do not prove that they are unchanged.
    #[default]
    Changed,
    /// All.
    All,
}

/// How a broken run is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Tries, the first included.
    pub tries: u32,
    /// Waits between them.
    pub backoff: BackoffPolicy,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            tries: 6,
            backoff: BackoffPolicy {
                initial: Duration::from_millis(500),
                ..BackoffPolicy::default()
            },
        }
    }
}

impl BackupOptions {
    /// Threads of each kind.
    pub fn processors(&self) -> usize {
        let given = self.workers.or_else(|| available_parallelism().ok());
        given.map_or(2, NonZero::get)
    }

    /// Defaults, with state under this directory, on this node.
    pub fn new(state_directory: &Path, node: impl Into<String>) -> Self {
        Self {
            index_directory: state_directory.join("index"),
            temporary_directory: state_directory.join("tmp"),
            node: node.into(),
            boot_id: boot_id(),
            rules: Rules::default(),
            busy: BusyPolicy::default(),
            compression_level: frame::DEFAULT_LEVEL,
            memory_bytes: 24 << 20,
            workers: None,
            priority: Priority::Normal,
            read_rate: RateLimit::unlimited(),
            upload_rate: RateLimit::unlimited(),
            adopt: false,
            retry: Retry::default(),
            clock: Arc::new(SystemClock::new()),
            journals: None,
            rolling: None,
            reading: Reading::Changed,
        }
    }
}

/// The kernel's boot id; empty where there is none, which is another boot than any.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
