//! Decisions about the volumes of a real cluster, and that decisions are total and stable.

use super::{labels, namespace, outcome, policy, subject};
use crate::kube::api::{LabelSelector, SelectionMode, VolumeKind};
use crate::policy::compile::Policy;
use crate::policy::select::{Outcome, Policies, Reason};
use crate::policy::subject::{Claim, PodUse, State, Subject};
use crate::policy::values::bytes;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Value;
use std::sync::Arc;

const CLAIMS: &str = include_str!("../../../../../tests/fixtures/kube/persistentvolumeclaims.json");
const PODS: &str = include_str!("../../../../../tests/fixtures/kube/pods.json");

fn fixture(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn strings(value: &Value) -> crate::policy::labels::Labels {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

/// The volumes of the real cluster: two claims, and an emptyDir on disk and one in memory.
fn real() -> Vec<Subject> {
    let shop = namespace("shop");
    let claims = fixture(CLAIMS);
    let claim = |name: &str| {
        let items = claims["items"].as_array().unwrap();
        let found = items
            .iter()
            .find(|item| item["metadata"]["name"] == name)
            .unwrap();
        let (meta, spec) = (&found["metadata"], &found["spec"]);
        Claim {
            name: name.to_owned(),
            uid: meta["uid"].as_str().unwrap().to_owned(),
            labels: strings(&meta["labels"]),
            annotations: strings(&meta["annotations"]),
            storage_class: spec["storageClassName"].as_str().map(str::to_owned),
            access_modes: serde_json::from_value(spec["accessModes"].clone()).unwrap(),
            size_bytes: bytes(found["status"]["capacity"]["storage"].as_str().unwrap()).ok(),
            volume_name: spec["volumeName"].as_str().map(str::to_owned),
            volume_mode: spec["volumeMode"].as_str().map(str::to_owned),
        }
    };
    let mut subjects = Vec::new();
    for pod in fixture(PODS)["items"].as_array().unwrap() {
        let meta = &pod["metadata"];
        for volume in pod["spec"]["volumes"].as_array().unwrap() {
            let name = volume["name"].as_str().unwrap();
            let claim = volume["persistentVolumeClaim"]["claimName"]
                .as_str()
                .map(claim);
            let kind = match (&claim, volume.get("emptyDir")) {
                (Some(_), _) => VolumeKind::PersistentVolumeClaim,
                (None, Some(_)) => VolumeKind::EmptyDir,
                (None, None) => continue,
            };
            subjects.push(Subject {
                id: format!("shop/{name}"),
                namespace: Arc::clone(&shop),
                kind: Some(kind),
                claim,
                driver: None,
                pods: vec![PodUse {
                    name: meta["name"].as_str().unwrap().to_owned(),
                    labels: strings(&meta["labels"]),
                    annotations: strings(&meta["annotations"]),
                    volume: name.to_owned(),
                    node: pod["spec"]["nodeName"].as_str().map(str::to_owned),
                    phase: pod["status"]["phase"].as_str().map(str::to_owned),
                }],
                state: State::Mounted,
            });
        }
    }
    subjects
}

#[test]
fn a_real_cluster_with_veleros_annotations() {
    let subjects = real();
    let ids: Vec<&str> = subjects.iter().map(|subject| subject.id.as_str()).collect();
    assert_eq!(ids, ["shop/data", "shop/scratch", "shop/mem", "shop/up"]);
    let outcomes = |policies: &Policies| -> Vec<String> {
        subjects
            .iter()
            .map(|subject| outcome(policies, subject))
            .collect()
    };
    // Velero's list names the emptyDir: it is meant, though the policy is about claims.
    let all = Policies::new([policy("all", |_| {})]);
    assert_eq!(outcomes(&all), ["all", "all", "NoPolicyMatches", "all"]);
    let asked = Policies::new([policy("shop/asked", |spec| {
        spec.selection.mode = SelectionMode::Annotated
    })]);
    assert_eq!(
        outcomes(&asked),
        ["asked", "asked", "NoPolicyMatches", "NotAskedFor"]
    );
    let web = Policies::new([policy("all", |spec| {
        spec.selection.pod_selector = labels("app", "web");
        spec.selection.storage_classes = vec!["local".to_owned()];
        spec.selection.max_size = Some("1Gi".to_owned());
    })]);
    assert_eq!(
        outcomes(&web),
        [
            "NoPolicyMatches",
            "NoPolicyMatches",
            "NoPolicyMatches",
            "all"
        ]
    );
    let explained = all.explain(&subjects[1]);
    assert_eq!(
        explained.word.unwrap(),
        "annotation backup.velero.io/backup-volumes: \"data,scratch\" of pod shop/db-0"
    );
}

proptest! {
    /// The order in which policies are given does not matter; what protects matches, and nothing that goes
    /// before it does.
    #[test]
    fn decisions_are_total_and_stable(
        given in prop::collection::vec((0usize..4, -2i32..3, 0i64..3, any::<bool>(), any::<bool>()), 0..12),
        seed in any::<u64>(),
    ) {
        let policies: Vec<Policy> = given.iter().enumerate().map(|(index, (place, priority, age, matches, suspend))| {
            let name = if *place == 0 { format!("p{index}") } else { format!("n{place}/p{index}") };
            let mut made = policy(&name, |spec| {
                spec.priority = *priority;
                spec.suspend = *suspend;
                if !matches {
                    spec.selection.storage_classes = vec!["other".to_owned()];
                }
            });
            made.created = Timestamp::from_second(*age).unwrap();
            made
        }).collect();
        let mut shuffled = policies.clone();
        shuffled.sort_by_key(|policy| seed.wrapping_mul(policy.uid.len() as u64 + policy.uid.bytes().map(u64::from).sum::<u64>()) >> 7);
        let orders = subject(&namespace("n1"), "orders");
        let decision = Policies::new(policies.clone()).decide(&orders);
        prop_assert_eq!(&decision, &Policies::new(shuffled).decide(&orders));
        let rank = |policy: &&Policy| (policy.reference.kind, -policy.spec.priority, policy.created, policy.reference.clone());
        let best = policies.iter()
            .filter(|policy| policy.spec.selection.storage_classes.is_empty())
            .filter(|policy| policy.reference.namespace.as_deref().is_none_or(|name| name == "n1"))
            .min_by_key(rank);
        match (best, &decision.outcome) {
            (None, Outcome::Unprotected { reason, .. }) => prop_assert_eq!(*reason, Reason::NoPolicyMatches),
            (Some(best), Outcome::Protected(policy)) => prop_assert_eq!(&best.reference, &**policy),
            (Some(best), Outcome::Unprotected { reason, policy, .. }) => {
                prop_assert_eq!(*reason, Reason::PolicySuspended);
                prop_assert_eq!(&best.reference, &**policy.as_ref().unwrap());
                prop_assert!(best.spec.suspend);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    /// Policies that are not asked because of a label are those that do not match.
    #[test]
    fn the_index_of_labels_changes_nothing(
        wanted in prop::collection::vec(prop::option::of((0u8..3, 0u8..3)), 0..12),
        labels in prop::collection::btree_map("[a-c]", "[x-z]", 0..3),
    ) {
        let text = |from: char, step: u8| char::from(from as u8 + step).to_string();
        let policies = wanted.iter().enumerate().map(|(index, wanted)| policy(&format!("p{index:02}"), |spec| {
            spec.selection.claim_selector = wanted.map(|(key, value)| LabelSelector {
                match_labels: [(text('a', key), text('x', value))].into(),
                ..LabelSelector::default()
            });
        }));
        let mut orders = subject(&namespace("shop"), "orders");
        orders.claim.as_mut().unwrap().labels = labels.clone();
        let decision = Policies::new(policies).decide(&orders);
        let matches = |wanted: &Option<(u8, u8)>| {
            wanted.is_none_or(|(key, value)| labels.get(&text('a', key)) == Some(&text('x', value)))
        };
        let expected: Vec<String> = wanted.iter().enumerate()
            .filter(|(_, wanted)| matches(wanted))
            .map(|(index, _)| format!("p{index:02}"))
            .collect();
        let overruled = decision.overruled.iter().map(|other| other.policy.name.clone());
        let found: Vec<String> = decision.policy().map(|policy| policy.name.clone()).into_iter().chain(overruled).collect();
        prop_assert_eq!(found, expected);
    }
}
