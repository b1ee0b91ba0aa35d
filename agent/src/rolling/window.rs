//! Where a volume stands in the period, kept beside its index, and which paths are due when.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The end of the last pass of one volume. A file that cannot be written costs reads, never a backup.
#[derive(Debug)]
pub(super) struct Position(PathBuf);

impl Position {
    /// Beside this index.
    pub(super) fn of(index: &Path) -> Self {
        Self(index.with_extension("reread"))
    }

    /// Nanoseconds since the epoch; `None`: there was no pass, or it cannot be read.
    pub(super) fn get(&self) -> Option<i64> {
        fs::read_to_string(&self.0).ok()?.trim().parse().ok()
    }

    /// Remembers it.
    pub(super) fn set(&self, end_ns: i64) {
        let temporary = self.0.with_extension("reread-new");
        let written = File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(format!("{end_ns}\n").as_bytes())?;
                // Or a crash leaves an empty file under the name.
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, &self.0));
        if let Err(error) = written {
            tracing::warn!(path = %self.0.display(), %error, "what was read again is not remembered");
        }
    }
}

/// The time whose files are due: since the pass before, at most a period; or the next `most` of it, in
/// turn, however long ago the pass before was.
pub(super) fn due(last: i64, now_ns: i64, period_ns: i64, most: Option<Duration>) -> (i64, i64) {
    let last = last.min(now_ns);
    let Some(most) = most.and_then(|most| i64::try_from(most.as_nanos()).ok()) else {
        return (last.max(now_ns.saturating_sub(period_ns)), now_ns);
    };
    let periods = now_ns.saturating_sub(last) / period_ns;
    let from = last.saturating_add(periods.saturating_mul(period_ns));
    // A whole number of periods later everything is due again.
    let from = match from == now_ns && periods > 0 {
        true => from - period_ns,
        false => from,
    };
    (from, now_ns.min(from.saturating_add(most)))
}

/// Part of a period: after `from_ns`, for `length_ns`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    from_ns: i64,
    length_ns: i64,
    period_ns: i64,
}

impl Window {
    /// All of the time since `from_ns`, or as much of it as such a share of the volume is due in.
    pub(super) fn next(from_ns: i64, now_ns: i64, period_ns: i64, share: f64) -> Self {
        let most = (period_ns as f64 * share.min(1.0)) as i64;
        let length_ns = now_ns
            .saturating_sub(from_ns)
            .min(most.max(1))
            .min(period_ns);
        Self {
            from_ns,
            length_ns,
            period_ns,
        }
    }

    /// Its first half.
    pub(super) fn half(self) -> Self {
        Self {
            length_ns: (self.length_ns / 2).max(1),
            ..self
        }
    }

    /// Its end.
    pub(super) fn end(&self) -> i64 {
        self.from_ns + self.length_ns
    }

    /// Whether the path with this key has its place in it.
    pub(super) fn holds(&self, key: &[u8]) -> bool {
        let mut hash = [0; 8];
        hash.copy_from_slice(&blake3::hash(key).as_bytes()[..8]);
        let place = (u128::from(u64::from_le_bytes(hash)) * self.period_ns as u128) >> 64;
        let after = (place as i64 - self.from_ns).rem_euclid(self.period_ns);
        (after != 0 && after <= self.length_ns) || self.length_ns >= self.period_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_follow_each_other_hold_every_path_once_in_a_period() {
        let period = 7 * 24 * 3600 * 1_000_000_000_i64;
        let start = 1_790_000_000_123_456_789_i64;
        let mut counts = vec![0; 2000];
        let (mut from, mut windows) = (start, 0);
        while from < start + period {
            let now = (from + period / 100 + 12_345_678_901).min(start + period);
            let window = Window::next(from, now, period, 0.013);
            for (n, count) in counts.iter_mut().enumerate() {
                *count += u32::from(window.holds(format!("dir/{n}").as_bytes()));
            }
            windows += 1;
            from = window.end();
        }
        assert!(windows > 90, "{windows}");
        assert!(counts.iter().all(|count| *count == 1), "{counts:?}");
    }

    #[test]
    fn parts_of_the_period_come_in_turn_however_rare_passes_are() {
        let day = 24 * 3600 * 1_000_000_000_i64;
        let most = Some(Duration::from_nanos(day as u64));
        for every in [1, 3, 7, 8, 30] {
            let (mut last, mut counts) = (0, [0; 7]);
            for pass in 1..=7 {
                let (from, until) = due(last, pass * every * day, 7 * day, most);
                assert_eq!(until - from, day, "every {every} days, pass {pass}");
                counts[((from / day) % 7) as usize] += 1;
                last = until;
            }
            assert_eq!(counts, [1; 7], "every {every} days");
        }
        assert_eq!(due(5, 9, 100, None), (5, 9));
        assert_eq!(due(5, 900, 100, None), (800, 900));
        assert_eq!(due(5, 3, 100, None), (3, 3));
    }

    #[test]
    fn a_window_holds_its_share() {
        let period = 1_000_000_000_000;
        let window = Window::next(77, i64::MAX, period, 0.1);
        let held = (0..10_000)
            .filter(|n: &u32| window.holds(&n.to_le_bytes()))
            .count();
        assert!((850..1150).contains(&held), "{held}");
        let whole = Window::next(77, i64::MAX, period, 5.0);
        assert!((0..100).all(|n: u32| whole.holds(&n.to_le_bytes())));
    }
}
