//! The definitions are those that are checked in, and an API server takes them.

mod restores;

use super::*;
use crate::kube::api::{
    BackupPolicySpec, ClusterBackupPolicySpec, ExposureSpec, LabelSelector, Operator, PolicySpec,
    Requirement, ScheduleSpec, WindowSpec,
};
use serde_json::json;
use std::path::PathBuf;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/chart/crds")
        .join(format!("{name}.yaml"))
}

/// With `HOLDFAST_WRITE_CRDS=1` the files are written instead.
#[test]
fn definitions_are_those_checked_in() {
    for crd in crds() {
        let path = golden(crd.metadata.name.as_deref().unwrap());
        let text = document(&crd);
        if std::env::var_os("HOLDFAST_WRITE_CRDS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stored == text,
            "{} differs; write it with HOLDFAST_WRITE_CRDS=1",
            path.display()
        );
    }
    assert_eq!(crds_yaml(), crds_yaml());
    assert_eq!(crds_yaml().matches("---\n").count(), crds().len());
}

fn schemas() -> Vec<(String, Value)> {
    let schema = |crd: CustomResourceDefinition| {
        let name = crd.metadata.name.clone().unwrap();
        let value = serde_json::to_value(crd).unwrap();
        (
            name,
            value["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone(),
        )
    };
    crds().into_iter().map(schema).collect()
}

/// Calls with every schema below one, and its path.
fn visit(path: &str, schema: &Value, see: &mut dyn FnMut(&str, &Value)) {
    see(path, schema);
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            visit(&format!("{path}.{name}"), property, see);
        }
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            visit(&format!("{path}{suffix}"), &schema[key], see);
        }
    }
}

/// What an API server asks of a structural schema, and what we ask of ours.
#[test]
fn schemas_are_structural_and_described() {
    for (name, schema) in schemas() {
        visit(&name, &schema, &mut |path, schema| {
            let object = schema.as_object().unwrap();
            assert!(object["type"].is_string(), "{path} has one type");
            for key in [
                "anyOf",
                "oneOf",
                "allOf",
                "not",
                "$ref",
                "definitions",
                "nullable",
                "x-kubernetes-preserve-unknown-fields",
            ] {
                assert!(!object.contains_key(key), "{path} has {key}");
            }
            assert_ne!(
                object.get("additionalProperties"),
                Some(&Value::Bool(false)),
                "{path}"
            );
            assert_ne!(
                object.get("uniqueItems"),
                Some(&Value::Bool(true)),
                "{path}"
            );
            if object["type"] == "array" {
                assert!(object["items"].is_object(), "{path} says what is in it");
                assert!(object["maxItems"].is_u64(), "{path} is bounded");
            }
            if let Some(format) = object.get("format") {
                assert!(
                    ["int32", "int64", "date-time"].contains(&format.as_str().unwrap()),
                    "{path}: {format}"
                );
            }
            let is_standard = path.ends_with("apiVersion")
                || path.ends_with("kind")
                || path.ends_with("metadata");
            if !is_standard && !path.ends_with("[]") && !path.ends_with("{}") {
                let told = object
                    .get("description")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                assert!(!told.is_empty(), "{path} is not described");
            }
        });
    }
}

/// All texts below `spec` have a longest length, so that no rule costs too much.
#[test]
fn texts_of_specs_are_bounded() {
    for (name, schema) in schemas() {
        visit(&name, &schema["properties"]["spec"], &mut |path, schema| {
            let is_text = schema["type"] == "string"
                && schema["enum"].is_null()
                && schema["format"].is_null();
            // Labels are bounded by their number; their lengths are those of the API.
            if is_text && !path.ends_with("{}") {
                assert!(schema["maxLength"].is_u64(), "{path} has no longest length");
            }
        });
    }
}

fn refused<T: kube::CustomResourceExt + serde::Serialize>(object: &T) -> Vec<String> {
    match kube::core::cel::validate_cel(object) {
        Ok(()) => Vec::new(),
        Err(errors) => vec![format!("{errors:?}")],
    }
}

fn nightly() -> PolicySpec {
    PolicySpec {
        schedule: Some(ScheduleSpec {
            cron: "0 2 * * *".to_owned(),
            time_zone: "UTC".to_owned(),
            jitter: None,
        }),
        ..PolicySpec::default()
    }
}

#[test]
fn rules_of_policies_hold() {
    type Change = fn(&mut PolicySpec);
    let cases: [(&str, Change, bool); 10] = [
        ("nightly", |_| {}, true),
        ("no rhythm", |spec| spec.schedule = None, false),
        (
            "two rhythms",
            |spec| spec.exposure = Some(ExposureSpec::default()),
            false,
        ),
        (
            "starting deadline",
            |spec| spec.starting_deadline = Some("1h".to_owned()),
            true,
        ),
        (
            "starting deadline of a bound",
            |spec| {
                spec.schedule = None;
                spec.exposure = Some(ExposureSpec::default());
                spec.starting_deadline = Some("1h".to_owned());
            },
            false,
        ),
        (
            "window without a start",
            |spec| spec.windows = vec![WindowSpec::default()],
            false,
        ),
        (
            "window with a start",
            |spec| {
                let start = Some("22:00".to_owned());
                spec.windows = vec![WindowSpec {
                    start,
                    ..WindowSpec::default()
                }];
            },
            true,
        ),
        (
            "window with both",
            |spec| {
                let both = Some("22:00".to_owned());
                spec.windows = vec![WindowSpec {
                    start: both.clone(),
                    cron: both,
                    ..WindowSpec::default()
                }];
            },
            false,
        ),
        (
            "In without values",
            |spec| spec.selection.claim_selector = Some(requirement(Operator::In, &[])),
            false,
        ),
        (
            "In with values",
            |spec| spec.selection.claim_selector = Some(requirement(Operator::In, &["a"])),
            true,
        ),
    ];
    for (name, change, is_right) in cases {
        let mut spec = nightly();
        change(&mut spec);
        let found = refused(&BackupPolicy::new("x", BackupPolicySpec(spec)));
        assert_eq!(found.is_empty(), is_right, "{name}: {found:?}");
    }
}

#[test]
fn rules_of_hooks_hold() {
    let (exec, http) = (
        json!({"exec": {"command": ["x"]}}),
        json!({"http": {"port": 80}}),
    );
    let both = json!({"exec": {"command": ["x"]}, "http": {"port": 80}});
    let url = |more: Value| {
        let mut http = json!({"url": "https://hooks.example/x"});
        for (key, value) in more.as_object().unwrap() {
            http[key] = value.clone();
        }
        json!({"name": "x", "post": {"http": http}})
    };
    for (hook, is_right) in [
        (json!({"name": "x", "pre": exec, "post": exec}), true),
        (json!({"name": "x", "pre": http, "post": exec}), true),
        (json!({"name": "x"}), false),
        (json!({"name": "x", "pre": {}}), false),
        (json!({"name": "x", "pre": both}), false),
        (json!({"name": "x", "pre": exec, "post": http}), false),
        (
            json!({"name": "x", "pre": exec, "post": http, "watchdog": "Off"}),
            true,
        ),
        (url(json!({})), true),
        (url(json!({"port": 80})), false),
        (url(json!({"path": "/x"})), false),
    ] {
        let mut spec = nightly();
        spec.hooks = vec![serde_json::from_value(hook.clone()).unwrap()];
        let found = refused(&ClusterBackupPolicy::new(
            "x",
            ClusterBackupPolicySpec(spec),
        ));
        assert_eq!(found.is_empty(), is_right, "{hook}: {found:?}");
    }
    // A policy of a namespace cannot name another address.
    let text = std::fs::read_to_string(golden("backuppolicies.holdfast.dev")).unwrap();
    assert!(!text.contains("https?://") && text.contains("expectedStatus"));
}

fn requirement(operator: Operator, values: &[&str]) -> LabelSelector {
    LabelSelector {
        match_expressions: vec![Requirement {
            key: "app".to_owned(),
            operator,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        }],
        ..LabelSelector::default()
    }
}

#[test]
fn a_backup_is_about_one_thing_and_only_its_cancel_changes() {
    use crate::kube::api::PolicyKind;
    use crate::kube::api::{BackupSpec, DeletionPolicy, FilesSpec, RunPolicy};
    use kube::core::cel::validate_cel_update;
    type Change = fn(&mut BackupSpec);
    let policy = || {
        Some(RunPolicy {
            kind: PolicyKind::BackupPolicy,
            name: "nightly".to_owned(),
        })
    };
    assert!(refused(&Backup::new("x", BackupSpec::default())).is_empty());
    let mut spec = BackupSpec {
        policy: policy(),
        ..BackupSpec::default()
    };
    assert!(refused(&Backup::new("x", spec.clone())).is_empty());
    spec.claim = Some("uploads".to_owned());
    assert!(!refused(&Backup::new("x", spec.clone())).is_empty());
    spec.policy = None;
    let old = Backup::new("x", spec.clone());
    let cases: [(&str, Change, bool); 8] = [
        ("nothing", |_| {}, true),
        ("cancel", |spec| spec.cancel = true, true),
        ("claim", |spec| spec.claim = Some("db".to_owned()), false),
        ("no claim", |spec| spec.claim = None, false),
        (
            "files",
            |spec| spec.files = Some(FilesSpec::default()),
            false,
        ),
        (
            "deletionPolicy",
            |spec| spec.deletion_policy = DeletionPolicy::Delete,
            false,
        ),
        (
            "ttl",
            |spec| spec.ttl_after_finished = Some("1h".to_owned()),
            false,
        ),
        (
            "selector",
            |spec| {
                spec.claim = None;
                spec.claims = Some(requirement(Operator::Exists, &[]));
            },
            false,
        ),
    ];
    for (name, change, is_right) in cases {
        let mut changed = spec.clone();
        change(&mut changed);
        let found = validate_cel_update(&Backup::new("x", changed), &old);
        assert_eq!(found.is_ok(), is_right, "{name}: {found:?}");
    }
    // A run that is stopped stays stopped.
    let mut stopped = spec.clone();
    stopped.cancel = true;
    let stopped = Backup::new("x", stopped);
    assert!(validate_cel_update(&old, &stopped).is_err());
}
