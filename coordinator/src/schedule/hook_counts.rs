//! Counts of hooks by how they ended. They begin at 0 with the process; what must outlive it is the gauge of post-hooks
//! that have not been run, which is read from what the catalog remembers.

use holdfast_runtime::metrics::Metrics;
use prometheus::{IntCounterVec, Opts};

const NAME: &str = "holdfast_hooks_total";

/// How a hook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookEnd {
    /// A pre-hook that was run.
    PreDone,
    /// A pre-hook that failed or could not be run.
    PreFailed,
    /// A post-hook that was run.
    PostDone,
    /// An attempt at a post-hook that was run and failed.
    PostFailed,
    /// The watchdog in the container had run the post-hook.
    PostByWatchdog,
    /// The pod was gone, and its freeze with it.
    PostPodGone,
    /// A post-hook that nobody tries any more.
    PostGivenUp,
}

impl HookEnd {
    const ALL: [Self; 7] = [
        Self::PreDone,
        Self::PreFailed,
        Self::PostDone,
        Self::PostFailed,
        Self::PostByWatchdog,
        Self::PostPodGone,
        Self::PostGivenUp,
    ];

    fn labels(self) -> [&'static str; 2] {
        match self {
            Self::PreDone => ["pre", "done"],
            Self::PreFailed => ["pre", "failed"],
            Self::PostDone => ["post", "done"],
            Self::PostFailed => ["post", "failed"],
            Self::PostByWatchdog => ["post", "watchdog"],
            Self::PostPodGone => ["post", "pod_gone"],
            Self::PostGivenUp => ["post", "given_up"],
        }
    }
}

/// What has become of hooks.
#[derive(Debug)]
pub struct HookCounts(IntCounterVec);

impl Default for HookCounts {
    /// # Panics
    /// Where the name breaks Prometheus's rules: it is a constant, so the first test finds it.
    fn default() -> Self {
        let help = "Pre- and post-hooks by how they ended; `failed` counts attempts, which are made again for post-hooks.";
        let family = match IntCounterVec::new(Opts::new(NAME, help), &["hook", "result"]) {
            Ok(family) => family,
            Err(error) => panic!("metric {NAME}: {error}"),
        };
        // Each is there from 0, so that the first failure is seen as one.
        for end in HookEnd::ALL {
            family.with_label_values(&end.labels()).inc_by(0);
        }
        Self(family)
    }
}

impl HookCounts {
    /// Has them printed.
    pub fn register(&self, metrics: &Metrics) {
        metrics.adopt(&self.0);
    }

    /// A hook has ended.
    pub fn ended(&self, end: HookEnd) {
        self.0.with_label_values(&end.labels()).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_is_there_from_zero_and_counted_as_what_it_was() {
        let counts = HookCounts::default();
        counts.ended(HookEnd::PostGivenUp);
        let metrics = Metrics::new();
        counts.register(&metrics);
        let text = metrics.encode().unwrap();
        let rows = text.lines().filter(|line| line.starts_with(NAME));
        assert_eq!(rows.count(), HookEnd::ALL.len(), "{text}");
        assert!(
            text.contains("{hook=\"post\",result=\"given_up\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("{hook=\"pre\",result=\"failed\"} 0"),
            "{text}"
        );
    }
}
