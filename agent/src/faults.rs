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

    pub(crate) fn is_refused(path: &RelPath) -> bool {
        UNLISTED.lock().unwrap().as_ref() == Some(path)
    }
}
