//! Times of a cron line in a time zone.
//!
//! A time that a change of the clock leaves out is the moment of the change; one that it repeats is the first
//! of the two, unless the line is about every hour or every few minutes: such a line follows the hours that
//! pass, and the repeated one passes twice.

use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A cron line in a time zone. It happens, sooner or later.
#[derive(Clone, Debug)]
pub struct Calendar {
    cron: Cron,
    zone: TimeZone,
}

/// Days of 28 years, after which weekdays and leap days repeat.
const CYCLE: usize = 28 * 366;

impl Calendar {
    /// Reads a line.
    pub fn read(line: &str, zone: TimeZone) -> Result<Self, String> {
        let advice = "write minute, hour, day of month, month and day of week, such as '30 2 * * *', or @daily";
        let is_nickname = line.trim_start().starts_with('@');
        let fields = line.split_whitespace().count();
        if is_nickname {
            let known = [
                "@hourly",
                "@daily",
                "@midnight",
                "@weekly",
                "@monthly",
                "@yearly",
                "@annually",
            ];
            if !known.contains(&line.trim()) {
                return Err(format!(
                    "'{line}' is not known; there are {}",
                    known.join(", ")
                ));
            }
        } else if fields != 5 {
            return Err(format!("'{line}' has {fields} fields, not 5; {advice}"));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed);
        let cron = parser.build().parse(line);
        let cron = cron.map_err(|error| format!("'{line}' is no cron line ({error}); {advice}"))?;
        match happens(&cron) {
            true => Ok(Self { cron, zone }),
            false => Err(format!("'{line}' never happens; {advice}")),
        }
    }

    /// The first time after a moment.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let found = self.cron.find_next_occurrence(&self.local(after), false);
        found
            .ok()
            .map(|found| found.timestamp())
            .filter(|found| *found > after)
    }

    /// The last time that is not after a moment.
    pub fn last_until(&self, until: Timestamp) -> Option<Timestamp> {
        let found = self.cron.find_previous_occurrence(&self.local(until), true);
        found.ok().map(|found| found.timestamp())
    }

    /// Whole seconds: lines are about nothing smaller.
    fn local(&self, at: Timestamp) -> Zoned {
        let seconds = at.as_nanosecond().div_euclid(1_000_000_000);
        let whole = i64::try_from(seconds)
            .ok()
            .and_then(|s| Timestamp::from_second(s).ok());
        whole.unwrap_or(at).to_zoned(self.zone.clone())
    }
}

/// Whether a line's day ever comes. The search for its next time would go through thousands of years instead.
fn happens(cron: &Cron) -> bool {
    let days = std::iter::successors(Some(jiff::civil::date(2024, 1, 1)), |day| {
        day.tomorrow().ok()
    });
    let is_its = |day: jiff::civil::Date| {
        let (year, month) = (i32::from(day.year()), u32::from(day.month().unsigned_abs()));
        let weekday = Weekday::from_days_from_sunday(
            day.weekday().to_sunday_zero_offset().unsigned_abs().into(),
        );
        let number = u32::from(day.day().unsigned_abs());
        cron.pattern.month_match(month).unwrap_or(false)
            && cron
                .pattern
                .day_match(year, month, number, weekday)
                .unwrap_or(false)
    };
    days.take(CYCLE).any(is_its)
}

/// The time zone of an IANA name. The names and rules are those that were built in.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    let advice = "write an IANA name such as Europe/Berlin or UTC";
    // Not every name of the database is a place; `Local` would be the coordinator's.
    TimeZone::get(name).map_err(|_| format!("'{name}' is not a known time zone; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn calendar(line: &str, name: &str) -> Calendar {
        Calendar::read(line, zone(name).unwrap()).unwrap()
    }

    fn following(line: &str, name: &str, after: &str, count: usize) -> Vec<String> {
        let calendar = calendar(line, name);
        let first = calendar.next_after(at(after));
        let times = std::iter::successors(first, |time| calendar.next_after(*time));
        times.take(count).map(|time| time.to_string()).collect()
    }

    #[test]
    fn lines_have_five_fields() {
        for (line, told) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("0 0 2 * * *", "6 fields"),
            ("61 * * * *", "no cron line"),
            ("0 25 * * *", "no cron line"),
            ("a * * * *", "no cron line"),
            ("*/0 * * * *", "no cron line"),
            ("0 0 30 2 *", "never"),
            ("* * 31 2,4,6,9,11 *", "never"),
            ("@reboot", "not known"),
            ("@every 5m", "not known"),
        ] {
            let error = Calendar::read(line, TimeZone::UTC).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
        for line in [
            "30 2 * * *",
            "*/15 * * * MON-FRI",
            "0 0 29 2 *",
            "@daily",
            "0 0 1,15 JAN,jul *",
            "0 3 L * *",
        ] {
            Calendar::read(line, TimeZone::UTC).unwrap();
        }
        for name in ["Mars/Olympus", "", "Europe", "europe berlin", "CEST5"] {
            assert!(zone(name).is_err(), "{name}");
        }
    }

    #[test]
    fn fields_mean_what_cron_means() {
        for (line, after, expected) in [
            ("30 2 * * *", "2026-06-01T02:30:00Z", "2026-06-02T02:30:00Z"),
            ("0 0 * * 7", "2026-06-01T00:00:00Z", "2026-06-07T00:00:00Z"),
            (
                "0 0 13 * FRI",
                "2026-06-01T00:00:00Z",
                "2026-06-05T00:00:00Z",
            ),
            ("0 0 29 2 *", "2026-06-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 3 L * *", "2026-06-01T00:00:00Z", "2026-06-30T03:00:00Z"),
            ("@weekly", "2026-06-01T00:00:00Z", "2026-06-07T00:00:00Z"),
        ] {
            assert_eq!(following(line, "UTC", after, 1), [expected], "{line}");
        }
        let daily = calendar("30 2 * * *", "UTC");
        assert_eq!(
            daily.last_until(at("2026-06-01T02:30:00Z")),
            Some(at("2026-06-01T02:30:00Z"))
        );
        assert_eq!(
            daily.last_until(at("2026-06-01T02:29:59.9Z")),
            Some(at("2026-05-31T02:30:00Z"))
        );
        assert_eq!(
            daily.next_after(at("2026-06-01T02:29:59.9Z")),
            Some(at("2026-06-01T02:30:00Z"))
        );
    }

    #[test]
    fn a_time_that_is_left_out_is_the_moment_of_the_change() {
        // Berlin goes from 02:00 to 03:00 on 2026-03-29, at 01:00 UTC; New York on 2026-03-08, at 07:00 UTC.
        for (zone, before, expected) in [
            (
                "Europe/Berlin",
                "2026-03-28T12:00:00Z",
                ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
            ),
            (
                "America/New_York",
                "2026-03-07T12:00:00Z",
                ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"],
            ),
        ] {
            assert_eq!(following("30 2 * * *", zone, before, 2), expected);
            let calendar = calendar("30 2 * * *", zone);
            let noon = calendar.last_until(
                at(expected[0])
                    .checked_add(jiff::SignedDuration::from_hours(5))
                    .unwrap(),
            );
            assert_eq!(noon, Some(at(expected[0])), "also looking back");
        }
        let hourly = following("0 * * * *", "Europe/Berlin", "2026-03-28T23:30:00Z", 3);
        assert_eq!(
            hourly,
            [
                "2026-03-29T00:00:00Z",
                "2026-03-29T01:00:00Z",
                "2026-03-29T02:00:00Z"
            ]
        );
    }

    #[test]
    fn a_time_that_is_repeated_happens_once() {
        // Berlin goes from 03:00 to 02:00 on 2026-10-25, at 01:00 UTC; New York on 2026-11-01, at 06:00 UTC.
        for (line, zone, before, expected) in [
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-10-24T12:00:00Z",
                ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
            ),
            (
                "30 1 * * *",
                "America/New_York",
                "2026-10-31T12:00:00Z",
                ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"],
            ),
        ] {
            assert_eq!(following(line, zone, before, 2), expected);
            let second = at(expected[0])
                .checked_add(jiff::SignedDuration::from_mins(90))
                .unwrap();
            assert_eq!(
                calendar(line, zone).last_until(second),
                Some(at(expected[0])),
                "also looking back"
            );
        }
        let hourly = following("0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", 3);
        assert_eq!(
            hourly,
            [
                "2026-10-25T00:00:00Z",
                "2026-10-25T01:00:00Z",
                "2026-10-25T02:00:00Z"
            ]
        );
    }

    proptest! {
        /// Looking back finds what looking forward finds, through all changes of the clock.
        #[test]
        fn both_directions_agree(
            seconds in 1_735_689_600i64..1_830_297_600,
            line in prop::sample::select(vec![
                "30 2 * * *", "0 3 * * *", "*/20 * * * *", "15 1,2,3 * * *", "0 2 * * SUN", "30 0 1 * *", "7 * * * *",
                "*/30 2 * * *", "0 0 * * *",
            ]),
            name in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "UTC", "Australia/Lord_Howe"]),
        ) {
            let calendar = calendar(line, name);
            let moment = Timestamp::from_second(seconds).unwrap();
            let next = calendar.next_after(moment).unwrap();
            prop_assert!(next > moment);
            prop_assert_eq!(calendar.last_until(next), Some(next));
            let last = calendar.last_until(moment).unwrap();
            prop_assert!(last <= moment);
            prop_assert_eq!(calendar.next_after(last).unwrap(), next, "nothing lies between {} and {}", last, moment);
        }
    }
}
