//! What the coordinator's account may do, by what it is for. The rights are those that the chart gives it
//! (`templates/coordinator/rbac.yaml`); a missing one fails only where what it is for is in use.

use super::rights::{Allowed, Right, missing};
use super::{Facts, Finding, State};
use crate::cluster::api::text;
use crate::cluster::view::policy_name;
use serde_json::Value;

/// What needs a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Whatever the settings are.
    Always,
    /// Saying by events what happens.
    Events,
    /// Restores as objects of the cluster.
    Restores,
    /// Pods that mount claims that no other pod uses.
    MountPods,
    /// Commands before and after backups.
    Hooks,
}

/// Rights to do the same with several kinds of objects.
struct Rule {
    feature: Feature,
    /// What is not possible without it.
    what: &'static str,
    group: &'static str,
    /// As rules of roles name them, with their parts.
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    /// Whether it is given in the namespace of Holdfast only.
    is_here: bool,
}

const fn rule(
    feature: Feature,
    what: &'static str,
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
) -> Rule {
    Rule {
        feature,
        what,
        group,
        resources,
        verbs,
        is_here: false,
    }
}

const CORE: &str = "";
const APPS: &str = "apps";
const OURS: &str = "holdfast.dev";
const READ: &[&str] = &["get", "list", "watch"];
const KEEP: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

const RULES: &[Rule] = &[
    rule(
        Feature::Always,
        "finding volumes",
        CORE,
        &[
            "pods",
            "persistentvolumeclaims",
            "persistentvolumes",
            "namespaces",
        ],
        READ,
    ),
    rule(
        Feature::Always,
        "policies",
        OURS,
        &["backuppolicies", "clusterbackuppolicies"],
        READ,
    ),
    rule(
        Feature::Always,
        "policies",
        OURS,
        &["backuppolicies/status", "clusterbackuppolicies/status"],
        &["patch"],
    ),
    rule(
        Feature::Always,
        "saying what is protected",
        OURS,
        &["volumeprotections"],
        KEEP,
    ),
    rule(
        Feature::Always,
        "saying what is protected",
        OURS,
        &["volumeprotections/status"],
        &["patch"],
    ),
    rule(Feature::Always, "runs", OURS, &["backups"], KEEP),
    rule(
        Feature::Always,
        "runs",
        OURS,
        &["backups/status"],
        &["patch"],
    ),
    rule(
        Feature::Always,
        "following restores",
        OURS,
        &["restores"],
        &["get", "list", "watch", "patch"],
    ),
    rule(
        Feature::Always,
        "following restores",
        OURS,
        &["restores/status"],
        &["patch"],
    ),
    rule(
        Feature::Events,
        "events",
        CORE,
        &["events"],
        &["create", "patch"],
    ),
    rule(
        Feature::Restores,
        "new claims",
        CORE,
        &["persistentvolumeclaims"],
        &["create", "patch"],
    ),
    rule(
        Feature::Restores,
        "scaleDown",
        APPS,
        &["replicasets"],
        &["get"],
    ),
    rule(
        Feature::Restores,
        "scaleDown",
        APPS,
        &[
            "deployments/scale",
            "statefulsets/scale",
            "replicasets/scale",
        ],
        &["get", "patch"],
    ),
    Rule {
        is_here: true,
        ..rule(
            Feature::Restores,
            "pods that write to volumes",
            CORE,
            &["pods"],
            &["create", "delete"],
        )
    },
    rule(
        Feature::MountPods,
        "pods that mount claims",
        CORE,
        &["pods"],
        &["create", "delete"],
    ),
    rule(
        Feature::Hooks,
        "commands in containers",
        CORE,
        &["pods/exec"],
        &["get", "create"],
    ),
];

/// Whether something is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// It is.
    On,
    /// It is not.
    Off,
    /// Nobody says so, for this reason.
    Unknown(String),
}

/// What is in use of what needs rights of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Uses {
    /// Whether the coordinator works with the API at all.
    api: bool,
    restores: Use,
    mount_pods: Use,
    /// Policies that have commands as hooks.
    hooks: Result<Vec<String>, String>,
}

/// All rights one by one, in the order in which they are asked for.
pub fn rights() -> Vec<(Feature, Right)> {
    let mut all = Vec::new();
    for rule in RULES {
        for &resource in rule.resources {
            for &verb in rule.verbs {
                let (plural, part) = resource.split_once('/').unwrap_or((resource, ""));
                let right = Right {
                    feature: rule.what,
                    verb,
                    group: rule.group,
                    plural,
                    part,
                    is_here: rule.is_here,
                };
                all.push((rule.feature, right));
            }
        }
    }
    all
}

/// The ConfigMap with the templates of the pods that the coordinator makes, if its pod is given one.
pub fn helpers_of(pod: &Value) -> Option<&str> {
    let volumes = pod["spec"]["volumes"].as_array();
    let mut volumes = volumes.into_iter().flatten();
    let volume = volumes.find(|one| one["name"] == "helpers")?;
    volume["configMap"]["name"].as_str()
}

/// Judges what the coordinator's account may do.
pub fn of_account(facts: &Facts) -> Vec<Finding> {
    let uses = uses(&facts.pod, &facts.helpers, &facts.policies);
    judge(&facts.of_account, &uses)
}

fn uses(
    pod: &Value,
    helpers: &Result<Option<Value>, String>,
    policies: &Result<Vec<Value>, String>,
) -> Uses {
    // The templates of what the chart's values switch off are not there.
    let used = |name: &str| match helpers {
        Err(why) => Use::Unknown(why.clone()),
        Ok(None) => Use::Off,
        Ok(Some(map)) => {
            let templates = text(&map["data"]["helpers.yaml"]);
            match serde_norway::from_str::<Value>(templates) {
                Ok(templates) if templates[name].is_object() => Use::On,
                Ok(_) => Use::Off,
                Err(error) => Use::Unknown(format!("helpers.yaml: {error}")),
            }
        }
    };
    let with_commands = |list: &Vec<Value>| -> Vec<String> {
        let with = list.iter().filter(|policy| has_commands(policy));
        with.map(policy_name).collect()
    };
    Uses {
        api: pod["spec"]["automountServiceAccountToken"] != false,
        restores: used("restore"),
        mount_pods: used("mount"),
        hooks: policies.as_ref().map(with_commands).map_err(String::clone),
    }
}

fn has_commands(policy: &Value) -> bool {
    let hooks = policy["spec"]["hooks"].as_array();
    let mut hooks = hooks.into_iter().flatten();
    hooks.any(|hook| {
        ["pre", "post"]
            .iter()
            .any(|at| hook[at]["exec"].is_object())
    })
}

const CHECK: &str = "the coordinator's rights";

fn judge(answers: &[Allowed], uses: &Uses) -> Vec<Finding> {
    if !uses.api {
        let detail = "none are needed: coordinator.kubernetesMode is off";
        return vec![Finding::good(CHECK, detail)];
    }
    if answers.is_empty() {
        return Vec::new();
    }
    if let Some(Err(why)) = answers.iter().find(|answer| answer.is_err()) {
        return vec![Finding::new(
            CHECK,
            State::Note,
            format!("not known: {why}"),
            "without its rights it cannot see what is to be protected, run hooks or restore",
            "have an administrator of the cluster run `kubectl holdfast doctor`",
        )];
    }
    let rights = rights();
    let lacks = |feature: Feature| {
        let of = rights.iter().zip(answers);
        let of = of.filter(|((needs, _), _)| *needs == feature);
        missing(of.map(|((_, right), answer)| (right, answer)))
    };
    let mut found = always(&lacks(Feature::Always), &lacks(Feature::Events));
    found.push(switched(
        "rights for restores",
        "coordinator.restores.enabled",
        "a Restore that needs them fails, and nothing is restored by it",
        &uses.restores,
        &lacks(Feature::Restores),
    ));
    found.push(switched(
        "rights for mount pods",
        "coordinator.mountPods.enabled",
        "claims that no pod uses are neither backed up nor restored to",
        &uses.mount_pods,
        &lacks(Feature::MountPods),
    ));
    found.push(hooks(&uses.hooks, &lacks(Feature::Hooks)));
    found
}

const OWN_ROLE: &str =
    "bring your own ClusterRole up to deploy/chart/templates/coordinator/rbac.yaml";

fn always(needed: &str, of_events: &str) -> Vec<Finding> {
    let mend = format!("helm upgrade with rbac.create true, or {OWN_ROLE}");
    let mut found = Vec::new();
    for (lacks, state, why) in [
        (
            needed,
            State::Bad,
            "without them it cannot see what is to be protected, or say what is",
        ),
        (
            of_events,
            State::Note,
            "what happens is not told by events; the rest works",
        ),
    ] {
        if !lacks.is_empty() {
            let detail = format!("missing for: {lacks}");
            found.push(Finding::new(CHECK, state, detail, why, mend.clone()));
        }
    }
    if found.is_empty() {
        found.push(Finding::good(CHECK, "all that it always uses"));
    }
    found
}

/// Of something that a value of the chart switches on.
fn switched(check: &str, value: &str, why: &'static str, used: &Use, lacks: &str) -> Finding {
    match (used, lacks) {
        (Use::Off, _) => Finding::good(check, format!("none are needed: {value} is false")),
        (_, "") => Finding::good(check, "all that they use"),
        (Use::On, lacks) => Finding::new(
            check,
            State::Bad,
            format!("missing for: {lacks}"),
            why,
            format!("helm upgrade with {value} and rbac.create true, or {OWN_ROLE}"),
        ),
        (Use::Unknown(reason), lacks) => Finding::new(
            check,
            State::Note,
            format!("missing for: {lacks}; it is not known whether {value} is true: {reason}"),
            why,
            format!("where it is true: helm upgrade with rbac.create true, or {OWN_ROLE}"),
        ),
    }
}

fn hooks(policies: &Result<Vec<String>, String>, lacks: &str) -> Finding {
    let check = "rights for hooks";
    let why =
        "runs that have commands as hooks fail with HookNotAllowed, unless onError is Continue";
    let mend = "helm upgrade with coordinator.hooks.enabled true, or use hooks over http, which need no right";
    match (policies, lacks) {
        (_, "") => Finding::good(check, "commands in containers are allowed"),
        (Ok(policies), _) if policies.is_empty() => Finding::good(
            check,
            "commands in containers are not allowed, and no policy has any (annotations of pods are not looked at)",
        ),
        (Ok(policies), lacks) => {
            let named = policies.join(", ");
            let detail =
                format!("missing for: {lacks}, which these policies have as hooks: {named}");
            Finding::new(check, State::Bad, detail, why, mend)
        }
        (Err(reason), lacks) => {
            let detail = format!(
                "missing for: {lacks}; it is not known whether a policy has such hooks: {reason}"
            );
            Finding::new(check, State::Note, detail, why, mend)
        }
    }
}

#[cfg(test)]
mod tests;
