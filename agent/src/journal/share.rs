//! What the sets of all volumes hold together is bounded: a volume with more than its share gives way first,
//! one with less never does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Entries of all volumes' sets; one takes some two hundred bytes.
pub(super) const MOST_ENTRIES: usize = 262_144;

/// What there is for all volumes.
#[derive(Debug)]
pub(super) struct Shares {
    entries: AtomicUsize,
    volumes: AtomicUsize,
    most: usize,
}

/// One volume's part.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Shares>,
    held: usize,
}

impl Shares {
    /// Room for so many entries.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            entries: AtomicUsize::new(0),
            volumes: AtomicUsize::new(0),
            most,
        })
    }
}

impl Share {
    /// One more volume.
    pub(super) fn new(shares: Arc<Shares>) -> Self {
        shares.volumes.fetch_add(1, Ordering::Relaxed);
        Self { shares, held: 0 }
    }

    /// The volume's sets have so many entries now; `false`: it must give some up.
    pub(super) fn hold(&mut self, entries: usize) -> bool {
        let shares = &self.shares;
        shares.entries.fetch_add(entries, Ordering::Relaxed);
        let all = shares.entries.fetch_sub(self.held, Ordering::Relaxed) - self.held;
        self.held = entries;
        let volumes = shares.volumes.load(Ordering::Relaxed).max(1);
        all <= shares.most || entries <= shares.most / volumes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.entries.fetch_sub(self.held, Ordering::Relaxed);
        self.shares.volumes.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_more_than_a_share_gives_way() {
        let shares = Shares::new(1000);
        let mut noisy = Share::new(shares.clone());
        let mut quiet = Share::new(shares.clone());
        assert!(noisy.hold(900));
        assert!(quiet.hold(100));
        assert!(quiet.hold(500), "its share");
        assert!(!noisy.hold(901));
        assert!(noisy.hold(0));
        assert!(quiet.hold(1000), "what nobody wants");
        assert!(!noisy.hold(501));
        drop(quiet);
        assert!(noisy.hold(1000));
        assert!(!noisy.hold(1001));
    }
}
