//! Counters of one run, readable by any thread at any time. Counting never blocks.

use holdfast_proto::v1 as proto;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one running backup or restore; all only grow, but the totals.
        #[derive(Debug, Default)]
        pub struct Progress {
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// The counters at one moment.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub struct ProgressView {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Progress {
            /// The counters now.
            pub fn view(&self) -> ProgressView {
                ProgressView { $($name: self.$name.get(),)* }
            }

            /// Sets every counter back to zero: the run begins anew.
            pub fn reset(&self) {
                $(self.$name.set(0);)*
            }
        }
    };
}

counters! {
    /// Regular files seen (backup) or finished (restore).
    files,
    /// Directories seen or finished.
    directories,
    /// Symlinks, FIFOs, sockets and devices seen or finished.
    others,
    /// Sum of the sizes of regular files seen or finished.
    content_bytes,
    /// Files whose content was read.
    files_read,
    /// Bytes read.
    read_bytes,
    /// Put and Remove sent.
    entries_changed,
    /// New chunks sent.
    new_chunks,
    /// Plain bytes of new chunks sent.
    new_chunk_bytes,
    /// Bytes of content that was read again and had not changed.
    reread_unchanged_bytes,
    /// Problems recorded.
    problems,
    /// Payload bytes sent (backup) or received (restore).
    wire_bytes,
    /// Bytes written to the target of a restore.
    written_bytes,
    /// Regular files that nothing more is to be done about.
    done_files,
    /// Bytes of regular files that nothing more is to be done about: read, or known not to have changed.
    done_bytes,
    /// Regular files there are: an estimate until all have been seen; 0: unknown.
    total_files,
    /// Bytes of them, in the same way.
    total_bytes,
}

impl Progress {
    /// All zero, to be shared.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }
}

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl ProgressView {
    /// As the wire carries it.
    pub fn stats(&self) -> proto::Stats {
        proto::Stats {
            files: self.files,
            directories: self.directories,
            others: self.others,
            content_bytes: self.content_bytes,
            files_read: self.files_read,
            read_bytes: self.read_bytes,
            entries_changed: self.entries_changed,
            new_chunks: self.new_chunks,
            new_chunk_bytes: self.new_chunk_bytes,
            stored_bytes: 0,
            reread_unchanged_bytes: self.reread_unchanged_bytes,
            problems: self.problems,
            wire_bytes: self.wire_bytes,
        }
    }
}
