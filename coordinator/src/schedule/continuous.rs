//! Continuous protection: when a volume is due, and what it waits for. Pure: the loop that asks and acts is
//! in `trigger`.
//!
//! A volume is backed up when its oldest unprotected change reaches an age, or its unprotected bytes a sum, as
//! soon as it is quiet; one that is never quiet, at twice the bound. One that no journal watches is due when
//! its newest snapshot is as old. Never two runs at once; a failed run is tried again, later each time.

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// First wait after a failed run.
const RETRY_FIRST: Duration = Duration::from_secs(30);
/// Longest wait after a failed run. With a healthy agent a failure is of the store or the network, and the
/// volume is exposed all the while.
const RETRY_MAX: Duration = Duration::from_secs(30 * 60);
/// A volume in which nothing changes is backed up once in a while nevertheless: what a journal cannot see
/// (a store through a mapping that stays open) is found by the run.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// A volume that is never quiet is backed up at so many times its bound.
const PATIENCE: u32 = 2;

/// Which volumes, by their names: gitignore syntax (`*`, `shop/*`, `shop`: all below it).
#[derive(Clone)]
pub struct VolumePattern {
    text: String,
    /// `None`: all of them.
    matcher: Option<Gitignore>,
}

impl VolumePattern {
    /// All volumes.
    pub fn any() -> Self {
        Self {
            text: "*".to_owned(),
            matcher: None,
        }
    }

    /// Whether the volume of this name is among them.
    pub fn matches(&self, volume: &str) -> bool {
        self.matcher.as_ref().is_none_or(|matcher| {
            let found = matcher.matched_path_or_any_parents(volume, false);
            found.is_ignore()
        })
    }
}

impl FromStr for VolumePattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.starts_with(['!', '#']) {
            return Err("must be a pattern of volume names, such as '*' or 'shop/*'".to_owned());
        }
        let mut builder = GitignoreBuilder::new("");
        builder.allow_unclosed_class(false);
        let added = builder.add_line(None, text).map(|_| ());
        added.map_err(|error| error.to_string())?;
        Ok(Self {
            text: text.to_owned(),
            matcher: Some(builder.build().map_err(|error| error.to_string())?),
        })
    }
}

impl fmt::Display for VolumePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for VolumePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

/// How far volumes may be ahead of their newest snapshots.
#[derive(Clone, Debug)]
pub struct ContinuousRule {
    /// Which volumes; the first rule that names one holds for it.
    pub volumes: VolumePattern,
    /// The age of the oldest unprotected change that makes a volume due.
    pub max_age: Duration,
    /// The sum of unprotected bytes that makes it due; `None`: no sum does.
    pub max_bytes: Option<u64>,
    /// It should have been without changes this long.
    pub quiet: Duration,
    /// Runs start at least so far apart.
    pub min_interval: Duration,
}

impl ContinuousRule {
    /// The shortest age: a few messages of an agent.
    pub const MIN_AGE: Duration = Duration::from_secs(5);
    /// The usual quiet period.
    pub const QUIET: Duration = Duration::from_secs(10);
    /// The usual distance of runs.
    pub const MIN_INTERVAL: Duration = Duration::from_secs(60);

    /// The rule for these volumes with this age; everything else as usual.
    pub fn new(volumes: VolumePattern, max_age: Duration) -> Self {
        Self {
            volumes,
            max_age,
            max_bytes: None,
            quiet: Self::QUIET.min(max_age),
            min_interval: Self::MIN_INTERVAL.min(max_age),
        }
    }
}

/// What a journal that saw every change says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watched {
    /// Age of the oldest unprotected change; `None`: there is none.
    pub exposed: Option<Duration>,
    /// Unprotected bytes.
    pub bytes: u64,
    /// Age of the newest change.
    pub quiet: Duration,
}

/// What is known of a volume now. All ages are of this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// What its journal says; `None`: nobody watches it.
    pub watched: Option<Watched>,
    /// A backup of it runs or waits, whoever asked for it.
    pub running: bool,
    /// Since the last run that became a snapshot was started; `None`: there is no snapshot.
    pub covered: Option<Duration>,
    /// Since the last run was started, however it ended.
    pub started: Option<Duration>,
    /// Since it ended.
    pub ended: Option<Duration>,
    /// Runs that failed since the last that did not.
    pub failures: u32,
}

/// Why a volume is backed up now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It never was.
    Never,
    /// Its oldest unprotected change is too old.
    Age,
    /// Too much has changed.
    Bytes,
    /// Nobody watches it, and its newest snapshot is too old.
    Unwatched,
    /// No change was seen for a long time.
    Idle,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "it has no snapshot",
            Self::Age => "its oldest unprotected change has reached the age",
            Self::Bytes => "its unprotected changes have reached the size",
            Self::Idle => "no change was seen for a day, and a run proves it",
            Self::Unwatched => "its newest snapshot has reached the age, and no journal watches it",
        })
    }
}

/// What to do with a volume now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Nothing: it is not due.
    Protected,
    /// It is due and a run is under way.
    Running,
    /// It is due, and waits until it is quiet.
    Busy,
    /// It is due, and runs are not to follow each other so closely.
    TooSoon,
    /// It is due, and its last run failed a moment ago.
    Failed,
    /// Back it up.
    Start(Why),
}

/// Decides.
pub fn decide(rule: &ContinuousRule, seen: &Seen) -> Decision {
    let Some((why, age)) = due(rule, seen) else {
        return Decision::Protected;
    };
    if seen.running {
        return Decision::Running;
    }
    if seen.failures > 0 && seen.ended.is_some_and(|ended| ended < retry(seen.failures)) {
        return Decision::Failed;
    }
    if seen
        .started
        .is_some_and(|started| started < rule.min_interval)
    {
        return Decision::TooSoon;
    }
    let patient = age < rule.max_age.saturating_mul(PATIENCE)
        && (why != Why::Bytes || !is_above(seen, rule, u64::from(PATIENCE)));
    match seen.watched {
        Some(watched) if watched.quiet < rule.quiet && patient => Decision::Busy,
        _ => Decision::Start(why),
    }
}

/// Why it is due, and how long its oldest change has been unprotected.
fn due(rule: &ContinuousRule, seen: &Seen) -> Option<(Why, Duration)> {
    let Some(covered) = seen.covered else {
        return Some((Why::Never, Duration::MAX));
    };
    let Some(watched) = seen.watched else {
        return (covered >= rule.max_age).then_some((Why::Unwatched, covered));
    };
    // What changed before the last good run was started is in it, though the agent has not said so yet.
    let Some(exposed) = watched.exposed else {
        return (covered >= IDLE.max(rule.max_age)).then_some((Why::Idle, covered));
    };
    let age = exposed.min(covered);
    if age >= rule.max_age {
        Some((Why::Age, age))
    } else if is_above(seen, rule, 1) {
        Some((Why::Bytes, age))
    } else {
        None
    }
}

/// Whether the unprotected bytes have reached the bound so many times.
fn is_above(seen: &Seen, rule: &ContinuousRule, times: u64) -> bool {
    match (seen.watched, rule.max_bytes) {
        (Some(watched), Some(most)) => watched.bytes >= most.saturating_mul(times),
        _ => false,
    }
}

/// How long after its end a run that failed is tried again.
fn retry(failures: u32) -> Duration {
    let doubled = 1u32.checked_shl(failures.saturating_sub(1));
    let factor = doubled.filter(|factor| *factor > 0).unwrap_or(u32::MAX);
    RETRY_FIRST.saturating_mul(factor).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{Busy, Failed, Protected, Running, Start, TooSoon};

    const MINUTE: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    fn rule() -> ContinuousRule {
        ContinuousRule {
            volumes: "*".parse().unwrap(),
            max_age: 5 * MINUTE,
            max_bytes: Some(1000),
            quiet: 10 * SECOND,
            min_interval: MINUTE,
        }
    }

    /// Backed up an hour ago; the oldest change and the newest are so old, and so many bytes.
    fn seen(exposed: Duration, quiet: Duration, bytes: u64) -> Seen {
        Seen {
            watched: Some(Watched {
                exposed: Some(exposed),
                bytes,
                quiet,
            }),
            covered: Some(60 * MINUTE),
            started: Some(60 * MINUTE),
            ended: Some(59 * MINUTE),
            ..Seen::default()
        }
    }

    #[test]
    fn a_bound_makes_a_volume_due_and_quiet_starts_it() {
        let quiet = 10 * SECOND;
        let busy = 9 * SECOND;
        for (exposed, still, bytes, expected) in [
            (5 * MINUTE - SECOND, quiet, 999, Protected),
            (5 * MINUTE, quiet, 1, Start(Why::Age)),
            (SECOND, quiet, 1000, Start(Why::Bytes)),
            (5 * MINUTE, busy, 1, Busy),
            (SECOND, busy, 1000, Busy),
            // Nobody starves for want of quiet.
            (10 * MINUTE - SECOND, busy, 1, Busy),
            (10 * MINUTE, Duration::ZERO, 1, Start(Why::Age)),
            (SECOND, Duration::ZERO, 1999, Busy),
            (SECOND, Duration::ZERO, 2000, Start(Why::Bytes)),
        ] {
            let found = decide(&rule(), &seen(exposed, still, bytes));
            assert_eq!(found, expected, "{exposed:?} {still:?} {bytes}");
        }
        let nothing = Seen {
            watched: Some(Watched::default()),
            ..seen(MINUTE, MINUTE, 0)
        };
        assert_eq!(decide(&rule(), &nothing), Protected);
        let for_a_day = Seen {
            covered: Some(IDLE),
            ..nothing
        };
        assert_eq!(decide(&rule(), &for_a_day), Start(Why::Idle));
        let no_sum = ContinuousRule {
            max_bytes: None,
            ..rule()
        };
        assert_eq!(decide(&no_sum, &seen(SECOND, quiet, u64::MAX)), Protected);
    }

    #[test]
    fn a_volume_that_nobody_watches_goes_by_its_newest_snapshot() {
        let unwatched = |covered| Seen {
            watched: None,
            covered,
            ..seen(MINUTE, MINUTE, 0)
        };
        for (covered, expected) in [
            (Some(5 * MINUTE - SECOND), Protected),
            (Some(5 * MINUTE), Start(Why::Unwatched)),
            (None, Start(Why::Never)),
        ] {
            assert_eq!(
                decide(&rule(), &unwatched(covered)),
                expected,
                "{covered:?}"
            );
        }
        // A new volume does not wait to be quiet.
        let new = Seen {
            covered: None,
            started: None,
            ended: None,
            ..seen(SECOND, Duration::ZERO, 1)
        };
        assert_eq!(decide(&rule(), &new), Start(Why::Never));
    }

    #[test]
    fn runs_never_overlap_nor_follow_too_closely() {
        let due = seen(6 * MINUTE, MINUTE, 1);
        let running = Seen {
            running: true,
            ..due
        };
        assert_eq!(decide(&rule(), &running), Running);
        let started = |ago| Seen {
            started: Some(ago),
            ended: Some(SECOND),
            ..due
        };
        assert_eq!(decide(&rule(), &started(MINUTE - SECOND)), TooSoon);
        assert_eq!(decide(&rule(), &started(MINUTE)), Start(Why::Age));
        // What the agent has not taken back yet, but the last run has: from before it was started.
        let stale = Seen {
            covered: Some(2 * MINUTE),
            ..due
        };
        assert_eq!(decide(&rule(), &stale), Protected);
    }

    #[test]
    fn a_failed_run_is_tried_again_later_each_time() {
        let failed = |failures, ended| Seen {
            failures,
            started: Some(ended + MINUTE),
            ended: Some(ended),
            ..seen(20 * MINUTE, MINUTE, 1)
        };
        for (failures, wait) in [
            (1, 30 * SECOND),
            (2, MINUTE),
            (3, 2 * MINUTE),
            (7, 30 * MINUTE),
            (32, 30 * MINUTE),
            (33, 30 * MINUTE),
            (u32::MAX, 30 * MINUTE),
        ] {
            let early = failed(failures, wait - SECOND);
            assert_eq!(decide(&rule(), &early), Failed, "{failures}");
            let late = failed(failures, wait);
            assert_eq!(decide(&rule(), &late), Start(Why::Age), "{failures}");
        }
    }

    #[test]
    fn patterns_name_volumes() {
        for (pattern, volume, expected) in [
            ("*", "web", true),
            ("*", "shop/db", true),
            ("web", "web", true),
            ("web", "web2", false),
            ("shop/*", "shop/db", true),
            ("shop", "shop/db", true),
            ("shop/*", "web", false),
            ("*-db", "shop/main-db", true),
        ] {
            let parsed: VolumePattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(volume), expected, "{pattern} {volume}");
        }
        for bad in ["", "!web", "#web", "[a"] {
            assert!(bad.parse::<VolumePattern>().is_err(), "{bad}");
        }
    }
}
