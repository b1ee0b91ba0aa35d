//! What is seen at a glance, as tables.

use super::*;
use serde_json::json;

const NOW: &str = "2026-11-21T12:00:00Z";

fn facts() -> Facts {
    Facts {
        told: Ok(Told::default()),
        protections: Ok(Vec::new()),
        policies: Ok(Vec::new()),
        nodes: Ok(Vec::new()),
        agents: None,
        now: NOW.parse().unwrap(),
    }
}

fn protection(name: &str, status: Value) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"volume": format!("shop/{name}")},
        "status": status,
    })
}

fn info(name: &str, seconds: u64) -> v1::VolumeInfo {
    v1::VolumeInfo {
        facts: Some(v1::VolumeFacts {
            name: name.to_owned(),
            ..Default::default()
        }),
        exposed_ns: seconds * 1_000_000_000,
        ..Default::default()
    }
}

#[test]
fn every_volume_is_in_one_group_and_the_worst_are_first() {
    let bounded = json!({"phase": "Protected", "policy": {"namespace": "shop", "name": "often"}});
    let cases = [
        (
            protection("ok", json!({"phase": "Protected"})),
            Group::Protected,
        ),
        (
            protection("failing", json!({"phase": "Failing", "reason": "NodeGone"})),
            Group::Failing,
        ),
        (
            protection(
                "bare",
                json!({"phase": "Unprotected", "reason": "NoPolicyMatches"}),
            ),
            Group::Unprotected,
        ),
        (
            protection(
                "chosen",
                json!({"phase": "Unprotected", "reason": "ExcludedByAnnotation"}),
            ),
            Group::LeftOut,
        ),
        (
            protection(
                "block",
                json!({"phase": "Unsupported", "reason": "RawBlock"}),
            ),
            Group::Unsupported,
        ),
        (
            protection("new", json!({"phase": "Pending"})),
            Group::Pending,
        ),
        (protection("unseen", json!({})), Group::Pending),
        (protection("ahead", bounded.clone()), Group::Exposed),
        (protection("just-ahead", bounded), Group::Protected),
        (
            protection(
                "late",
                json!({"phase": "Protected", "nextRunTime": "2026-11-21T11:00:00Z"}),
            ),
            Group::Exposed,
        ),
        (
            protection(
                "due",
                json!({"phase": "Protected", "nextRunTime": "2026-11-21T11:59:00Z"}),
            ),
            Group::Protected,
        ),
    ];
    let mut facts = facts();
    facts.policies = Ok(vec![json!({
        "metadata": {"namespace": "shop", "name": "often"},
        "spec": {"exposure": {"maxAge": "1h"}}, "status": {"phase": "Active"},
    })]);
    facts.told = Ok(Told {
        volumes: vec![info("shop/ahead", 3 * 3600), info("shop/just-ahead", 3700)],
        ..Told::default()
    });
    facts.protections = Ok(cases.iter().map(|(object, _)| object.clone()).collect());
    let view = view(&facts);
    for (object, group) in &cases {
        let name = text(&object["spec"]["volume"]);
        let found = view.volumes.iter().find(|one| one.name == name).unwrap();
        assert_eq!(found.group, *group, "{found:?}");
    }
    assert!(view.volumes.is_sorted_by_key(|one| one.group));
    // Of two that are exposed, the one that is so for longer.
    assert_eq!(view.volumes[1].name, "shop/ahead");
    assert_eq!(view.counts[&Group::Exposed], 2);
    assert_eq!(
        view.attention,
        [
            "1 volume is failing",
            "2 volumes are exposed",
            "1 volume is unprotected"
        ]
    );
}

#[test]
fn what_needs_nobody_is_quiet_and_what_is_not_known_is_said() {
    let mut facts = facts();
    facts.protections = Ok(vec![
        protection("ok", json!({"phase": "Protected"})),
        protection(
            "chosen",
            json!({"phase": "Unprotected", "reason": "PolicySuspended"}),
        ),
    ]);
    assert!(view(&facts).attention.is_empty());
    facts.told = Err("no way".into());
    facts.policies = Err("you may not".into());
    let said = view(&facts).attention;
    assert_eq!(
        said,
        [
            "the coordinator cannot be asked: no way",
            "policies cannot be listed: you may not"
        ]
    );
}

#[test]
fn nodes_without_an_agent_are_named() {
    let node = |name: &str, os: &str| json!({"metadata": {"name": name, "labels": {"kubernetes.io/os": os}}});
    let mut facts = facts();
    facts.nodes = Ok(vec![
        node("a", "linux"),
        node("b", "linux"),
        node("w", "windows"),
    ]);
    facts.agents = Some(json!({"spec": {"template": {"spec": {
        "nodeSelector": {"kubernetes.io/os": "linux"},
    }}}}));
    facts.told = Ok(Told {
        status: v1::StatusReply {
            agents: vec!["a".into(), "restore-1".into()],
            ..Default::default()
        },
        ..Told::default()
    });
    let view = view(&facts);
    assert_eq!(
        (view.nodes, &view.without_agent),
        (Some(2), &vec!["b".to_owned()])
    );
    assert_eq!(view.attention, ["1 node has no agent"]);
}
