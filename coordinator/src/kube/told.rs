//! What is told of runs and policies, as events. Pure but for the telling.

use super::events::{self, Events, Reason};
use super::picture::{Picture, Volume};
use crate::Coordinator;
use crate::kube::api::{API_VERSION, PolicyReference};
use crate::policy::error::joined;
use holdfast_proto::v1::{JobInfo, JobState};
use k8s_openapi::api::core::v1::ObjectReference;
use std::collections::HashMap;

/// The object that people look at for a volume: its claim, or the pod that it lives with.
pub fn object_of(volume: &Volume) -> Option<ObjectReference> {
    let subject = &volume.subject;
    let namespace = &subject.namespace.name;
    match (&subject.claim, subject.pods.first()) {
        (Some(claim), _) => Some(events::claim(namespace, &claim.name, &claim.uid)),
        (None, Some(pod)) => {
            let object = events::object("v1", "Pod", Some(namespace), &pod.name, "");
            Some(object)
        }
        (None, None) => None,
    }
}

/// A policy, as events name it.
pub fn policy(reference: &PolicyReference, uid: &str) -> ObjectReference {
    let kind = reference.kind.to_string();
    let namespace = reference.namespace.as_deref();
    events::object(API_VERSION, &kind, namespace, &reference.name, uid)
}

/// How a run ended, as an event tells it.
pub fn end(job: &JobInfo) -> (Reason, String) {
    let report = job.last.clone().unwrap_or_default();
    let stats = report.stats.unwrap_or_default();
    let made = || {
        let snapshot: String = report
            .snapshot
            .iter()
            .take(4)
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        format!(
            "snapshot {snapshot} of {}: {} files, {} bytes, {} bytes added",
            job.volume, stats.files, stats.content_bytes, stats.stored_bytes
        )
    };
    match report.state() {
        JobState::Done if stats.problems == 0 => (Reason::BackupCompleted, made()),
        JobState::Done => {
            let first = report.problems.first();
            let first = first.map_or(String::new(), |problem| {
                let path = String::from_utf8_lossy(&problem.path);
                format!(", the first {path}: {}", problem.detail)
            });
            let note = format!("{}; {} were not read{first}", made(), stats.problems);
            (Reason::BackupPartial, note)
        }
        JobState::Cancelled => {
            let note = format!("the run of {} was stopped", job.volume);
            (Reason::BackupCancelled, note)
        }
        _ => {
            let reason = match report.reason.as_str() {
                "" => "Unknown",
                reason => reason,
            };
            (Reason::BackupFailed, format!("{reason}: {}", report.detail))
        }
    }
}

/// Tells of policies that are wrong, each mistake once.
#[derive(Default)]
pub struct Mistakes(HashMap<PolicyReference, String>);

impl Mistakes {
    /// Tells what is new in a picture.
    pub fn tell(&mut self, events: &Events, picture: &Picture) {
        self.0.retain(|reference, _| {
            let known = picture.policies.get(reference);
            known.is_some_and(|policy| !policy.errors.is_empty())
        });
        for (reference, facts) in &picture.policies {
            if facts.errors.is_empty() {
                continue;
            }
            let said = joined(&facts.errors);
            if self.0.get(reference) != Some(&said) {
                events.tell(
                    &policy(reference, &facts.uid),
                    Reason::PolicyInvalid,
                    said.clone(),
                );
                self.0.insert(reference.clone(), said);
            }
        }
    }
}

impl Coordinator {
    /// Says in the cluster, where there is one, that something happened to an object. Never waits.
    pub(crate) fn tell(&self, about: &ObjectReference, reason: Reason, note: impl Into<String>) {
        if let Some(events) = self.events() {
            events.tell(about, reason, note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::v1::{Problem, Report, Stats};

    fn ended(state: JobState, change: impl FnOnce(&mut Report)) -> (Reason, String) {
        let mut report = Report {
            state: state.into(),
            ..Report::default()
        };
        change(&mut report);
        end(&JobInfo {
            volume: "shop/web".to_owned(),
            last: Some(report),
            ..JobInfo::default()
        })
    }

    #[test]
    fn each_end_has_its_word_and_says_what_is_known() {
        let (reason, note) = ended(JobState::Done, |report| {
            report.snapshot = vec![0xab; 32].into();
            report.stats = Some(Stats {
                files: 3,
                ..Stats::default()
            });
        });
        assert_eq!(reason, Reason::BackupCompleted);
        assert!(
            note.contains("snapshot abababab of shop/web: 3 files"),
            "{note}"
        );
        let (reason, note) = ended(JobState::Done, |report| {
            report.stats = Some(Stats {
                problems: 7,
                ..Stats::default()
            });
            report.problems.push(Problem {
                path: b"a/b".to_vec().into(),
                detail: "permission denied".to_owned(),
                ..Problem::default()
            });
        });
        assert_eq!((reason, reason.kind()), (Reason::BackupPartial, "Warning"));
        assert!(
            note.contains("7 were not read, the first a/b: permission denied"),
            "{note}"
        );
        let (reason, note) = ended(JobState::Failed, |report| {
            report.reason = "VolumeBusy".to_owned();
            report.detail = "another run has it".to_owned();
        });
        assert_eq!(reason, Reason::BackupFailed);
        assert_eq!(note, "VolumeBusy: another run has it");
        assert_eq!(
            ended(JobState::Cancelled, |_| {}).0,
            Reason::BackupCancelled
        );
        assert!(ended(JobState::Failed, |_| {}).1.starts_with("Unknown: "));
    }
}
