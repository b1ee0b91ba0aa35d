//! When runs may start. A window opens at times of a calendar and stays open for a length of time that
//! passes, whatever clocks show meanwhile.

use crate::kube::api::{Day, WindowSpec};
use crate::policy::calendar::{Calendar, zone};
use crate::policy::error::Errors;
use crate::policy::values::duration;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// The longest window: a week covers any calendar of days.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Windows; none at all is always open.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    list: Vec<Window>,
}

#[derive(Clone, Debug)]
struct Window {
    opens: Calendar,
    length: SignedDuration,
}

impl Windows {
    /// Reads windows at a path, and notes mistakes.
    pub fn read(path: &str, specs: &[WindowSpec], errors: &mut Errors) -> Self {
        let windows = specs.iter().enumerate();
        let list = windows
            .filter_map(|(index, spec)| Window::read(&format!("{path}[{index}]"), spec, errors));
        Self {
            list: list.collect(),
        }
    }

    /// Whether runs may start at a moment.
    pub fn is_open(&self, at: Timestamp) -> bool {
        self.list.is_empty() || self.list.iter().any(|window| window.is_open(at))
    }

    /// The first moment from this one on at which runs may start.
    pub fn open_from(&self, from: Timestamp) -> Option<Timestamp> {
        if self.is_open(from) {
            return Some(from);
        }
        self.list
            .iter()
            .filter_map(|window| window.opens.next_after(from))
            .min()
    }
}

impl Window {
    fn read(path: &str, spec: &WindowSpec, errors: &mut Errors) -> Option<Self> {
        let length = duration(&spec.duration).and_then(|length| match length {
            _ if length.is_zero() => Err("is 0; the window would never be open".to_owned()),
            _ if length > LONGEST => Err(format!("'{}' is longer than 7d", spec.duration)),
            _ => Ok(length),
        });
        let length = errors.check(&format!("{path}.duration"), length);
        let zone = errors.check(&format!("{path}.timeZone"), zone(&spec.time_zone));
        let opens = match (&spec.cron, &spec.start) {
            (Some(line), None) => {
                if !spec.days.is_empty() {
                    errors.add(
                        format!("{path}.days"),
                        "goes with start; say the days in cron",
                    );
                }
                let read = Calendar::read(line, zone?);
                errors.check(&format!("{path}.cron"), read)
            }
            (None, Some(start)) => {
                let line = line(start, &spec.days);
                let read = zone.map(|zone| line.and_then(|line| Calendar::read(&line, zone)))?;
                errors.check(&format!("{path}.start"), read)
            }
            (given, _) => {
                let found = if given.is_some() {
                    "both are"
                } else {
                    "neither is"
                };
                errors.add(
                    path,
                    format!("needs exactly one of cron and start; {found} given"),
                );
                None
            }
        };
        Some(Self {
            opens: opens?,
            length: SignedDuration::try_from(length?).ok()?,
        })
    }

    fn is_open(&self, at: Timestamp) -> bool {
        // All windows of a calendar are as long: the one that opened last is the last to close.
        let opened = self.opens.last_until(at);
        opened.is_some_and(|opened| at.duration_since(opened) < self.length)
    }
}

/// The cron line of a time of day on some days.
fn line(start: &str, days: &[Day]) -> Result<String, String> {
    let wrong = || format!("'{start}' is not a time of day; write one such as 22:00");
    let (hour, minute) = start.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str, below: u8| {
        let is_plain = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u8>()
            .ok()
            .filter(|number| is_plain && *number < below)
            .ok_or_else(wrong)
    };
    let (hour, minute) = (number(hour, 24)?, number(minute, 60)?);
    let days: Vec<String> = days.iter().map(|day| format!("{day:?}")).collect();
    let days = if days.is_empty() {
        "*".to_owned()
    } else {
        days.join(",")
    };
    Ok(format!("{minute} {hour} * * {days}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn night() -> WindowSpec {
        WindowSpec {
            start: Some("22:00".to_owned()),
            duration: "6h".to_owned(),
            time_zone: "Europe/Berlin".to_owned(),
            ..WindowSpec::default()
        }
    }

    fn windows(specs: &[WindowSpec]) -> Windows {
        let mut errors = Errors::default();
        let windows = Windows::read("spec.windows", specs, &mut errors);
        assert!(errors.is_empty(), "{:?}", errors.into_vec());
        windows
    }

    #[test]
    fn a_window_is_open_from_its_start_until_before_its_end() {
        let windows = windows(&[night()]);
        for (moment, open) in [
            ("2026-06-01T19:59:59Z", false),
            ("2026-06-01T20:00:00Z", true),
            ("2026-06-02T01:59:59.999Z", true),
            ("2026-06-02T02:00:00Z", false),
        ] {
            assert_eq!(windows.is_open(at(moment)), open, "{moment}");
        }
        assert_eq!(
            windows.open_from(at("2026-06-02T02:00:00Z")),
            Some(at("2026-06-02T20:00:00Z"))
        );
        assert_eq!(
            windows.open_from(at("2026-06-02T21:00:00Z")),
            Some(at("2026-06-02T21:00:00Z"))
        );
        let always = Windows::default();
        assert_eq!(
            always.open_from(at("2026-06-02T02:00:00Z")),
            Some(at("2026-06-02T02:00:00Z"))
        );
    }

    #[test]
    fn several_windows_and_days() {
        let weekend = WindowSpec {
            days: vec![Day::Sat, Day::Sun],
            start: Some("00:00".to_owned()),
            duration: "24h".to_owned(),
            time_zone: "UTC".to_owned(),
            ..WindowSpec::default()
        };
        let noon = WindowSpec {
            cron: Some("0 12 * * MON-FRI".to_owned()),
            duration: "30m".to_owned(),
            time_zone: "UTC".to_owned(),
            ..WindowSpec::default()
        };
        let windows = windows(&[weekend, noon]);
        // 2026-06-05 is a Friday.
        for (moment, next) in [
            ("2026-06-05T12:29:00Z", "2026-06-05T12:29:00Z"),
            ("2026-06-05T12:30:00Z", "2026-06-06T00:00:00Z"),
            ("2026-06-06T15:00:00Z", "2026-06-06T15:00:00Z"),
            ("2026-06-08T00:00:00Z", "2026-06-08T12:00:00Z"),
        ] {
            assert_eq!(windows.open_from(at(moment)), Some(at(next)), "{moment}");
        }
    }

    #[test]
    fn a_window_is_as_long_as_it_says_when_the_clock_changes() {
        let windows = windows(&[night()]);
        // Summer time begins: it opens at 21:00 UTC, and six hours later it is 05:00 there.
        assert!(windows.is_open(at("2026-03-29T02:59:00Z")));
        assert!(!windows.is_open(at("2026-03-29T03:00:00Z")));
    }

    #[test]
    fn mistakes_name_their_fields() {
        let none = WindowSpec {
            duration: "1h".to_owned(),
            time_zone: "UTC".to_owned(),
            ..WindowSpec::default()
        };
        let with = |change: &dyn Fn(&mut WindowSpec)| {
            let mut spec = night();
            change(&mut spec);
            spec
        };
        for (spec, path) in [
            (none, "w[0]"),
            (
                with(&|spec| spec.cron = Some("0 1 * * *".to_owned())),
                "w[0]",
            ),
            (
                with(&|spec| spec.start = Some("25:00".to_owned())),
                "w[0].start",
            ),
            (
                with(&|spec| spec.start = Some("2:00".to_owned())),
                "w[0].start",
            ),
            (
                with(&|spec| spec.start = Some("+2:00".to_owned())),
                "w[0].start",
            ),
            (
                with(&|spec| spec.duration = "8d".to_owned()),
                "w[0].duration",
            ),
            (
                with(&|spec| spec.duration = "0s".to_owned()),
                "w[0].duration",
            ),
            (
                with(&|spec| spec.time_zone = "Berlin".to_owned()),
                "w[0].timeZone",
            ),
        ] {
            let mut errors = Errors::default();
            Windows::read("w", &[spec], &mut errors);
            let errors = errors.into_vec();
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert_eq!(errors[0].path, path);
        }
    }
}
