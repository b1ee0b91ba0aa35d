//! Rights, and what the user needs for each verb.

use super::{Finding, State};
use crate::cluster::kinds::{
    BACKUPS, CLUSTER_POLICIES, CONFIG_MAPS, Kind, NODES, PODS, POLICIES, PROTECTIONS, RESTORES,
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
    }
}

const CORE: &str = "";
const OURS: &str = "holdfast.dev";

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
    /// What it is about, as people write it.
    fn object(&self) -> String {
        let part = match self.part {
            "" => String::new(),
            part => format!("/{part}"),
        };
        let place = if self.is_here {
            " in the namespace of Holdfast"
        } else {
            ""
        };
        format!("{}{part}{place}", self.plural)
    }
}

/// What is missing for one feature: of each object the verbs.
type Lack<'r> = (&'r str, Vec<(String, Vec<&'r str>)>);

/// The rights that are missing, by feature, in one line.
pub fn missing<'r>(answers: impl Iterator<Item = (&'r Right, &'r Allowed)>) -> String {
    let mut by: Vec<Lack<'r>> = Vec::new();
    for (right, answer) in answers {
        if !matches!(answer, Ok(false)) {
            continue;
        }
        let at = by.iter().position(|(feature, _)| *feature == right.feature);
        let at = at.unwrap_or_else(|| {
            by.push((right.feature, Vec::new()));
            by.len() - 1
        });
        let (objects, object) = (&mut by[at].1, right.object());
        match objects.iter_mut().find(|(other, _)| *other == object) {
            Some((_, verbs)) => verbs.push(right.verb),
            None => objects.push((object, vec![right.verb])),
        }
    }
    let said = by.iter().map(|(feature, objects)| {
        let objects = objects.iter();
        let objects = objects.map(|(object, verbs)| format!("{} {object}", verbs.join("/")));
        format!("{feature} ({})", objects.collect::<Vec<_>>().join(", "))
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_by_what_needs_it() {
        let mut answers: Vec<Allowed> = OF_USER.iter().map(|_| Ok(true)).collect();
        assert_eq!(of_user(&answers).state, State::Good);
        let at = |part: &str| OF_USER.iter().position(|right| right.part == part).unwrap();
        answers[at("portforward")] = Ok(false);
        answers[at("portforward") + 1] = Ok(false);
        answers[at("log")] = Ok(false);
        assert_eq!(
            of_user(&answers).detail,
            "missing for: everything that asks the coordinator (create/get pods/portforward in the namespace of \
             Holdfast); logs (get pods/log in the namespace of Holdfast)"
        );
        answers[0] = Err("no".to_owned());
        assert!(of_user(&answers).detail.contains("not known"));
    }
}
