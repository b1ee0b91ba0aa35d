//! Rates in bytes a second, kept over all threads that share a limit.

use crate::cancel::Cancel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest sleep before looking at the cancellation again.
const SLICE: Duration = Duration::from_millis(100);
/// What may be used at once after a pause.
const BURST: Duration = Duration::from_millis(250);

/// A token bucket that may go into debt: who takes bytes first is told how long to wait for them.
/// Clones share it.
#[derive(Debug, Clone, Default)]
pub struct RateLimit(Vec<Arc<Bucket>>);

#[derive(Debug)]
struct Bucket {
    bytes_per_second: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    balance: f64,
    at: Instant,
}

impl RateLimit {
    /// No limit.
    pub fn unlimited() -> Self {
        Self(Vec::new())
    }

    /// At most so many bytes a second; `None` and 0 are no limit.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        let bucket = bytes_per_second.filter(|rate| *rate > 0).map(|rate| {
            Arc::new(Bucket {
                bytes_per_second: rate as f64,
                state: Mutex::new(State {
                    balance: 0.0,
                    at: Instant::now(),
                }),
            })
        });
        Self(bucket.into_iter().collect())
    }

    /// Both limits: this one, shared with whoever has it, and another.
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// Takes `bytes` at `now`; how long to wait before going on.
    pub fn take(&self, bytes: u64, now: Instant) -> Duration {
        let waits = self.0.iter().map(|bucket| bucket.take(bytes, now));
        waits.max().unwrap_or(Duration::ZERO)
    }

    /// Takes `bytes` and sleeps as long as the limit wants, or until it is cancelled.
    pub fn wait(&self, bytes: u64, cancel: &Cancel) {
        if self.0.is_empty() {
            return;
        }
        let mut left = self.take(bytes, Instant::now());
        while !left.is_zero() && !cancel.is_cancelled() {
            let slice = left.min(SLICE);
            std::thread::sleep(slice);
            left -= slice;
        }
    }
}

impl Bucket {
    fn take(&self, bytes: u64, now: Instant) -> Duration {
        // A poisoned bucket still holds two plain numbers.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = self.bytes_per_second;
        let passed = now.saturating_duration_since(state.at).as_secs_f64();
        state.at = state.at.max(now);
        let most = rate * BURST.as_secs_f64();
        state.balance = (state.balance + passed * rate).min(most) - bytes as f64;
        Duration::try_from_secs_f64((-state.balance / rate).max(0.0)).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_time_and_a_pause_saves_little() {
        let limit = RateLimit::new(Some(1000));
        let start = Instant::now();
        let mut now = start;
        for _ in 0..100 {
            now += limit.take(100, now);
        }
        let taken = (now - start).as_secs_f64();
        assert!((9.5..10.5).contains(&taken), "{taken}");
        now += Duration::from_secs(3600);
        assert_eq!(limit.take(250, now), Duration::ZERO);
        assert!(limit.take(1000, now) >= Duration::from_millis(990));
        assert_eq!(RateLimit::unlimited().take(u64::MAX, now), Duration::ZERO);
    }

    #[test]
    fn of_two_limits_the_lower_one_counts_and_the_shared_one_is_used_up_by_all() {
        let start = Instant::now();
        let (node, run) = (RateLimit::new(Some(1000)), RateLimit::new(Some(100)));
        let both = node.and(&run);
        let mut now = start;
        for _ in 0..10 {
            now += both.take(100, now);
        }
        let taken = (now - start).as_secs_f64();
        assert!((9.0..11.0).contains(&taken), "{taken}");
        // What another run takes is missing here.
        now += node.take(20_000, now).mul_f64(0.5);
        assert!(both.take(1, now) > Duration::from_secs(9));
        assert_eq!(
            RateLimit::unlimited()
                .and(&RateLimit::unlimited())
                .take(u64::MAX, now),
            Duration::ZERO
        );
    }

    #[test]
    fn a_long_wait_ends_when_cancelled() {
        let limit = RateLimit::new(Some(1));
        let cancel = Cancel::new();
        cancel.cancel();
        let start = Instant::now();
        limit.wait(1_000_000, &cancel);
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}
