//! Rights that are missing matter where what they are for is in use, and are those of the chart.

use super::*;
use serde_json::json;
use std::collections::BTreeSet;

/// Everything is allowed but what begins so.
fn but(refused: &[(Feature, &str, &str)]) -> Vec<Allowed> {
    let is_refused = |(feature, right): (Feature, Right)| {
        refused
            .iter()
            .any(|(of, verb, plural)| (*of, *verb, *plural) == (feature, right.verb, right.plural))
    };
    rights()
        .into_iter()
        .map(|one| Ok(!is_refused(one)))
        .collect()
}

fn on() -> Uses {
    Uses {
        api: true,
        restores: Use::On,
        mount_pods: Use::On,
        hooks: Ok(vec!["shop/freeze".to_owned()]),
    }
}

fn state_of(found: &[Finding], check: &str) -> State {
    let one = found.iter().find(|one| one.check == check);
    one.unwrap_or_else(|| panic!("no {check}")).state
}

#[test]
fn what_is_missing_is_named_by_what_needs_it() {
    let found = judge(&but(&[]), &on());
    let states: Vec<State> = found.iter().map(|one| one.state).collect();
    assert_eq!(states, [State::Good; 4]);
    let refused = [
        (Feature::Always, "watch", "persistentvolumeclaims"),
        (Feature::Events, "patch", "events"),
        (Feature::Restores, "patch", "statefulsets"),
        (Feature::Restores, "delete", "pods"),
        (Feature::MountPods, "create", "pods"),
        (Feature::Hooks, "create", "pods"),
    ];
    let found = judge(&but(&refused), &on());
    let details: Vec<(State, &str)> = found.iter().map(|one| (one.state, &*one.detail)).collect();
    assert_eq!(
        details,
        [
            (
                State::Bad,
                "missing for: finding volumes (watch persistentvolumeclaims)"
            ),
            (State::Note, "missing for: events (patch events)"),
            (
                State::Bad,
                "missing for: scaleDown (patch statefulsets/scale); pods that write to volumes (delete pods in the \
                 namespace of Holdfast)"
            ),
            (
                State::Bad,
                "missing for: pods that mount claims (create pods)"
            ),
            (
                State::Bad,
                "missing for: commands in containers (create pods/exec), which these policies have as hooks: \
                 shop/freeze"
            ),
        ]
    );
    assert!(found.iter().all(|one| !one.mend.is_empty()));
}

#[test]
fn what_is_off_needs_no_right_and_what_is_not_known_is_no_failure() {
    let refused = [
        (Feature::Restores, "create", "persistentvolumeclaims"),
        (Feature::MountPods, "create", "pods"),
        (Feature::Hooks, "get", "pods"),
    ];
    let special = [
        "rights for restores",
        "rights for mount pods",
        "rights for hooks",
    ];
    let off = Uses {
        restores: Use::Off,
        mount_pods: Use::Off,
        hooks: Ok(Vec::new()),
        ..on()
    };
    let unknown = Uses {
        restores: Use::Unknown("you may not".to_owned()),
        mount_pods: Use::Unknown("you may not".to_owned()),
        hooks: Err("you may not".to_owned()),
        ..on()
    };
    for (uses, state) in [(off, State::Good), (unknown.clone(), State::Note)] {
        let found = judge(&but(&refused), &uses);
        for check in special {
            assert_eq!(state_of(&found, check), state, "{check} {uses:?}");
        }
    }
    // Where all is allowed nothing depends on it.
    let found = judge(&but(&[]), &unknown);
    assert!(
        found.iter().all(|one| one.state == State::Good),
        "{found:?}"
    );
    // Without the API nobody needs anything.
    let away = Uses { api: false, ..on() };
    let found = judge(&but(&refused), &away);
    assert_eq!((found.len(), found[0].state), (1, State::Good));
}

#[test]
fn who_may_not_ask_is_told_so() {
    let found = judge(&[Err("you may not".to_owned())], &on());
    assert_eq!((found.len(), found[0].state), (1, State::Note));
    assert!(found[0].detail.contains("not known: you may not"));
    assert!(judge(&[], &on()).is_empty());
}

#[test]
fn what_is_in_use_is_read_from_objects() {
    let pod = json!({"spec": {"volumes": [
        {"name": "config", "configMap": {"name": "a"}}, {"name": "helpers", "configMap": {"name": "b"}},
    ]}});
    assert_eq!(helpers_of(&pod), Some("b"));
    assert_eq!(helpers_of(&Value::Null), None);
    let helpers = |text: &str| Ok(Some(json!({"data": {"helpers.yaml": text}})));
    let policy = |hook: Value| json!({"metadata": {"namespace": "shop", "name": "p"}, "spec": {"hooks": [hook]}});
    let commands = policy(json!({"name": "x", "post": {"exec": {"command": ["sync"]}}}));
    let http = policy(json!({"name": "x", "pre": {"http": {"port": 80}}}));
    let said = uses(
        &pod,
        &helpers("restore: {most: 4}"),
        &Ok(vec![http, commands]),
    );
    assert!(said.api);
    assert_eq!((said.restores, said.mount_pods), (Use::On, Use::Off));
    assert_eq!(said.hooks, Ok(vec!["shop/p".to_owned()]));
    let broken = uses(&pod, &helpers("a: b: c"), &Err("no".to_owned()));
    assert!(matches!(broken.restores, Use::Unknown(_)), "{broken:?}");
    assert!(broken.hooks.is_err());
    let none = uses(&pod, &Ok(None), &Ok(Vec::new()));
    assert_eq!((none.restores, none.mount_pods), (Use::Off, Use::Off));
    let away = json!({"spec": {"automountServiceAccountToken": false}});
    assert!(!uses(&away, &Ok(None), &Ok(Vec::new())).api);
}

/// Group, resource, verb, and whether it is for the namespace of Holdfast only.
type One = (String, String, String, bool);

/// The rules of the chart's template, whatever its values are.
fn of_chart() -> BTreeSet<One> {
    let template = include_str!("../../../../../deploy/chart/templates/coordinator/rbac.yaml");
    let lines = template.lines().filter(|line| !line.contains("{{"));
    let plain: String = lines.flat_map(|line| [line, "\n"]).collect();
    let mut all = BTreeSet::new();
    for part in plain.split("\n---\n") {
        let object: Value = serde_norway::from_str(part).unwrap();
        let list = |value: &Value| -> Vec<String> {
            let list = value.as_array().into_iter().flatten();
            list.map(|one| text(one).to_owned()).collect()
        };
        for rule in object["rules"].as_array().into_iter().flatten() {
            for group in list(&rule["apiGroups"]) {
                for resource in list(&rule["resources"]) {
                    for verb in list(&rule["verbs"]) {
                        let is_here = object["kind"] == "Role";
                        all.insert((group.clone(), resource.clone(), verb, is_here));
                    }
                }
            }
        }
    }
    all
}

#[test]
fn they_are_those_of_the_chart() {
    let ours: BTreeSet<One> = rights()
        .into_iter()
        .map(|(_, right)| {
            let resource = format!("{}/{}", right.plural, right.part);
            let resource = resource.trim_end_matches('/').to_owned();
            (
                right.group.to_owned(),
                resource,
                right.verb.to_owned(),
                right.is_here,
            )
        })
        .collect();
    assert_eq!(ours, of_chart());
}
