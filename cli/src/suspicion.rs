//! What is unusual about a snapshot: told wherever it is listed or restored, so that nobody takes an emptied
//! or encrypted volume for a good one unawares.

use crate::output::time;
use holdfast_format::id::hex;
use holdfast_proto::v1;

/// For people; `None` where it is not suspicious, or somebody has acknowledged it.
pub fn note(info: &v1::SnapshotInfo) -> Option<String> {
    if !info.suspicious || info.acknowledged.is_some() {
        return None;
    }
    let id = short(info);
    let name = info.facts.as_ref().map_or("", |facts| &facts.name);
    let before = match info.parent.is_empty() {
        true => String::new(),
        false => {
            let parent = hex(&info.parent);
            format!(
                " (`holdfast diff {} {id}`)",
                &parent[..12.min(parent.len())]
            )
        }
    };
    Some(format!(
        "snapshot {id} of {name}, {}, is suspicious: {}; earlier snapshots are kept until somebody has looked \
         at it{before} and said `holdfast acknowledge {id}`",
        time(info.received_ns),
        what(info)
    ))
}

/// Prints the note, on standard error.
pub fn tell(info: &v1::SnapshotInfo) {
    if let Some(note) = note(info) {
        eprintln!("warning: {note}");
    }
}

/// What made it suspicious, in words.
pub fn what(info: &v1::SnapshotInfo) -> String {
    let counts = info.signals.clone().unwrap_or_default();
    let words = info.reasons.iter().map(|reason| match reason.as_str() {
        "MassDeletion" => {
            let files = counts.removed_files.max(counts.removed_entries);
            let before = counts.parent_files.max(counts.parent_entries);
            match files {
                0 => "most of what was there is gone (MassDeletion)".to_owned(),
                // Few large files, or the last of several steps.
                _ if files <= before / 2 => format!(
                    "{files} of {before} are gone; by size, or with what went in the days before, that is most \
                     of what was there (MassDeletion)"
                ),
                _ => format!("{files} of {before} are gone (MassDeletion)"),
            }
        }
        "MassRewrite" if counts.rewritten_files > 0 => format!(
            "{} of {} files have another content (MassRewrite)",
            counts.rewritten_files, counts.parent_files
        ),
        "MassRename" => format!(
            "{} files have another name (MassRename)",
            counts.renamed_files
        ),
        "Incompressible" => {
            "new data does not compress, as if encrypted (Incompressible)".to_owned()
        }
        other => other.to_owned(),
    });
    format!(
        "{}, score {}",
        words.collect::<Vec<_>>().join(", "),
        info.score
    )
}

/// One word for a column.
pub fn state(info: &v1::SnapshotInfo) -> &'static str {
    match (info.suspicious, &info.acknowledged) {
        (false, _) => "-",
        (true, None) => "suspicious",
        (true, Some(_)) => "acknowledged",
    }
}

/// Who acknowledged it, and when; empty where nobody did.
pub fn by_whom(info: &v1::SnapshotInfo) -> String {
    let Some(known) = &info.acknowledged else {
        return String::new();
    };
    let by = match known.actor.as_str() {
        "" => String::new(),
        actor => format!("by {actor} "),
    };
    format!("{by}at {}", time(known.time_ns))
}

fn short(info: &v1::SnapshotInfo) -> String {
    let id = hex(&info.id);
    id[..12.min(id.len())].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> v1::SnapshotInfo {
        v1::SnapshotInfo {
            id: vec![0xab; 32].into(),
            parent: vec![0xcd; 32].into(),
            facts: Some(v1::VolumeFacts {
                name: "web".into(),
                ..Default::default()
            }),
            signals: Some(v1::Signals {
                removed_files: 9000,
                parent_files: 10_000,
                parent_entries: 9_500,
                ..Default::default()
            }),
            score: 100,
            reasons: vec![
                "MassDeletion".into(),
                "Incompressible".into(),
                "Newer".into(),
            ],
            suspicious: true,
            ..Default::default()
        }
    }

    #[test]
    fn a_suspicious_snapshot_says_why_and_what_to_do() {
        let note = note(&info()).unwrap();
        for part in [
            "snapshot abababababab of web",
            "9000 of 10000 are gone (MassDeletion)",
            "does not compress",
            "Newer, score 100",
            "holdfast diff cdcdcdcdcdcd abababababab",
            "holdfast acknowledge abababababab",
        ] {
            assert!(note.contains(part), "{part} in {note}");
        }
        assert_eq!(state(&info()), "suspicious");
        let mut step = info();
        let counts = step.signals.as_mut().unwrap();
        counts.removed_files = 100;
        let note = super::note(&step).unwrap();
        let told =
            "100 of 10000 are gone; by size, or with what went in the days before, that is most";
        assert!(note.contains(told), "{note}");
    }

    #[test]
    fn an_acknowledged_one_says_who_and_when() {
        let mut info = info();
        info.acknowledged = Some(v1::Acknowledgement {
            time_ns: 0,
            actor: "ann@host".into(),
        });
        assert_eq!(note(&info), None);
        assert_eq!(state(&info), "acknowledged");
        assert_eq!(by_whom(&info), "by ann@host at 1970-01-01T00:00:00Z");
        assert_eq!(state(&v1::SnapshotInfo::default()), "-");
    }
}
