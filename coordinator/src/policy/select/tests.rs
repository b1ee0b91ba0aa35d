//! Which policy wins, and what is said of volumes that none protects.

mod cluster;

use super::*;
use crate::kube::api::{
    AccessMode, AnnotationMatch, LabelSelector, Names, PolicySpec, ScheduleSpec, Selection,
    SelectionMode, UnmountedClaims, VolumeKind,
};
use crate::policy::subject::{Claim, PodUse};
use jiff::Timestamp;

pub fn spec() -> PolicySpec {
    PolicySpec {
        schedule: Some(ScheduleSpec {
            cron: "0 2 * * *".to_owned(),
            time_zone: "UTC".to_owned(),
            jitter: None,
        }),
        ..PolicySpec::default()
    }
}

/// A policy `namespace/name`, or of the cluster without a slash.
pub fn policy(name: &str, change: impl FnOnce(&mut PolicySpec)) -> Policy {
    let (kind, namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (PolicyKind::BackupPolicy, Some(namespace.to_owned()), name),
        None => (PolicyKind::ClusterBackupPolicy, None, name),
    };
    let mut spec = spec();
    change(&mut spec);
    let reference = PolicyReference {
        kind,
        namespace,
        name: name.to_owned(),
    };
    Policy {
        generation: None,
        uid: reference.to_string(),
        reference,
        created: Timestamp::from_second(1_700_000_000).unwrap(),
        spec,
        misread: Vec::new(),
    }
}

pub fn namespace(name: &str) -> Arc<Namespace> {
    Arc::new(Namespace {
        name: name.to_owned(),
        labels: [("kubernetes.io/metadata.name".to_owned(), name.to_owned())].into(),
        ..Namespace::default()
    })
}

pub fn subject(namespace: &Arc<Namespace>, claim: &str) -> Subject {
    Subject {
        id: format!("{}/{claim}", namespace.name),
        namespace: Arc::clone(namespace),
        kind: Some(VolumeKind::PersistentVolumeClaim),
        claim: Some(Claim {
            name: claim.to_owned(),
            labels: [("app".to_owned(), "db".to_owned())].into(),
            storage_class: Some("fast-ssd".to_owned()),
            access_modes: vec!["ReadWriteOnce".to_owned()],
            size_bytes: Some(10 << 30),
            ..Claim::default()
        }),
        driver: Some("ebs.csi.aws.com".to_owned()),
        pods: vec![PodUse {
            name: format!("{claim}-0"),
            labels: [("tier".to_owned(), "backend".to_owned())].into(),
            volume: "data".to_owned(),
            phase: Some("Running".to_owned()),
            ..PodUse::default()
        }],
        state: State::Mounted,
    }
}

fn annotate(subject: &mut Subject, key: &str, value: &str) {
    let claim = subject.claim.as_mut().unwrap();
    claim.annotations.insert(key.to_owned(), value.to_owned());
}

/// The name of what protects, or the reason why nothing does.
fn outcome(policies: &Policies, subject: &Subject) -> String {
    let decision = policies.decide(subject);
    let shown = match &decision.outcome {
        Outcome::Protected(policy) => policy.name.clone(),
        Outcome::Unprotected {
            reason, message, ..
        } => {
            assert!(!message.is_empty());
            reason.to_string()
        }
    };
    assert_eq!(policies.decide_all([subject])[0], decision);
    assert_eq!(policies.explain(subject).decision, decision);
    shown
}

fn labels(key: &str, value: &str) -> Option<LabelSelector> {
    Some(LabelSelector {
        match_labels: [(key.to_owned(), value.to_owned())].into(),
        ..LabelSelector::default()
    })
}

fn names(include: &[&str], exclude: &[&str]) -> Option<Names> {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Some(Names {
        include: own(include),
        exclude: own(exclude),
    })
}

#[test]
fn each_condition_selects() {
    type Change = fn(&mut Selection);
    let cases: [(Change, bool, &str); 27] = [
        (|_| {}, true, ""),
        (|s| s.namespaces = names(&["shop"], &[]), true, ""),
        (|s| s.namespaces = names(&["sh*", "x"], &[]), true, ""),
        (
            |s| s.namespaces = names(&["web"], &[]),
            false,
            "namespace 'shop' is not in: web",
        ),
        (
            |s| s.namespaces = names(&[], &["kube-*", "s?op"]),
            false,
            "namespace 'shop' is in: kube-*, s?op",
        ),
        (
            |s| s.namespace_selector = labels("kubernetes.io/metadata.name", "shop"),
            true,
            "",
        ),
        (
            |s| s.namespace_selector = labels("team", "a"),
            false,
            "labels of namespace 'shop': team must be 'a', but there is no such label",
        ),
        (|s| s.pod_selector = labels("tier", "backend"), true, ""),
        (
            |s| s.pod_selector = labels("tier", "web"),
            false,
            "labels of pod 'orders-0': tier must be 'web', but it is 'backend'",
        ),
        (|s| s.claim_selector = labels("app", "db"), true, ""),
        (
            |s| s.claim_selector = labels("app", "web"),
            false,
            "labels of claim 'orders': app must be 'web', but it is 'db'",
        ),
        (
            |s| {
                s.annotations = vec![AnnotationMatch {
                    key: "x/y".to_owned(),
                    value: None,
                }]
            },
            false,
            "there is no annotation x/y",
        ),
        (
            |s| {
                s.annotations = vec![AnnotationMatch {
                    key: "team".to_owned(),
                    value: None,
                }]
            },
            true,
            "",
        ),
        (
            |s| {
                s.annotations = vec![AnnotationMatch {
                    key: "team".to_owned(),
                    value: Some("a".to_owned()),
                }]
            },
            true,
            "",
        ),
        (
            |s| {
                s.annotations = vec![AnnotationMatch {
                    key: "team".to_owned(),
                    value: Some("b".to_owned()),
                }]
            },
            false,
            "annotation team is not 'b'",
        ),
        (|s| s.storage_classes = vec!["fast-*".to_owned()], true, ""),
        (
            |s| s.storage_classes = vec!["slow".to_owned()],
            false,
            "storage class is 'fast-ssd', not: slow",
        ),
        (|s| s.drivers = vec!["*.csi.aws.com".to_owned()], true, ""),
        (
            |s| s.drivers = vec!["nfs".to_owned()],
            false,
            "driver is 'ebs.csi.aws.com', not: nfs",
        ),
        (
            |s| s.access_modes = vec![AccessMode::ReadWriteMany, AccessMode::ReadWriteOnce],
            true,
            "",
        ),
        (
            |s| s.access_modes = vec![AccessMode::ReadWriteMany],
            false,
            "access modes are 'ReadWriteOnce', none of: ReadWriteMany",
        ),
        (|s| s.min_size = Some("10Gi".to_owned()), true, ""),
        (
            |s| s.min_size = Some("11Gi".to_owned()),
            false,
            "its size is 10737418240 bytes, less than 11811160064 bytes",
        ),
        (|s| s.max_size = Some("10Gi".to_owned()), true, ""),
        (
            |s| s.max_size = Some("10G".to_owned()),
            false,
            "its size is 10737418240 bytes, more than 10000000000 bytes",
        ),
        (
            |s| s.kinds = vec![VolumeKind::EmptyDir],
            false,
            "the volume's kind is 'PersistentVolumeClaim', not EmptyDir",
        ),
        (
            |s| s.mode = SelectionMode::Annotated,
            false,
            "mode is Annotated, and neither claim, pod nor namespace has holdfast.dev/backup: \"true\"",
        ),
    ];
    let mut orders = subject(&namespace("shop"), "orders");
    annotate(&mut orders, "team", "a");
    for (change, matches, told) in cases {
        let policies = Policies::new([policy("all", |spec| change(&mut spec.selection))]);
        let explained = policies.explain(&orders);
        assert_eq!(
            explained.decision.policy().is_some(),
            matches,
            "{explained:?}"
        );
        match &explained.trace[0].verdict {
            Verdict::Matches => assert!(matches),
            Verdict::Unmet { field, detail } => {
                assert!(field.starts_with("spec.selection."));
                assert_eq!(detail, told);
            }
            invalid @ Verdict::Invalid(_) => panic!("{invalid}"),
        }
    }
}

#[test]
fn a_volume_without_a_claim_or_pod_fails_what_asks_for_one() {
    let mut scratch = subject(&namespace("shop"), "x");
    (scratch.claim, scratch.kind) = (None, Some(VolumeKind::EmptyDir));
    let kinds = vec![VolumeKind::EmptyDir];
    type Change = fn(&mut Selection);
    let changes: [(Change, bool); 6] = [
        (|_| {}, true),
        (|s| s.claim_selector = Some(LabelSelector::default()), false),
        (|s| s.storage_classes = vec!["*".to_owned()], false),
        (|s| s.min_size = Some("0".to_owned()), false),
        (|s| s.max_size = Some("1Ei".to_owned()), false),
        (|s| s.access_modes = vec![AccessMode::ReadWriteOnce], false),
    ];
    for (change, matches) in changes {
        let policies = Policies::new([policy("all", |spec| {
            spec.selection.kinds.clone_from(&kinds);
            change(&mut spec.selection);
        })]);
        assert_eq!(policies.decide(&scratch).policy().is_some(), matches);
    }
    let mut idle = subject(&namespace("shop"), "idle");
    idle.pods.clear();
    let policies = Policies::new([policy("all", |spec| {
        spec.selection.pod_selector = Some(LabelSelector::default())
    })]);
    assert_eq!(outcome(&policies, &idle), "NoPolicyMatches");
}

/// The table of `policy`.
#[test]
fn precedence() {
    let orders = subject(&namespace("shop"), "orders");
    let at = |policy: Policy, second: i64| Policy {
        created: Timestamp::from_second(second).unwrap(),
        ..policy
    };
    let named = |name: &str, priority: i32| policy(name, |spec| spec.priority = priority);
    for (policies, expected, why) in [
        (
            vec![named("big", 1000), named("shop/small", -1000)],
            "small",
            Why::OfNamespace,
        ),
        (vec![named("a", 1), named("b", 2)], "b", Why::Priority(2, 1)),
        (
            vec![named("shop/a", -2), named("shop/b", -1)],
            "b",
            Why::Priority(-1, -2),
        ),
        (
            vec![at(named("a", 0), 2), at(named("b", 0), 1)],
            "b",
            Why::Older,
        ),
        (vec![named("b", 0), named("a", 0)], "a", Why::Name),
        (
            vec![
                at(named("a", 5), 9),
                at(named("b", 5), 1),
                named("web/x", 9),
            ],
            "b",
            Why::Older,
        ),
    ] {
        for reverse in [false, true] {
            let mut given = policies.clone();
            if reverse {
                given.reverse();
            }
            let read = Policies::new(given);
            assert_eq!(outcome(&read, &orders), expected);
            let overruled = read.decide(&orders).overruled;
            assert_eq!(overruled.len(), 1);
            assert_eq!(overruled[0].why, why);
            assert!(!overruled[0].why.to_string().is_empty());
        }
    }
}

#[test]
fn the_claims_own_word_goes_first() {
    let shop = namespace("shop");
    let policies = Policies::new([
        policy("shop/first", |spec| spec.priority = 10),
        policy("shop/gold", |_| {}),
        policy("gold", |_| {}),
        policy("silver", |spec| {
            spec.selection.storage_classes = vec!["slow".to_owned()]
        }),
        policy("elsewhere", |spec| {
            spec.selection.namespaces = names(&["web"], &[])
        }),
        policy("shop/broken", |spec| spec.schedule = None),
    ]);
    for (asked, expected) in [
        ("gold", "gold"),
        // What it asks for holds, whatever the policy selects within the namespace.
        ("silver", "silver"),
        ("elsewhere", "PolicyNotForNamespace"),
        ("broken", "PolicyInvalid"),
        ("none", "PolicyNotFound"),
        ("", "PolicyNotFound"),
    ] {
        let mut orders = subject(&shop, "orders");
        annotate(&mut orders, "holdfast.dev/policy", asked);
        assert_eq!(outcome(&policies, &orders), expected, "{asked}");
    }
    let mut orders = subject(&shop, "orders");
    annotate(&mut orders, "holdfast.dev/policy", "gold");
    let decision = policies.decide(&orders);
    assert_eq!(
        decision.policy().unwrap().kind,
        PolicyKind::BackupPolicy,
        "its own namespace's"
    );
    assert!(
        decision
            .overruled
            .iter()
            .all(|other| other.why == Why::AskedFor)
    );
    assert_eq!(decision.overruled.len(), 2);
    annotate(&mut orders, "holdfast.dev/backup", "false");
    assert_eq!(outcome(&policies, &orders), "ExcludedByAnnotation");
}

#[test]
fn reasons_why_not() {
    let shop = namespace("shop");
    let all = Policies::new([policy("all", |_| {})]);
    let orders = || subject(&shop, "orders");
    assert_eq!(outcome(&Policies::default(), &orders()), "NoPolicyMatches");
    let mut excluded = orders();
    annotate(&mut excluded, "k8up.io/backup", "false");
    assert_eq!(outcome(&all, &excluded), "ExcludedByAnnotation");
    let told = format!("{:?}", all.decide(&excluded).outcome);
    assert!(
        told.contains("k8up.io/backup") && told.contains("claim shop/orders"),
        "{told}"
    );
    let mut labelled = orders();
    labelled.claim.as_mut().unwrap().labels.insert(
        "velero.io/exclude-from-backup".to_owned(),
        "true".to_owned(),
    );
    assert_eq!(outcome(&all, &labelled), "ExcludedByLabel");
    let mut deleting = orders();
    deleting.namespace = Arc::new(Namespace {
        deleting: true,
        ..(*shop).clone()
    });
    assert_eq!(outcome(&all, &deleting), "NamespaceDeleting");
    let mut block = orders();
    block.state = State::Unsupported {
        reason: "RawBlock".to_owned(),
        detail: "it has no files".to_owned(),
    };
    assert_eq!(outcome(&all, &block), "UnsupportedVolume");
    let mut idle = orders();
    idle.state = State::NotMounted;
    assert_eq!(outcome(&all, &idle), "NotMounted");
    let mounting = Policies::new([policy("all", |spec| {
        spec.unmounted_claims = UnmountedClaims::Mount;
    })]);
    let mut claim = idle.claim.take().unwrap();
    claim.volume_name = Some("pv".to_owned());
    claim.access_modes = vec!["ReadWriteOnce".to_owned()];
    let with = |claim: &Claim| Subject {
        claim: Some(claim.clone()),
        ..idle.clone()
    };
    assert_eq!(outcome(&mounting, &with(&claim)), "all");
    claim.access_modes = vec!["ReadWriteOncePod".to_owned()];
    assert_eq!(outcome(&mounting, &with(&claim)), "ReadWriteOncePod");
    claim.volume_name = None;
    assert_eq!(outcome(&mounting, &with(&claim)), "ClaimNotBound");
    assert_eq!(outcome(&all, &with(&claim)), "NotMounted");
    // A suspended policy keeps its volumes: nobody wants another one to begin meanwhile.
    let suspended = Policies::new([
        policy("shop/own", |spec| spec.suspend = true),
        policy("all", |_| {}),
    ]);
    assert_eq!(outcome(&suspended, &orders()), "PolicySuspended");
    let excluding = Policies::new([policy("all", |spec| {
        spec.selection.namespaces = names(&[], &["shop"])
    })]);
    assert_eq!(outcome(&excluding, &orders()), "ExcludedByPolicy");
    let asking = Policies::new([policy("all", |spec| {
        spec.selection.mode = SelectionMode::Annotated
    })]);
    assert_eq!(outcome(&asking, &orders()), "NotAskedFor");
    let mut asks = orders();
    annotate(&mut asks, "holdfast.dev/backup", "true");
    assert_eq!(outcome(&asking, &asks), "all");
}

#[test]
fn a_policy_that_is_not_understood_protects_nothing_and_hides_nothing() {
    let orders = subject(&namespace("shop"), "orders");
    let broken = |name: &str| {
        policy(name, |spec| {
            spec.schedule.as_mut().unwrap().cron = "daily".to_owned()
        })
    };
    let only = Policies::new([broken("shop/own")]);
    assert_eq!(outcome(&only, &orders), "PolicyInvalid");
    let told = format!("{:?}", only.decide(&orders).outcome);
    assert!(told.contains("spec.schedule.cron"), "{told}");
    let both = Policies::new([broken("shop/own"), policy("all", |_| {})]);
    assert_eq!(outcome(&both, &orders), "all");
    let decision = both.decide(&orders);
    assert_eq!(decision.problems.len(), 1);
    assert_eq!(decision.problems[0].reason, "PolicyInvalid");
    // One that is asked later is nobody's problem here.
    let later = Policies::new([policy("shop/own", |_| {}), broken("all")]);
    assert_eq!(later.decide(&orders).problems, []);
    // What it selects is understood, and is not this volume.
    let other = Policies::new([policy("all", |spec| {
        spec.schedule = None;
        spec.selection.storage_classes = vec!["slow".to_owned()];
    })]);
    assert_eq!(outcome(&other, &orders), "NoPolicyMatches");
    // What it selects is not understood: it may be this volume.
    let unclear = Policies::new([policy("all", |spec| {
        spec.selection.min_size = Some("big".to_owned())
    })]);
    assert_eq!(outcome(&unclear, &orders), "PolicyInvalid");
}
