//! What a volume's own objects say about its backup: annotations and labels of its claim, its pods and its
//! namespace. Ours are heard before Velero's and k8up's, which are only read. A wrong value says nothing and is
//! reported.

use crate::policy::annotations::{
    K8UP_BACKUP, OUR_BACKUP, OUR_EXCLUDE, OUR_EXCLUDES, OUR_POLICY, OUR_VOLUMES, VELERO_EXCLUDE,
    VELERO_EXCLUDES, VELERO_VOLUMES,
};
use crate::policy::hooks;
use crate::policy::labels::Labels;
use crate::policy::subject::{PodUse, Subject};
use std::fmt;

/// Something that is wrong with what an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// As one stable word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// Whether a volume is to be backed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// Yes.
    Yes,
    /// No.
    No,
}

/// How an object says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// An annotation of this key.
    Annotation(&'static str),
    /// A label of this key.
    Label(&'static str),
}

/// What an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Yes or no.
    pub says: Says,
    /// By what.
    pub how: How,
    /// Its value.
    pub value: String,
    /// The object, such as `claim shop/orders`.
    pub object: String,
    /// Whether it names this very volume: then it is meant also if a policy's kinds do not have it.
    pub names_volume: bool,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sort, key) = match self.how {
            How::Annotation(key) => ("annotation", key),
            How::Label(key) => ("label", key),
        };
        write!(f, "{sort} {key}: \"{}\" of {}", self.value, self.object)
    }
}

/// What is said of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The word that counts.
    pub word: Option<Word>,
    /// The policy that its claim asks for.
    pub policy: Option<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Hears all objects of a volume.
pub fn hear(subject: &Subject) -> Words {
    let mut words = Words::default();
    let namespace = &subject.namespace;
    let mut heard = None;
    if let Some(claim) = &subject.claim {
        let object = || format!("claim {}/{}", namespace.name, claim.name);
        heard = of_claim(
            &claim.annotations,
            &claim.labels,
            &object,
            &mut words.problems,
        );
        words.policy = claim.annotations.get(OUR_POLICY).cloned();
    }
    if heard.is_none() {
        heard = of_pods(subject, &mut words.problems);
    }
    if heard.is_none() {
        let object = || format!("namespace {}", namespace.name);
        heard = general(
            &namespace.annotations,
            &namespace.labels,
            &object,
            &mut words.problems,
        );
    }
    for pod in subject
        .pods
        .iter()
        .filter(|pod| !pod.annotations.is_empty())
    {
        words
            .problems
            .extend(hooks::of_pod(&pod.annotations, &pod.name).1);
    }
    words.word = heard;
    words
}

/// Annotation, our label, Velero's label.
fn general(
    annotations: &Labels,
    labels: &Labels,
    object: &dyn Fn() -> String,
    problems: &mut Vec<Problem>,
) -> Option<Word> {
    if annotations.is_empty() && labels.is_empty() {
        return None;
    }
    let ours = yes_or_no(annotations, OUR_BACKUP, object, problems);
    let label = is_excluded(labels, OUR_EXCLUDE, object, problems);
    if let (Some(yes), Some(no)) = (&ours, &label)
        && yes.says == Says::Yes
    {
        problems.push(contradiction(yes, no));
    }
    let theirs = || is_excluded(labels, VELERO_EXCLUDE, object, &mut Vec::new());
    ours.or(label).or_else(theirs)
}

fn of_claim(
    annotations: &Labels,
    labels: &Labels,
    object: &dyn Fn() -> String,
    problems: &mut Vec<Problem>,
) -> Option<Word> {
    general(annotations, labels, object, problems)
        .or_else(|| yes_or_no(annotations, K8UP_BACKUP, object, problems))
}

fn of_pods(subject: &Subject, problems: &mut Vec<Problem>) -> Option<Word> {
    let mut yes: Option<Word> = None;
    let mut no: Option<Word> = None;
    let has_ended = |pod: &&PodUse| matches!(pod.phase.as_deref(), Some("Succeeded" | "Failed"));
    for pod in subject.pods.iter().filter(|pod| !has_ended(pod)) {
        let Some(word) = of_pod(&subject.namespace.name, pod, problems) else {
            continue;
        };
        let place = match word.says {
            Says::Yes => &mut yes,
            Says::No => &mut no,
        };
        place.get_or_insert(word);
    }
    if let (Some(yes), Some(no)) = (&yes, &no) {
        problems.push(contradiction(yes, no));
    }
    yes.or(no)
}

/// Names of volumes first, then words about the whole pod; ours, then Velero's.
fn of_pod(namespace: &str, pod: &PodUse, problems: &mut Vec<Problem>) -> Option<Word> {
    let (annotations, labels) = (&pod.annotations, &pod.labels);
    let object = || format!("pod {namespace}/{}", pod.name);
    named(pod, OUR_VOLUMES, OUR_EXCLUDES, &object, problems)
        .or_else(|| {
            let ours = yes_or_no(annotations, OUR_BACKUP, &object, problems);
            let label = is_excluded(labels, OUR_EXCLUDE, &object, problems);
            if let (Some(yes), Some(no)) = (&ours, &label)
                && yes.says == Says::Yes
            {
                problems.push(contradiction(yes, no));
            }
            ours.or(label)
        })
        .or_else(|| named(pod, VELERO_VOLUMES, VELERO_EXCLUDES, &object, problems))
        .or_else(|| is_excluded(labels, VELERO_EXCLUDE, &object, &mut Vec::new()))
}

/// Whether a pod's lists of volumes name this one.
fn named(
    pod: &PodUse,
    included: &'static str,
    excluded: &'static str,
    object: &dyn Fn() -> String,
    problems: &mut Vec<Problem>,
) -> Option<Word> {
    let word = |key: &'static str, says| {
        let value = pod.annotations.get(key)?;
        let mut names = value.split(',').map(str::trim);
        names.any(|name| name == pod.volume).then(|| Word {
            says,
            how: How::Annotation(key),
            value: value.clone(),
            object: object(),
            names_volume: true,
        })
    };
    let (yes, no) = (word(included, Says::Yes), word(excluded, Says::No));
    if let (Some(yes), Some(no)) = (&yes, &no) {
        problems.push(contradiction(yes, no));
    }
    yes.or(no)
}

fn yes_or_no(
    annotations: &Labels,
    key: &'static str,
    object: &dyn Fn() -> String,
    problems: &mut Vec<Problem>,
) -> Option<Word> {
    let value = annotations.get(key)?;
    let says = match value.as_str() {
        "true" => Says::Yes,
        "false" => Says::No,
        _ => {
            problems.push(Problem {
                reason: "AnnotationNotUnderstood",
                message: format!(
                    "annotation {key}: \"{value}\" of {} is not understood; write \"true\" or \"false\"",
                    object()
                ),
            });
            return None;
        }
    };
    Some(Word {
        says,
        how: How::Annotation(key),
        value: value.clone(),
        object: object(),
        names_volume: false,
    })
}

fn is_excluded(
    labels: &Labels,
    key: &'static str,
    object: &dyn Fn() -> String,
    problems: &mut Vec<Problem>,
) -> Option<Word> {
    let value = labels.get(key)?;
    match value.as_str() {
        "true" => Some(Word {
            says: Says::No,
            how: How::Label(key),
            value: value.clone(),
            object: object(),
            names_volume: false,
        }),
        "false" => None,
        _ => {
            problems.push(Problem {
                reason: "LabelNotUnderstood",
                message: format!(
                    "label {key}: \"{value}\" of {} is not understood; write \"true\" or remove it",
                    object()
                ),
            });
            None
        }
    }
}

fn contradiction(yes: &Word, no: &Word) -> Problem {
    Problem {
        reason: "ContradictingWords",
        message: format!("{yes} and {no} contradict each other; the volume is kept in"),
    }
}

#[cfg(test)]
mod tests;
