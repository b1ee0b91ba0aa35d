//! Who may do what: the coordinator's account for each thing it does, and the user for each verb.

use super::{Finding, State};
use crate::cluster::kinds::{
    BACKUPS, CLAIMS, CLUSTER_POLICIES, CONFIG_MAPS, EVENTS, Kind, NODES, PODS, POLICIES,
    PROTECTIONS, RESTORES,
};

/// A right, and what it is for.
#[derive(Debug, Clone, Copy)]
pub struct Right {
    /// What is not possible without it.
    pub feature: &'static str,
    /// Verb.
    pub verb: &'static str,
    /// Kind, by its group and plural.
    pub group: &'static str,
    /// As paths name it.
    pub plural: &'static str,
    /// A part of it, such as `portforward`.
    pub part: &'static str,
    /// Whether it is needed in the namespace of Holdfast only.
    pub is_here: bool,
    /// Whether nothing works without it.
    pub is_needed: bool,
}

const fn right(
    feature: &'static str,
    verb: &'static str,
    kind: &Kind,
    group: &'static str,
) -> Right {
    Right {
        feature,
        verb,
        group,
        plural: kind.plural,
        part: "",
        is_here: false,
        is_needed: true,
    }
}

const CORE: &str = "";
const OURS: &str = "holdfast.dev";

/// What the coordinator's account needs.
pub const OF_ACCOUNT: &[Right] = &[
    right("finding volumes", "watch", &PODS, CORE),
    right("finding volumes", "watch", &CLAIMS, CORE),
    Right {
        plural: "persistentvolumes",
        ..right("finding volumes", "watch", &PODS, CORE)
    },
    Right {
        plural: "namespaces",
        ..right("finding volumes", "watch", &PODS, CORE)
    },
    right("policies", "watch", &POLICIES, OURS),
    right("policies", "watch", &CLUSTER_POLICIES, OURS),
    Right {
        part: "status",
        ..right("policies", "patch", &POLICIES, OURS)
    },
    right("saying what is protected", "create", &PROTECTIONS, OURS),
    right("saying what is protected", "delete", &PROTECTIONS, OURS),
    Right {
        part: "status",
        ..right("saying what is protected", "patch", &PROTECTIONS, OURS)
    },
    right("runs", "watch", &BACKUPS, OURS),
    right("runs", "create", &BACKUPS, OURS),
    Right {
        part: "status",
        ..right("runs", "patch", &BACKUPS, OURS)
    },
    Right {
        is_needed: false,
        ..right("events", "create", &EVENTS, CORE)
    },
];

/// What the user needs for each verb.
pub const OF_USER: &[Right] = &[
    right("status, volumes", "list", &PROTECTIONS, OURS),
    right("policies", "list", &POLICIES, OURS),
    right("policies", "list", &CLUSTER_POLICIES, OURS),
    right("status (nodes without an agent)", "list", &NODES, CORE),
    right("finding the coordinator", "list", &PODS, CORE),
    Right {
        part: "portforward",
        is_here: true,
        ..right(
            "everything that asks the coordinator",
            "create",
            &PODS,
            CORE,
        )
    },
    // Of a websocket older servers ask for the one, newer ones for the other.
    Right {
        part: "portforward",
        is_here: true,
        ..right("everything that asks the coordinator", "get", &PODS, CORE)
    },
    Right {
        is_here: true,
        ..right("checking its certificate", "get", &CONFIG_MAPS, CORE)
    },
    Right {
        part: "log",
        is_here: true,
        ..right("logs", "get", &PODS, CORE)
    },
    right("backup", "create", &BACKUPS, OURS),
    right("restore", "create", &RESTORES, OURS),
];

/// An answer: whether it is allowed, or why that is not known.
pub type Allowed = Result<bool, String>;

impl Right {
    /// As people write it.
    fn said(&self) -> String {
        let part = if self.part.is_empty() {
            String::new()
        } else {
            format!("/{}", self.part)
        };
        format!("{} {}{part}", self.verb, self.plural)
    }
}

/// The rights that are missing, by feature, in one line.
fn missing<'r>(answers: impl Iterator<Item = (&'r Right, &'r Allowed)>) -> String {
    let mut by: Vec<(&str, Vec<String>)> = Vec::new();
    for (right, answer) in answers {
        if !matches!(answer, Ok(false)) {
            continue;
        }
        match by.iter_mut().find(|(feature, _)| *feature == right.feature) {
            Some((_, rights)) => rights.push(right.said()),
            None => by.push((right.feature, vec![right.said()])),
        }
    }
    let said = by
        .iter()
        .map(|(feature, rights)| format!("{feature} ({})", rights.join(", ")));
    said.collect::<Vec<_>>().join("; ")
}

/// Judges what the user may do.
pub fn of_user(answers: &[Allowed]) -> Finding {
    let check = "your rights";
    if let Some(Err(why)) = answers.iter().find(|answer| answer.is_err()) {
        return Finding::new(
            check,
            State::Note,
            format!("not known: {why}"),
            "what you may not do fails one by one",
            "ask who runs the cluster",
        );
    }
    match missing(OF_USER.iter().zip(answers)) {
        none if none.is_empty() => Finding::good(check, "all verbs of this program"),
        missing => Finding::new(
            check,
            State::Note,
            format!("missing for: {missing}"),
            "these verbs fail for you; what is protected does not depend on it",
            "have the ClusterRole holdfast-operator (or holdfast-view) and, in the namespace of Holdfast, the Role \
             holdfast-connect bound to you: deploy/README.md",
        ),
    }
}

/// Judges what the coordinator's account may do.
pub fn of_account(answers: &[Allowed]) -> Vec<Finding> {
    let check = "the coordinator's rights";
    if answers.is_empty() {
        return Vec::new();
    }
    if let Some(Err(why)) = answers.iter().find(|answer| answer.is_err()) {
        return vec![Finding::new(
            check,
            State::Note,
            format!("not known: {why}"),
            "without them it cannot see what is to be protected",
            "whoever may create subjectaccessreviews can look",
        )];
    }
    let all = || OF_ACCOUNT.iter().zip(answers);
    let mut found = Vec::new();
    for (is_needed, state, why) in [
        (
            true,
            State::Bad,
            "without them it cannot see what is to be protected, or say what is",
        ),
        (
            false,
            State::Note,
            "what needs them is left out; the rest works",
        ),
    ] {
        let missing = missing(all().filter(|(right, _)| right.is_needed == is_needed));
        if !missing.is_empty() {
            let mend = "helm upgrade with rbac.create true, or bring your own ClusterRole up to \
                        deploy/chart/templates/coordinator/rbac.yaml";
            found.push(Finding::new(
                check,
                state,
                format!("missing for: {missing}"),
                why,
                mend,
            ));
        }
    }
    if found.is_empty() {
        found.push(Finding::good(check, "all that it uses"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_by_what_needs_it() {
        let mut answers: Vec<Allowed> = OF_ACCOUNT.iter().map(|_| Ok(true)).collect();
        assert_eq!(of_account(&answers)[0].state, State::Good);
        answers[1] = Ok(false);
        if let Some(last) = answers.last_mut() {
            *last = Ok(false);
        }
        let found = of_account(&answers);
        assert_eq!((found[0].state, found[1].state), (State::Bad, State::Note));
        assert_eq!(
            found[0].detail,
            "missing for: finding volumes (watch persistentvolumeclaims)"
        );
        let mut answers: Vec<Allowed> = OF_USER.iter().map(|_| Ok(true)).collect();
        assert_eq!(of_user(&answers).state, State::Good);
        answers[5] = Ok(false);
        assert!(of_user(&answers).detail.contains("create pods/portforward"));
        answers[0] = Err("no".to_owned());
        assert!(of_user(&answers).detail.contains("not known"));
    }
}
