//! What an API server lets a restore say, and change.

use crate::kube::api::{
    ExistingClaim, NewClaim, Restore, RestoreSource, RestoreSpec, RestoreTarget, SourceClaim,
};
use kube::core::cel::{validate_cel, validate_cel_update};
use std::collections::BTreeMap;

fn into_new() -> RestoreSpec {
    RestoreSpec {
        source: RestoreSource {
            claim: Some(SourceClaim {
                name: "orders".to_owned(),
                ..SourceClaim::default()
            }),
            ..RestoreSource::default()
        },
        target: RestoreTarget {
            new_claim: Some(NewClaim {
                name: "orders-2".to_owned(),
                ..NewClaim::default()
            }),
            existing_claim: None,
        },
        ..RestoreSpec::default()
    }
}

fn in_place() -> RestoreSpec {
    RestoreSpec {
        target: RestoreTarget {
            new_claim: None,
            existing_claim: Some(ExistingClaim {
                name: "orders".to_owned(),
            }),
        },
        ..into_new()
    }
}

#[test]
fn rules_of_restores_hold() {
    type Change = fn(&mut RestoreSpec);
    let cases: [(&str, Change, bool, bool); 12] = [
        ("as it is", |_| {}, true, true),
        (
            "two sources",
            |spec| spec.source.volume = Some("x".to_owned()),
            false,
            false,
        ),
        ("no source", |spec| spec.source.claim = None, false, false),
        (
            "a snapshot and a time",
            |spec| {
                spec.source.claim = None;
                spec.source.snapshot = Some("abcd".to_owned());
                let now = jiff::Timestamp::UNIX_EPOCH;
                spec.source.as_of = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
            },
            false,
            false,
        ),
        (
            "no target",
            |spec| spec.target = RestoreTarget::default(),
            false,
            false,
        ),
        (
            "extras are deleted",
            |spec| spec.delete_extras = true,
            false,
            true,
        ),
        ("scaled down", |spec| spec.scale_down = true, false, true),
        (
            "no safety snapshot",
            |spec| spec.safety_snapshot = Some(false),
            false,
            true,
        ),
        (
            "rolled back while pods run",
            |spec| spec.rollback = true,
            false,
            false,
        ),
        (
            "rolled back",
            |spec| {
                spec.rollback = true;
                spec.scale_down = true;
            },
            false,
            true,
        ),
        (
            "rolled back without a snapshot",
            |spec| {
                spec.rollback = true;
                spec.scale_down = true;
                spec.safety_snapshot = Some(false);
            },
            false,
            false,
        ),
        (
            "mapped classes",
            |spec| {
                let mapping = [("a".to_owned(), "b".to_owned())];
                spec.storage_class_mapping = BTreeMap::from(mapping);
            },
            true,
            false,
        ),
    ];
    for (name, change, new, existing) in cases {
        for (mut spec, is_right) in [(into_new(), new), (in_place(), existing)] {
            change(&mut spec);
            let found = validate_cel(&Restore::new("x", spec.clone()));
            assert_eq!(found.is_ok(), is_right, "{name}: {found:?} {spec:?}");
        }
    }
}

#[test]
fn a_restore_is_cancelled_but_never_changed() {
    type Change = fn(&mut RestoreSpec);
    let cases: [(Change, bool); 7] = [
        (|spec| spec.cancel = true, true),
        (|spec| spec.path = Some("etc".to_owned()), false),
        (|spec| spec.special = true, false),
        (
            |spec| {
                spec.target.existing_claim = Some(ExistingClaim {
                    name: "y".to_owned(),
                })
            },
            false,
        ),
        (|spec| spec.source.snapshot = Some("abcd".to_owned()), false),
        (|spec| spec.safety_snapshot = Some(true), false),
        (|spec| spec.verify = true, false),
    ];
    for (change, is_right) in cases {
        let before = Restore::new("x", in_place());
        let mut after = before.clone();
        change(&mut after.spec);
        let found = validate_cel_update(&after, &before);
        assert_eq!(found.is_ok(), is_right, "{found:?} {after:?}");
    }
    let mut cancelled = in_place();
    cancelled.cancel = true;
    let (before, after) = (Restore::new("x", cancelled), Restore::new("x", in_place()));
    assert!(validate_cel_update(&after, &before).is_err());
}
