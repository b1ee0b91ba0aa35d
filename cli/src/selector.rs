//! How a snapshot is named on the command line: parsed here, resolved against a list of snapshots.
//!
//! `ID-PREFIX`, `latest`, `VOLUME@latest`, `VOLUME@TIME`; a path follows the first `:/`.

use crate::failure::{Failure, Outcome};
use chrono::{DateTime, NaiveDate, NaiveTime, Timelike};
use holdfast_format::id::{IdPrefix, SnapshotId};
use holdfast_format::path::RelPath;
use holdfast_format::volume::VolumeName;
use holdfast_proto::v1;

/// A parsed name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The only snapshot whose id starts so.
    Id(IdPrefix),
    /// The newest one, where there is one volume.
    Latest,
    /// The newest one of a volume.
    LatestOf(VolumeName),
    /// The newest one of a volume at or before a time, in nanoseconds since the epoch.
    At(VolumeName, i64),
}

/// A parsed name with a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Which snapshot.
    pub snapshot: Selector,
    /// Which path in it; the root where none was typed.
    pub path: RelPath,
}

impl Selection {
    /// Parses `SNAPSHOT[:/PATH]`.
    pub fn parse(text: &str) -> Outcome<Self> {
        let (snapshot, path) = match text.find(":/") {
            Some(cut) => (&text[..cut], text[cut + 2..].trim_end_matches('/')),
            None => (text, ""),
        };
        let path = RelPath::new(path).map_err(|e| Failure::usage(format!("{text}: {e}")))?;
        Ok(Self {
            snapshot: Selector::parse(snapshot)?,
            path,
        })
    }
}

impl Selector {
    /// Parses a snapshot's name without a path.
    pub fn parse(text: &str) -> Outcome<Self> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Some((volume, time)) = text.split_once('@') {
            let volume: VolumeName = volume.parse().map_err(|e| Failure::usage(format!("{e}")))?;
            if time == "latest" {
                return Ok(Self::LatestOf(volume));
            }
            if time.starts_with("latest:") {
                return Err(Failure::usage(format!(
                    "{text:?}: a path follows `:/`, as in {volume}@latest:/etc"
                )));
            }
            return Ok(Self::At(volume, parse_time(time)?));
        }
        text.parse().map(Self::Id).map_err(|_| {
            let meant = match text.parse::<VolumeName>() {
                Ok(volume) => format!(" (did you mean {volume}@latest?)"),
                Err(_) => String::new(),
            };
            Failure::usage(format!(
                "{text:?} names no snapshot{meant}: use the first 4 or more digits of an id, `latest`, VOLUME@latest or VOLUME@TIME"
            ))
        })
    }

    /// The one snapshot that is meant.
    pub fn resolve<'a>(&self, all: &'a [v1::SnapshotInfo]) -> Outcome<&'a v1::SnapshotInfo> {
        let newest = |volume: &str, at: i64| {
            all.iter()
                .filter(|s| name_of(s) == volume && s.received_ns <= at)
                .max_by_key(|s| (s.received_ns, s.sequence))
        };
        match self {
            Self::Id(prefix) => {
                let mut found = all.iter().filter(|s| id_of(s).is_some_and(|id| prefix.matches(&id)));
                match (found.next(), found.count()) {
                    (Some(one), 0) => Ok(one),
                    (None, _) => Err(Failure::failed("no snapshot has an id that starts so; see `holdfast snapshots`")),
                    (Some(_), more) => {
                        Err(Failure::usage(format!("{} snapshots have ids that start so: type more digits", more + 1)))
                    }
                }
            }
            Self::Latest => {
                let mut volumes: Vec<&str> = all.iter().map(name_of).collect();
                volumes.sort_unstable();
                volumes.dedup();
                match volumes[..] {
                    [] => Err(Failure::failed("there is no snapshot yet")),
                    [one] => newest(one, i64::MAX).ok_or_else(|| Failure::failed("there is no snapshot yet")),
                    _ => Err(Failure::usage(format!(
                        "there are several volumes; name one: {}",
                        volumes.iter().map(|v| format!("{v}@latest")).collect::<Vec<_>>().join(", ")
                    ))),
                }
            }
            Self::LatestOf(volume) => newest(volume.as_str(), i64::MAX)
                .ok_or_else(|| Failure::failed(format!("volume {volume} has no snapshot; see `holdfast volumes`"))),
            Self::At(volume, at) => newest(volume.as_str(), *at).ok_or_else(|| {
                Failure::failed(format!("volume {volume} has no snapshot at or before that time; see `holdfast snapshots`"))
            }),
        }
    }
}

/// A name for a volume that can be selected by it later: `latest` means something else, and a name with
/// empty or relative parts looks like another one.
pub fn new_volume(text: &str) -> Outcome<VolumeName> {
    if !text.is_ascii() {
        return Err(Failure::usage(format!(
            "volume name {text:?}: only letters, digits and -_./ of ASCII"
        )));
    }
    let name: VolumeName = text.parse().map_err(|e| Failure::usage(format!("{e}")))?;
    if text == "latest" || text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Failure::usage(format!(
            "{text:?} cannot be a volume's name"
        )));
    }
    Ok(name)
}

fn name_of(snapshot: &v1::SnapshotInfo) -> &str {
    snapshot.facts.as_ref().map_or("", |f| f.name.as_str())
}

/// The id of a listed snapshot.
pub fn id_of(snapshot: &v1::SnapshotInfo) -> Option<SnapshotId> {
    SnapshotId::try_from(&snapshot.id[..]).ok()
}

/// RFC 3339, or a date, UTC, in nanoseconds since the epoch. A date means its last nanosecond, and a time
/// without a fraction its second's, so that a time as `snapshots` prints it selects that snapshot.
fn parse_time(text: &str) -> Outcome<i64> {
    let wrong = || {
        Failure::usage(format!(
            "{text:?} is no time: use RFC 3339 (2026-11-21T10:00:00Z) or a date (2026-11-21), UTC"
        ))
    };
    let time = match text.parse::<NaiveDate>() {
        Ok(date) => date
            .and_time(NaiveTime::from_hms_nano_opt(23, 59, 59, 999_999_999).ok_or_else(wrong)?)
            .and_utc(),
        Err(_) => DateTime::parse_from_rfc3339(text)
            .map_err(|_| wrong())?
            .to_utc(),
    };
    let rest = if text.contains('.') || time.nanosecond() > 0 {
        0
    } else {
        999_999_999
    };
    let ns = time.timestamp_nanos_opt().ok_or_else(wrong)?;
    Ok(ns.saturating_add(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(first: u8, volume: &str, at: i64) -> v1::SnapshotInfo {
        v1::SnapshotInfo {
            id: vec![first; 32].into(),
            facts: Some(v1::VolumeFacts {
                name: volume.into(),
                ..Default::default()
            }),
            received_ns: at,
            ..Default::default()
        }
    }

    #[test]
    fn a_path_follows_the_first_colon_slash() {
        let s = Selection::parse("web@2026-11-21T10:00:00Z:/etc/a:/b").unwrap();
        assert_eq!(s.path.as_bytes(), b"etc/a:/b");
        assert!(matches!(
            s.snapshot,
            Selector::At(_, 1_795_255_200_999_999_999)
        ));
        assert!(Selection::parse("latest:/").unwrap().path.is_root());
        assert!(Selection::parse("latest:/a/../b").is_err());
    }

    #[test]
    fn names_that_mean_something_else_are_refused() {
        for name in ["web", "ns/pvc", "a.b"] {
            assert_eq!(new_volume(name).unwrap().as_str(), name);
        }
        for name in ["latest", "a/../b", "a//b", "a/", "a/.", "\u{fc}n"] {
            assert!(new_volume(name).is_err(), "{name}");
        }
    }

    #[test]
    fn newest_at_or_before() {
        let all = [
            snapshot(0xa1, "web", 10),
            snapshot(0xa2, "web", 20),
            snapshot(0xb1, "db", 15),
        ];
        let pick = |text: &str| {
            Selection::parse(text).and_then(|s| s.snapshot.resolve(&all).map(|s| s.id[0]))
        };
        assert_eq!(pick("web@latest").unwrap(), 0xa2);
        assert_eq!(pick("a1a1").unwrap(), 0xa1);
        let several = pick("latest").unwrap_err();
        assert!(
            several.message.contains("db@latest, web@latest"),
            "{}",
            several.message
        );
        assert_eq!(pick("web@1970-01-01").unwrap(), 0xa2);
        assert!(pick("web@1969-01-01").is_err());
        assert_eq!(pick("web@1970-01-01T00:00:00Z").unwrap(), 0xa2);
        assert_eq!(pick("web@1970-01-01T00:00:00.000000015Z").unwrap(), 0xa1);
        let hint = pick("nope:/etc").unwrap_err().message;
        assert!(hint.contains("did you mean nope@latest?"), "{hint}");
        let hint = pick("web@latest:etc").unwrap_err().message;
        assert!(hint.contains("a path follows `:/`"), "{hint}");
        assert!(pick("gone@latest").is_err());
    }
}
