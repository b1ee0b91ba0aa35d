//! The only source of the time and of waiting, so that tests set both.
//!
//! Wall time is nanoseconds since 1970 UTC and may step either way: it is for people, records and
//! retention, never for ordering. `elapsed` never goes back.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;

/// A wait that ends by itself.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// Tells the time and waits.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Nanoseconds since 1970 UTC.
    fn now_ns(&self) -> i64;

    /// Time since some fixed moment of this process; never goes back.
    fn elapsed(&self) -> Duration;

    /// Ends when `span` has passed on [`Clock::elapsed`]. Dropping it is harmless.
    fn sleep(&self, span: Duration) -> Sleep;
}

/// The system's clock.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose `elapsed` starts now.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that asks the system for the time"
    )]
    fn now_ns(&self) -> i64 {
        let now = SystemTime::now();
        match now.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos)
            }
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, span: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(span))
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock(Mutex<Manual>);

#[derive(Debug)]
struct Manual {
    wall_ns: i64,
    elapsed: Duration,
    /// Sleepers by the moment they wake; the number keeps equal moments apart.
    sleepers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
    next: u64,
}

impl ManualClock {
    /// A clock that shows `wall_ns`.
    pub fn at(wall_ns: i64) -> Self {
        Self(Mutex::new(Manual {
            wall_ns,
            elapsed: Duration::ZERO,
            sleepers: BTreeMap::new(),
            next: 0,
        }))
    }

    /// Lets `span` pass, on the wall too, and wakes who has slept long enough.
    pub fn advance(&self, span: Duration) {
        let mut manual = self.lock();
        manual.elapsed += span;
        manual.wall_ns = manual
            .wall_ns
            .saturating_add(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX));
        let now = manual.elapsed;
        let still = manual.sleepers.split_off(&(now, u64::MAX));
        for (_, sleeper) in std::mem::replace(&mut manual.sleepers, still) {
            // A sleeper that was dropped has nobody to wake.
            let _ = sleeper.send(());
        }
    }

    /// Steps the wall clock; nobody wakes.
    pub fn set_wall(&self, wall_ns: i64) {
        self.lock().wall_ns = wall_ns;
    }

    /// How many are asleep: lets a test wait until the code under test waits.
    pub fn sleepers(&self) -> usize {
        let mut manual = self.lock();
        manual.sleepers.retain(|_, sleeper| !sleeper.is_closed());
        manual.sleepers.len()
    }

    fn lock(&self) -> MutexGuard<'_, Manual> {
        // Nothing panics while holding it; a poisoned clock still tells the time.
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> i64 {
        self.lock().wall_ns
    }

    fn elapsed(&self) -> Duration {
        self.lock().elapsed
    }

    fn sleep(&self, span: Duration) -> Sleep {
        let mut manual = self.lock();
        if span.is_zero() {
            return Box::pin(std::future::ready(()));
        }
        let (wake, woken) = oneshot::channel();
        let key = (manual.elapsed + span, manual.next);
        manual.next += 1;
        manual.sleepers.insert(key, wake);
        Box::pin(async move {
            // The sender lives as long as the clock; a clock that is gone wakes everybody.
            let _ = woken.await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleepers_wake_in_time_and_not_before() {
        let clock = ManualClock::at(1_000);
        let short = tokio::spawn(clock.sleep(Duration::from_secs(1)));
        let long = tokio::spawn(clock.sleep(Duration::from_secs(2)));
        clock.advance(Duration::from_millis(999));
        assert_eq!(clock.sleepers(), 2);
        clock.advance(Duration::from_millis(1));
        short.await.unwrap();
        assert!(!long.is_finished());
        clock.set_wall(0);
        clock.advance(Duration::from_secs(5));
        long.await.unwrap();
        assert_eq!(clock.now_ns(), 5_000_000_000);
        assert_eq!(clock.elapsed(), Duration::from_secs(6));
    }

    #[test]
    fn the_system_clock_tells_this_century() {
        let now = SystemClock::new().now_ns();
        assert!((1_700_000_000..5_000_000_000).contains(&(now / 1_000_000_000)));
    }
}
