//! When a policy's run of a volume is due. Pure: the time is an argument, and what is remembered is the
//! creation of the volume's protection and the time of the schedule of its last run.
//!
//! A run belongs to a time of the schedule and is due then, later by the volume's share of the jitter. What
//! was missed while nobody looked is caught up once: the newest time counts, older ones are left out. Outside
//! of the windows a run waits for the next one to open.

use crate::kube::api::{ExposureSpec, PolicySpec, ScheduleSpec};
use crate::policy::calendar::{Calendar, zone};
use crate::policy::error::Errors;
use crate::policy::values::{bytes, duration};
use crate::policy::windows::Windows;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// The longest jitter.
const MAX_JITTER: Duration = Duration::from_secs(7 * 24 * 3600);
/// The shortest time in which a run can be started for sure.
const MIN_STARTING: Duration = Duration::from_secs(10);
/// The shortest bound of exposure (`schedule::continuous::ContinuousRule::MIN_AGE`).
const MIN_AGE: Duration = Duration::from_secs(5);
/// What a bound leaves open is as there.
const QUIET: Duration = Duration::from_secs(10);
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// What makes runs of a policy due.
#[derive(Clone, Debug)]
pub enum Rhythm {
    /// Fixed times.
    Schedule(Box<Schedule>),
    /// A bound of exposure; `schedule::continuous` decides by it. Runs start in the windows only.
    Exposure(Bound, Windows),
}

/// How far volumes may be ahead of their snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The age of the oldest unprotected change.
    pub max_age: Duration,
    /// The sum of changed bytes.
    pub max_bytes: Option<u64>,
    /// How long it should have been without changes.
    pub quiet: Duration,
    /// How far apart runs start at least.
    pub min_interval: Duration,
}

/// Fixed times, and what moves a run away from them.
#[derive(Clone, Debug)]
pub struct Schedule {
    calendar: Calendar,
    jitter: Duration,
    windows: Windows,
    starting_deadline: Option<SignedDuration>,
}

/// What is remembered of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Since when the policy protects it: earlier times do not count.
    pub since: Timestamp,
    /// The time of the schedule that its last run was for, whether it succeeded or not.
    pub last: Option<Timestamp>,
}

/// Whether a run is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It is; the time of the schedule that it is for, and how many times before that are left out (at most
    /// `MAX_MISSED` are counted).
    Now {
        /// The time of the schedule.
        scheduled: Timestamp,
        /// Times that nobody looked at.
        missed: u32,
    },
    /// It is, and waits for a window.
    Waiting {
        /// The time of the schedule.
        scheduled: Timestamp,
        /// When the window opens.
        opens: Timestamp,
    },
    /// It was, for longer than the starting deadline; it is left out.
    TooLate {
        /// The time of the schedule.
        scheduled: Timestamp,
        /// When the next run starts.
        next: Option<Timestamp>,
    },
    /// It is not; when the next run starts.
    Later {
        /// `None`: never.
        next: Option<Timestamp>,
    },
}

/// So many runs are looked at for the longest gap: hourly ones of a working week have their weekend among them.
const LOOKED_AHEAD: usize = 64;

/// So many missed times are counted.
pub const MAX_MISSED: u32 = 1000;

impl Rhythm {
    /// Reads what makes runs of a policy due, and notes mistakes.
    pub fn read(spec: &PolicySpec, errors: &mut Errors) -> Option<Self> {
        let windows = Windows::read("spec.windows", &spec.windows, errors);
        let starting = spec.starting_deadline.as_ref().and_then(|text| {
            let read = duration(text).and_then(|read| at_least(read, MIN_STARTING, "10s"));
            errors.check("spec.startingDeadline", read)
        });
        match (&spec.schedule, &spec.exposure) {
            (Some(schedule), None) => Schedule::read(schedule, windows, starting, errors)
                .map(|read| Self::Schedule(Box::new(read))),
            (None, Some(exposure)) => {
                if spec.starting_deadline.is_some() {
                    let message =
                        "goes with spec.schedule; a bound of exposure has no times to miss";
                    errors.add("spec.startingDeadline", message);
                }
                Some(Self::Exposure(Bound::read(exposure, errors)?, windows))
            }
            (given, _) => {
                let found = if given.is_some() {
                    "both are"
                } else {
                    "neither is"
                };
                errors.add(
                    "spec",
                    format!("needs exactly one of schedule and exposure; {found} given"),
                );
                None
            }
        }
    }
}

fn at_least(value: Duration, least: Duration, text: &str) -> Result<Duration, String> {
    match value < least {
        true => Err(format!("is shorter than {text}")),
        false => Ok(value),
    }
}

impl Bound {
    fn read(spec: &ExposureSpec, errors: &mut Errors) -> Option<Self> {
        let age = duration(&spec.max_age).and_then(|age| at_least(age, MIN_AGE, "5s"));
        let max_age = errors.check("spec.exposure.maxAge", age);
        let mut part = |name: &str, text: &Option<String>, usual: Duration| {
            let Some(text) = text else {
                return max_age.map(|age| usual.min(age));
            };
            let read = duration(text).and_then(|read| match max_age {
                Some(age) if read > age => {
                    Err("is longer than maxAge, which could then not be kept".to_owned())
                }
                _ => Ok(read),
            });
            errors.check(&format!("spec.exposure.{name}"), read)
        };
        let quiet = part("quiet", &spec.quiet, QUIET);
        let min_interval = part("minInterval", &spec.min_interval, MIN_INTERVAL);
        let max_bytes = spec.max_bytes.as_ref().map(|text| {
            let read = bytes(text).and_then(|read| match read {
                0 => Err("is 0; every volume would always be due".to_owned()),
                read => Ok(read),
            });
            errors.check("spec.exposure.maxBytes", read)
        });
        Some(Self {
            max_age: max_age?,
            max_bytes: match max_bytes {
                Some(read) => Some(read?),
                None => None,
            },
            quiet: quiet?,
            min_interval: min_interval?,
        })
    }
}

impl Schedule {
    fn read(
        spec: &ScheduleSpec,
        windows: Windows,
        starting: Option<Duration>,
        errors: &mut Errors,
    ) -> Option<Self> {
        let zone = errors.check("spec.schedule.timeZone", zone(&spec.time_zone));
        // A line is also looked at where the zone is wrong: all mistakes at once.
        let line = Calendar::read(&spec.cron, zone.clone().unwrap_or(jiff::tz::TimeZone::UTC));
        let calendar = errors.check("spec.schedule.cron", line);
        let jitter = spec.jitter.as_ref().map_or(Some(Duration::ZERO), |text| {
            let read = duration(text).and_then(|read| match read > MAX_JITTER {
                true => Err(format!("'{text}' is longer than 7d")),
                false => Ok(read),
            });
            errors.check("spec.schedule.jitter", read)
        });
        zone?;
        Some(Self {
            calendar: calendar?,
            jitter: jitter?,
            windows,
            starting_deadline: starting
                .and_then(|starting| SignedDuration::try_from(starting).ok()),
        })
    }

    /// How much later than scheduled a volume's runs are; always the same of a policy and a volume, and spread
    /// evenly over the jitter.
    pub fn share_of_jitter(&self, policy_uid: &str, volume: &str) -> SignedDuration {
        let jitter = self.jitter.as_millis();
        let share = (u128::from(spread(policy_uid, volume)) * jitter) >> 64;
        SignedDuration::from_millis(i64::try_from(share).unwrap_or(0))
    }

    /// Whether a run is due now, of a volume with this share of the jitter.
    pub fn due(&self, history: &History, share: SignedDuration, now: Timestamp) -> Due {
        // A clock that was ahead must not stop all runs until it is there again.
        let done = history
            .last
            .map_or(history.since, |last| last.max(history.since))
            .min(now);
        let reached = now.saturating_sub(share).unwrap_or(Timestamp::MIN);
        let newest = self
            .calendar
            .last_until(reached)
            .filter(|newest| *newest > done);
        let Some(scheduled) = newest else {
            return Due::Later {
                next: self.start_after(done.max(reached), share),
            };
        };
        let Some(start) = self.start_of(scheduled, share) else {
            return Due::Later { next: None };
        };
        if start > now {
            return Due::Waiting {
                scheduled,
                opens: start,
            };
        }
        let late = now.duration_since(start);
        if self
            .starting_deadline
            .is_some_and(|deadline| late > deadline)
        {
            return Due::TooLate {
                scheduled,
                next: self.start_after(scheduled, share),
            };
        }
        Due::Now {
            scheduled,
            missed: self.count(done, scheduled),
        }
    }

    /// When the first run starts whose time of the schedule is after a moment.
    pub fn start_after(&self, after: Timestamp, share: SignedDuration) -> Option<Timestamp> {
        self.start_of(self.calendar.next_after(after)?, share)
    }

    /// When the last volume starts, whatever its share of the jitter, of a run for a time of the schedule.
    pub fn last_start(&self, scheduled: Timestamp) -> Option<Timestamp> {
        self.start_of(scheduled, SignedDuration::try_from(self.jitter).ok()?)
    }

    /// The newest time of the schedule since a moment, and the next one.
    pub fn around(
        &self,
        since: Timestamp,
        now: Timestamp,
    ) -> (Option<Timestamp>, Option<Timestamp>) {
        let last = self.calendar.last_until(now).filter(|last| *last > since);
        (last, self.calendar.next_after(now))
    }

    /// The longest time between two of the next runs, jitter included: so far apart two successes may be.
    pub fn longest_gap(&self, now: Timestamp) -> Option<SignedDuration> {
        let first = self.start_after(now, SignedDuration::ZERO);
        let starts = std::iter::successors(first, |start| {
            self.start_after(*start, SignedDuration::ZERO)
        });
        let starts: Vec<Timestamp> = starts.take(LOOKED_AHEAD).collect();
        let gaps = starts.windows(2).map(|two| two[1].duration_since(two[0]));
        let jitter = SignedDuration::try_from(self.jitter).ok()?;
        gaps.max()?.checked_add(jitter)
    }

    fn start_of(&self, scheduled: Timestamp, share: SignedDuration) -> Option<Timestamp> {
        self.windows.open_from(scheduled.checked_add(share).ok()?)
    }

    /// Times after one moment and before another.
    fn count(&self, after: Timestamp, before: Timestamp) -> u32 {
        let first = self.calendar.next_after(after);
        let times = std::iter::successors(first, |time| self.calendar.next_after(*time));
        let missed = times
            .take_while(|time| *time < before)
            .take(MAX_MISSED as usize);
        u32::try_from(missed.count()).unwrap_or(MAX_MISSED)
    }
}

/// A number spread evenly over its range; stays the same across versions, as runs would move otherwise.
fn spread(policy: &str, volume: &str) -> u64 {
    // FNV-1a, mixed as by splitmix64: the high bits are what counts.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in policy.bytes().chain([0]).chain(volume.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests;
