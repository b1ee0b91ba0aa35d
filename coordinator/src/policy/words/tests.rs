//! Every annotation and label, alone and against others.

use super::*;
use crate::kube::api::VolumeKind;
use crate::policy::subject::{Claim, Namespace, State};
use std::sync::Arc;

/// A volume `data` of pods in namespace `shop`. Marks are `object kind key value` such as
/// `claim annotation holdfast.dev/backup true`; `pod2` is a second pod.
fn subject(marks: &[&str]) -> Subject {
    let mut namespace = Namespace {
        name: "shop".to_owned(),
        ..Namespace::default()
    };
    let mut claim = Claim {
        name: "orders".to_owned(),
        ..Claim::default()
    };
    let pod = |name: &str| PodUse {
        name: name.to_owned(),
        volume: "data".to_owned(),
        phase: Some("Running".to_owned()),
        ..PodUse::default()
    };
    let (mut pod1, mut pod2) = (pod("db-0"), pod("db-1"));
    for mark in marks {
        let words: Vec<&str> = mark.splitn(4, ' ').collect();
        let [object, sort, key, value] = words[..] else {
            panic!("{mark}");
        };
        let (annotations, labels) = match object {
            "claim" => (&mut claim.annotations, &mut claim.labels),
            "pod" => (&mut pod1.annotations, &mut pod1.labels),
            "pod2" => (&mut pod2.annotations, &mut pod2.labels),
            "namespace" => (&mut namespace.annotations, &mut namespace.labels),
            _ => panic!("{mark}"),
        };
        let map = if sort == "label" { labels } else { annotations };
        map.insert(key.to_owned(), value.to_owned());
    }
    Subject {
        id: "shop/orders".to_owned(),
        namespace: Arc::new(namespace),
        kind: Some(VolumeKind::PersistentVolumeClaim),
        claim: Some(claim),
        driver: None,
        pods: vec![pod1, pod2],
        state: State::Mounted,
    }
}

#[test]
fn each_word_alone() {
    use Says::{No, Yes};
    for (mark, expected) in [
        ("claim annotation holdfast.dev/backup true", Some(Yes)),
        ("claim annotation holdfast.dev/backup false", Some(No)),
        ("pod annotation holdfast.dev/backup true", Some(Yes)),
        ("pod annotation holdfast.dev/backup false", Some(No)),
        ("namespace annotation holdfast.dev/backup true", Some(Yes)),
        ("namespace annotation holdfast.dev/backup false", Some(No)),
        (
            "claim label holdfast.dev/exclude-from-backup true",
            Some(No),
        ),
        ("claim label holdfast.dev/exclude-from-backup false", None),
        ("pod label holdfast.dev/exclude-from-backup true", Some(No)),
        (
            "namespace label holdfast.dev/exclude-from-backup true",
            Some(No),
        ),
        ("pod annotation holdfast.dev/backup-volumes data", Some(Yes)),
        (
            "pod annotation holdfast.dev/backup-volumes other, data ,x",
            Some(Yes),
        ),
        ("pod annotation holdfast.dev/backup-volumes database", None),
        (
            "pod annotation holdfast.dev/backup-volumes-excludes data",
            Some(No),
        ),
        (
            "pod annotation holdfast.dev/backup-volumes-excludes other",
            None,
        ),
        (
            "pod annotation backup.velero.io/backup-volumes data,scratch",
            Some(Yes),
        ),
        (
            "pod annotation backup.velero.io/backup-volumes-excludes data",
            Some(No),
        ),
        ("claim label velero.io/exclude-from-backup true", Some(No)),
        ("pod label velero.io/exclude-from-backup true", Some(No)),
        (
            "namespace label velero.io/exclude-from-backup true",
            Some(No),
        ),
        ("claim annotation k8up.io/backup true", Some(Yes)),
        ("claim annotation k8up.io/backup false", Some(No)),
        // Not where it is looked for.
        ("claim annotation holdfast.dev/backup-volumes data", None),
        ("claim label holdfast.dev/backup true", None),
        ("pod annotation k8up.io/backup true", None),
    ] {
        let words = hear(&subject(&[mark]));
        assert_eq!(
            words.word.as_ref().map(|word| word.says),
            expected,
            "{mark}"
        );
        assert_eq!(words.problems, [], "{mark}");
        if let Some(word) = words.word {
            let value = mark.splitn(4, ' ').last().unwrap();
            assert!(word.to_string().contains(&format!("\"{value}\"")), "{word}");
        }
    }
    assert_eq!(hear(&subject(&[])), Words::default());
}

#[test]
fn the_nearer_object_and_our_spelling_win() {
    use Says::{No, Yes};
    for (marks, expected, by) in [
        (
            &[
                "claim annotation holdfast.dev/backup true",
                "namespace annotation holdfast.dev/backup false",
            ][..],
            Yes,
            "claim",
        ),
        (
            &[
                "claim annotation holdfast.dev/backup false",
                "pod annotation holdfast.dev/backup-volumes data",
            ],
            No,
            "claim",
        ),
        (
            &[
                "pod annotation holdfast.dev/backup false",
                "namespace annotation holdfast.dev/backup true",
            ],
            No,
            "pod",
        ),
        (
            &[
                "claim annotation holdfast.dev/backup true",
                "claim label velero.io/exclude-from-backup true",
            ],
            Yes,
            "claim",
        ),
        (
            &[
                "claim annotation holdfast.dev/backup false",
                "claim annotation k8up.io/backup true",
            ],
            No,
            "claim",
        ),
        (
            &[
                "claim label velero.io/exclude-from-backup true",
                "claim annotation k8up.io/backup true",
            ],
            No,
            "claim",
        ),
        // A list that names the volume is about it; the rest is about the pod.
        (
            &[
                "pod annotation holdfast.dev/backup false",
                "pod annotation holdfast.dev/backup-volumes data",
            ],
            Yes,
            "pod",
        ),
        (
            &[
                "pod annotation holdfast.dev/backup-volumes-excludes data",
                "pod annotation holdfast.dev/backup true",
            ],
            No,
            "pod",
        ),
        (
            &[
                "pod annotation holdfast.dev/backup-volumes-excludes data",
                "pod annotation backup.velero.io/backup-volumes data",
            ],
            No,
            "pod",
        ),
        (
            &[
                "pod annotation holdfast.dev/backup true",
                "pod annotation backup.velero.io/backup-volumes-excludes data",
            ],
            Yes,
            "pod",
        ),
    ] {
        let words = hear(&subject(marks));
        let word = words.word.unwrap();
        assert_eq!(word.says, expected, "{marks:?}");
        assert!(word.object.starts_with(by), "{marks:?}: {word}");
        assert_eq!(words.problems, [], "{marks:?}");
    }
}

#[test]
fn what_contradicts_itself_is_told_and_the_volume_kept_in() {
    for marks in [
        [
            "pod annotation holdfast.dev/backup true",
            "pod2 annotation holdfast.dev/backup false",
        ],
        [
            "pod annotation holdfast.dev/backup false",
            "pod2 annotation backup.velero.io/backup-volumes data",
        ],
        [
            "pod annotation holdfast.dev/backup-volumes data",
            "pod annotation holdfast.dev/backup-volumes-excludes data",
        ],
        [
            "pod annotation backup.velero.io/backup-volumes data",
            "pod annotation backup.velero.io/backup-volumes-excludes data",
        ],
        [
            "claim annotation holdfast.dev/backup true",
            "claim label holdfast.dev/exclude-from-backup true",
        ],
        [
            "pod annotation holdfast.dev/backup true",
            "pod label holdfast.dev/exclude-from-backup true",
        ],
    ] {
        let words = hear(&subject(&marks));
        assert_eq!(words.word.unwrap().says, Says::Yes, "{marks:?}");
        assert_eq!(words.problems.len(), 1, "{marks:?}");
        assert_eq!(words.problems[0].reason, "ContradictingWords");
    }
}

#[test]
fn wrong_values_say_nothing_and_are_told() {
    for (mark, reason) in [
        (
            "claim annotation holdfast.dev/backup yes",
            "AnnotationNotUnderstood",
        ),
        (
            "pod annotation holdfast.dev/backup True",
            "AnnotationNotUnderstood",
        ),
        (
            "namespace annotation holdfast.dev/backup ",
            "AnnotationNotUnderstood",
        ),
        (
            "claim annotation k8up.io/backup 1",
            "AnnotationNotUnderstood",
        ),
        (
            "claim label holdfast.dev/exclude-from-backup yes",
            "LabelNotUnderstood",
        ),
    ] {
        let words = hear(&subject(&[mark]));
        assert_eq!(words.word, None, "{mark}");
        assert_eq!(words.problems.len(), 1, "{mark}: {:?}", words.problems);
        assert_eq!(words.problems[0].reason, reason);
    }
}

#[test]
fn pods_that_have_ended_say_nothing() {
    let mut subject = subject(&["pod annotation holdfast.dev/backup false"]);
    for phase in ["Succeeded", "Failed"] {
        subject.pods[0].phase = Some(phase.to_owned());
        assert_eq!(hear(&subject).word, None);
    }
}
