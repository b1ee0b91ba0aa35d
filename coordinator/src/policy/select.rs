//! Which policy protects a volume. Total and stable: the same policies and volume give the same decision, in
//! whatever order they are given. `policy` has the table of what decides.

mod decision;

pub use decision::{
    Decision, Explanation, MAX_OVERRULED, Outcome, Overruled, Reason, Trace, Verdict, Why,
};

use crate::kube::api::{PolicyKind, PolicyReference, PolicySpec, UnmountedClaims};
use crate::policy::compile::{Conditions, Policy, Unmet};
use crate::policy::error::{Errors, FieldError, joined};
use crate::policy::subject::{Namespace, State, Subject};
use crate::policy::validate::{Scope, validate};
use crate::policy::words::{How, Problem, Says, Words, hear};
use std::collections::HashMap;
use std::sync::Arc;

/// All policies, read once.
#[derive(Debug, Default)]
pub struct Policies {
    /// In the order in which they are asked, of each kind.
    entries: Vec<Entry>,
    namespaced: HashMap<String, Vec<usize>>,
    cluster: Vec<usize>,
    /// Those of the cluster that ask for a label of the claim, by key and value; so most are never asked.
    labelled: HashMap<String, HashMap<String, Vec<usize>>>,
    /// The others of the cluster.
    unlabelled: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    policy: Policy,
    reference: Arc<PolicyReference>,
    /// `None`: what it selects is not understood.
    conditions: Option<Conditions>,
    errors: Vec<FieldError>,
}

/// The policies of the cluster that may protect volumes of a namespace.
#[derive(Debug, Default)]
struct Reach {
    /// Whether a policy is among them.
    has: Vec<bool>,
    count: usize,
    /// The first one that names the namespace as excluded.
    excluding: Option<usize>,
}

/// What became of the policies that were asked about a volume.
#[derive(Debug, Default)]
struct Found {
    /// Those that match and are understood, in order.
    matching: Vec<usize>,
    /// Those that match, or may, and are not understood, in order.
    invalid: Vec<usize>,
    /// The first that would match if the volume asked for it.
    not_asked: Option<usize>,
}

impl Policies {
    /// Reads policies.
    pub fn new(policies: impl IntoIterator<Item = Policy>) -> Self {
        let mut entries: Vec<Entry> = policies.into_iter().map(Entry::new).collect();
        entries.sort_by(|a, b| {
            let (a, b) = (&a.policy, &b.policy);
            let priority = b.spec.priority.cmp(&a.spec.priority);
            priority
                .then(a.created.cmp(&b.created))
                .then_with(|| a.reference.cmp(&b.reference))
        });
        let mut read = Self {
            entries,
            ..Self::default()
        };
        for (index, entry) in read.entries.iter().enumerate() {
            match &entry.reference.namespace {
                Some(namespace) => read
                    .namespaced
                    .entry(namespace.clone())
                    .or_default()
                    .push(index),
                None => {
                    read.cluster.push(index);
                    let label = entry
                        .conditions
                        .as_ref()
                        .and_then(Conditions::required_label);
                    match label {
                        Some((key, value)) => {
                            let values = read.labelled.entry(key.to_owned()).or_default();
                            values.entry(value.to_owned()).or_default().push(index);
                        }
                        None => read.unlabelled.push(index),
                    }
                }
            }
        }
        read
    }

    /// All policies with what is wrong with them.
    pub fn iter(&self) -> impl Iterator<Item = (&Policy, &[FieldError])> {
        self.entries
            .iter()
            .map(|entry| (&entry.policy, entry.errors.as_slice()))
    }

    /// Decides about one volume.
    pub fn decide(&self, subject: &Subject) -> Decision {
        self.judge(subject, &self.reach(&subject.namespace))
    }

    /// Decides about many; quick where the volumes of a namespace share it.
    pub fn decide_all<'a>(&self, subjects: impl IntoIterator<Item = &'a Subject>) -> Vec<Decision> {
        let mut reaches: HashMap<*const Namespace, Reach> = HashMap::new();
        let decide = |subject: &'a Subject| {
            let reach = reaches
                .entry(Arc::as_ptr(&subject.namespace))
                .or_insert_with(|| self.reach(&subject.namespace));
            self.judge(subject, reach)
        };
        subjects.into_iter().map(decide).collect()
    }

    /// Decides, and says of every policy that could have a say why it matches or does not.
    pub fn explain(&self, subject: &Subject) -> Explanation {
        let decision = self.decide(subject);
        let words = hear(subject);
        let traced = self
            .of_namespace(&subject.namespace.name)
            .iter()
            .chain(&self.cluster);
        let trace = traced.map(|index| {
            let entry = &self.entries[*index];
            let verdict = entry.verdict(subject, &words);
            Trace {
                policy: Arc::clone(&entry.reference),
                verdict,
            }
        });
        Explanation {
            word: words.word.as_ref().map(ToString::to_string),
            trace: trace.collect(),
            decision,
        }
    }

    fn of_namespace(&self, name: &str) -> &[usize] {
        self.namespaced.get(name).map_or(&[], Vec::as_slice)
    }

    fn reach(&self, namespace: &Namespace) -> Reach {
        let mut reach = Reach {
            has: vec![false; self.entries.len()],
            ..Reach::default()
        };
        for index in &self.cluster {
            let conditions = self.entries[*index].conditions.as_ref();
            match conditions.and_then(|read| read.unmet_by_namespace(namespace)) {
                None => {
                    reach.has[*index] = true;
                    reach.count += 1;
                }
                Some(Unmet::NamespaceExcluded) => {
                    reach.excluding.get_or_insert(*index);
                }
                Some(_) => {}
            }
        }
        reach
    }

    fn judge(&self, subject: &Subject, reach: &Reach) -> Decision {
        let namespace = &subject.namespace;
        if namespace.deleting {
            let message = format!("namespace {} is being deleted", namespace.name);
            return Decision::without(Reason::NamespaceDeleting, message);
        }
        if let State::Unsupported { reason, detail } = &subject.state {
            let message = format!("{reason}: {detail}");
            return Decision::without(Reason::UnsupportedVolume, message);
        }
        let mut words = hear(subject);
        let problems = std::mem::take(&mut words.problems);
        let mut decision = match &words.word {
            Some(word) if word.says == Says::No => {
                let reason = match word.how {
                    How::Annotation(_) => Reason::ExcludedByAnnotation,
                    How::Label(_) => Reason::ExcludedByLabel,
                };
                Decision::without(reason, format!("{word} keeps it out"))
            }
            _ => {
                let found = self.find(subject, reach, &words);
                match &words.policy {
                    Some(name) => self.as_asked(subject, name, reach, &found),
                    None => self.as_found(subject, reach, &found),
                }
            }
        };
        decision.problems.splice(0..0, problems);
        decision
    }

    fn find(&self, subject: &Subject, reach: &Reach, words: &Words) -> Found {
        let mut found = Found::default();
        let own = self.of_namespace(&subject.namespace.name).iter().copied();
        for index in own.chain(self.of_cluster(subject, reach)) {
            let entry = &self.entries[index];
            let unmet = match &entry.conditions {
                Some(read) => read.unmet_by_volume(subject, words.word.as_ref()),
                None => None,
            };
            match unmet {
                None if entry.errors.is_empty() => found.matching.push(index),
                None => found.invalid.push(index),
                Some(Unmet::NotAskedFor) => {
                    found.not_asked.get_or_insert(index);
                }
                Some(_) => {}
            }
            if found.matching.len() > MAX_OVERRULED {
                break;
            }
        }
        found
    }

    /// The policies of the cluster that may match, in order.
    fn of_cluster<'a>(
        &'a self,
        subject: &Subject,
        reach: &'a Reach,
    ) -> impl Iterator<Item = usize> + 'a {
        let labels = subject.claim.iter().flat_map(|claim| &claim.labels);
        let lists = labels.filter_map(|(key, value)| self.labelled.get(key)?.get(value));
        let mut labelled: Vec<usize> = lists.flatten().copied().collect();
        labelled.sort_unstable();
        let mut labelled = labelled.into_iter().peekable();
        let mut others = self.unlabelled.iter().copied().peekable();
        let merged = std::iter::from_fn(move || match (labelled.peek(), others.peek()) {
            (Some(one), Some(other)) if other < one => others.next(),
            (Some(_), _) => labelled.next(),
            (None, _) => others.next(),
        });
        merged.filter(|index| reach.has[*index])
    }

    /// The first of the policies that match.
    fn as_found(&self, subject: &Subject, reach: &Reach, found: &Found) -> Decision {
        let invalid = found.invalid.first().map(|index| &self.entries[*index]);
        let Some(first) = found.matching.first() else {
            if let Some(entry) = invalid {
                return entry.invalid();
            }
            return self.none_matches(subject, reach, found);
        };
        let mut decision = self.taken(subject, *first, found, false);
        if let Some(entry) = invalid
            && (entry.reference.kind, found.invalid[0])
                < (self.entries[*first].reference.kind, *first)
        {
            decision.problems.push(entry.problem());
        }
        decision
    }

    /// The policy that the claim names.
    fn as_asked(&self, subject: &Subject, name: &str, reach: &Reach, found: &Found) -> Decision {
        let namespace = &subject.namespace.name;
        let has_name = |index: &&usize| self.entries[**index].reference.name == name;
        let own = self.of_namespace(namespace).iter().find(has_name);
        let Some(index) = own.or_else(|| self.cluster.iter().find(has_name)) else {
            let message = format!(
                "its claim asks for policy '{name}', but there is neither a BackupPolicy of that name in \
                 namespace {namespace} nor a ClusterBackupPolicy"
            );
            return Decision::without(Reason::PolicyNotFound, message);
        };
        let entry = &self.entries[*index];
        if entry.reference.namespace.is_none() && !reach.has[*index] {
            let conditions = entry.conditions.as_ref();
            let unmet = conditions.and_then(|read| read.unmet_by_namespace(&subject.namespace));
            let why = conditions
                .zip(unmet)
                .map(|(read, unmet)| read.explain(unmet, subject));
            let message = format!(
                "its claim asks for {}, which is not for this namespace: {}",
                entry.reference,
                why.unwrap_or_default()
            );
            let reason = Reason::PolicyNotForNamespace;
            return Decision::without(reason, message).of(&entry.reference);
        }
        match entry.errors.is_empty() {
            true => self.taken(subject, *index, found, true),
            false => entry.invalid(),
        }
    }

    fn taken(
        &self,
        subject: &Subject,
        index: usize,
        found: &Found,
        is_asked_for: bool,
    ) -> Decision {
        let entry = &self.entries[index];
        let spec = &entry.policy.spec;
        let policy = &entry.reference;
        let mut decision = if spec.suspend {
            let message = format!("{policy} is suspended");
            Decision::without(Reason::PolicySuspended, message).of(policy)
        } else if let Some((reason, message)) = unmounted(spec, policy, subject) {
            Decision::without(reason, message).of(policy)
        } else {
            Decision::with(policy)
        };
        let others = found.matching.iter().filter(|other| **other != index);
        decision.overruled = others
            .take(MAX_OVERRULED)
            .map(|other| Overruled {
                policy: Arc::clone(&self.entries[*other].reference),
                why: entry.why_before(&self.entries[*other], is_asked_for),
            })
            .collect();
        decision
    }

    fn none_matches(&self, subject: &Subject, reach: &Reach, found: &Found) -> Decision {
        let namespace = &subject.namespace.name;
        if let Some(index) = found.not_asked {
            let policy = &self.entries[index].reference;
            let message = format!(
                "{policy} protects volumes that ask for it; add holdfast.dev/backup: \"true\" to the claim, the \
                 pod or the namespace"
            );
            return Decision::without(Reason::NotAskedFor, message).of(policy);
        }
        let asked = self.of_namespace(namespace).len() + reach.count;
        if let (0, Some(index)) = (asked, reach.excluding) {
            let policy = &self.entries[index].reference;
            let message =
                format!("{policy} excludes namespace {namespace}, and no other policy is for it");
            return Decision::without(Reason::ExcludedByPolicy, message).of(policy);
        }
        let message = match (self.entries.len(), asked) {
            (0, _) => "there are no policies".to_owned(),
            (_, 0) => format!("no policy is for namespace {namespace}"),
            (_, 1) => format!("the one policy for namespace {namespace} does not match it"),
            _ => format!("none of the {asked} policies for namespace {namespace} matches it"),
        };
        Decision::without(Reason::NoPolicyMatches, message)
    }
}

impl Entry {
    fn new(policy: Policy) -> Self {
        let scope = match policy.reference.kind {
            PolicyKind::BackupPolicy => Scope::Namespace,
            PolicyKind::ClusterBackupPolicy => Scope::Cluster,
        };
        let mut wrong = Errors::default();
        let conditions = Conditions::read("spec.selection", &policy.spec.selection, &mut wrong);
        let is_read = policy.misread.is_empty();
        Self {
            reference: Arc::new(policy.reference.clone()),
            conditions: (is_read && wrong.is_empty()).then_some(conditions),
            errors: match is_read {
                true => validate(&policy.spec, scope),
                false => policy.misread.clone(),
            },
            policy,
        }
    }

    fn invalid(&self) -> Decision {
        Decision::without(Reason::PolicyInvalid, self.problem().message).of(&self.reference)
    }

    fn problem(&self) -> Problem {
        Problem {
            reason: Reason::PolicyInvalid.as_str(),
            message: format!(
                "{} is not understood: {}",
                self.reference,
                joined(&self.errors)
            ),
        }
    }

    /// Why this one is asked before another that matches too.
    fn why_before(&self, other: &Self, is_asked_for: bool) -> Why {
        let (a, b) = (&self.policy, &other.policy);
        if is_asked_for {
            Why::AskedFor
        } else if a.reference.kind != b.reference.kind {
            Why::OfNamespace
        } else if a.spec.priority != b.spec.priority {
            Why::Priority(a.spec.priority, b.spec.priority)
        } else if a.created != b.created {
            Why::Older
        } else {
            Why::Name
        }
    }

    fn verdict(&self, subject: &Subject, words: &Words) -> Verdict {
        let Some(read) = &self.conditions else {
            return Verdict::Invalid(joined(&self.errors));
        };
        let unmet = read
            .unmet_by_namespace(&subject.namespace)
            .or_else(|| read.unmet_by_volume(subject, words.word.as_ref()));
        match unmet {
            Some(unmet) => Verdict::Unmet {
                field: unmet.field(),
                detail: read.explain(unmet, subject),
            },
            None if !self.errors.is_empty() => Verdict::Invalid(joined(&self.errors)),
            None => Verdict::Matches,
        }
    }
}

/// Why a volume that no pod uses is not backed up; `None`: one does, or a pod is made that mounts it.
fn unmounted(
    spec: &PolicySpec,
    policy: &PolicyReference,
    subject: &Subject,
) -> Option<(Reason, String)> {
    if subject.state != State::NotMounted {
        return None;
    }
    let claim = match (spec.unmounted_claims, &subject.claim) {
        (UnmountedClaims::Mount, Some(claim)) => claim,
        _ => {
            let message = format!(
                "no running pod uses it, and {policy} says unmountedClaims: Skip; with Mount it is mounted for its \
                 backups"
            );
            return Some((Reason::NotMounted, message));
        }
    };
    if claim.volume_name.is_none() {
        let message = "no pod uses it and it has no volume yet, so there is nothing to back up";
        return Some((Reason::ClaimNotBound, message.to_owned()));
    }
    let is_for_one = claim
        .access_modes
        .iter()
        .any(|mode| mode == "ReadWriteOncePod");
    is_for_one.then(|| {
        let message = "no running pod uses it, and while one of Holdfast's did, no other could (ReadWriteOncePod); \
                       it is backed up while a pod of yours uses it";
        (Reason::ReadWriteOncePod, message.to_owned())
    })
}

#[cfg(test)]
mod speed;
#[cfg(test)]
pub(crate) mod tests;
