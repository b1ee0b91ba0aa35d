//! For tests of the tests: rules of change detection that can be switched off, to see that this is noticed.
//! In a program that is shipped every rule holds: `on` is false there, whatever happens.

/// A rule that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Every file passes for one that nobody writes.
    NoProbe = 1,
    /// Stamps are believed however young they are.
    NoRacyRule = 2,
    /// Dirty pages stay writable without a trace.
    NoSync = 4,
    /// Only later times count as different.
    NewerOnly = 8,
    /// The change time does not count.
    IgnoreCtime = 16,
    /// A queue that was full is believed.
    IgnoreOverflow = 32,
    /// What cannot be listed is empty.
    TrustAbsence = 64,
    /// Nobody remembers who may be writing.
    NoOpenFiles = 128,
    /// What was read while somebody may have been writing it is believed by its stamp alone.
    BelieveBusy = 256,
}

#[cfg(not(test))]
#[inline]
pub(crate) const fn on(_: Fault) -> bool {
    false
}

#[cfg(test)]
pub(crate) use switches::on;

#[cfg(test)]
pub(crate) mod switches {
    use super::Fault;
    use holdfast_format::path::RelPath;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    static FAULTS: AtomicU32 = AtomicU32::new(0);
    static UNLISTED: Mutex<Option<RelPath>> = Mutex::new(None);
    static MEANWHILE: Mutex<Option<Meanwhile>> = Mutex::new(None);

    struct Meanwhile {
        path: RelPath,
        /// Listings of it that are let go by before.
        left: u32,
        act: Box<dyn FnOnce() + Send>,
    }

    pub(crate) fn on(fault: Fault) -> bool {
        FAULTS.load(Ordering::Relaxed) & fault as u32 != 0
    }

    /// For the whole process, so only in tests that have one of their own.
    pub(crate) fn break_rule(fault: Fault) {
        FAULTS.fetch_or(fault as u32, Ordering::Relaxed);
    }

    /// This directory cannot be listed.
    pub(crate) fn refuse_listing(path: Option<RelPath>) {
        *UNLISTED.lock().unwrap() = path;
    }

    /// This is done right before a directory is listed, after so many listings of it.
    pub(crate) fn meanwhile(path: RelPath, left: u32, act: impl FnOnce() + Send + 'static) {
        let act = Box::new(act);
        *MEANWHILE.lock().unwrap() = Some(Meanwhile { path, left, act });
    }

    /// Whether a directory that is about to be listed cannot be.
    pub(crate) fn is_refused(path: &RelPath) -> bool {
        let mut meanwhile = MEANWHILE.lock().unwrap();
        if let Some(now) = meanwhile.as_mut().filter(|now| now.path == *path) {
            match now.left {
                0 => {
                    if let Some(now) = meanwhile.take() {
                        (now.act)();
                    }
                }
                _ => now.left -= 1,
            }
        }
        drop(meanwhile);
        UNLISTED.lock().unwrap().as_ref() == Some(path)
    }
}
