//! Which volumes a Backup is about, or why that cannot be told. Pure.

use crate::kube::api::{BackupSpec, DeletionPolicy, PolicyKind, PolicyReference, VolumeKind};
use crate::kube::picture::{Picture, Volume};
use crate::policy::error::{Errors, FieldError, joined};
use crate::policy::labels::Selector;
use crate::policy::subject::State;
use crate::policy::validate::check_files;
use crate::policy::values::duration;
use crate::policy::{Outcome, Reason};

/// Volumes of a Backup whose snapshots go with it: their names are kept in its status.
pub const MAX_DELETED: usize = 1000;
/// Names that a message lists.
const NAMED: usize = 5;

/// What a Backup is about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// Volumes, by the name of their history.
    pub volumes: Vec<Chosen>,
    /// Claims that were left out, and why.
    pub left_out: Vec<(String, &'static str)>,
}

/// A volume that is backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The name of its history.
    pub volume: String,
    /// The claim's uid.
    pub uid: Option<String>,
}

/// Why there is no run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As one stable word.
    pub reason: &'static str,
    /// The field, what is wrong with it, and what to do.
    pub message: String,
    /// Whether what is missing may only not be known yet.
    pub may_come: bool,
}

impl Refusal {
    fn invalid(errors: &[FieldError]) -> Self {
        Self {
            reason: "InvalidField",
            message: joined(errors),
            may_come: false,
        }
    }

    fn missing(reason: &'static str, field: &str, message: String) -> Self {
        Self {
            reason,
            message: format!("{field}: {message}"),
            may_come: true,
        }
    }
}

/// The volumes of a Backup in this namespace.
pub fn plan(spec: &BackupSpec, namespace: &str, picture: &Picture) -> Result<Planned, Refusal> {
    let mut errors = Errors::default();
    if let Some(text) = &spec.ttl_after_finished {
        errors.check("spec.ttlAfterFinished", duration(text));
    }
    if let Some(files) = &spec.files {
        check_files(files, &mut errors);
    }
    let selector = spec.claims.as_ref();
    let selector = selector.map(|selector| Selector::read("spec.claims", selector, &mut errors));
    let given = [
        spec.policy.is_some(),
        spec.claim.is_some(),
        spec.claims.is_some(),
    ];
    if given.iter().filter(|given| **given).count() > 1 {
        let message =
            "at most one of policy, claim and claims may be given; make a Backup for each";
        errors.add("spec", message);
    }
    if !errors.is_empty() {
        return Err(Refusal::invalid(&errors.into_vec()));
    }
    let here = || {
        let volumes = picture.volumes.iter();
        volumes.filter(|volume| volume.subject.namespace.name == namespace)
    };
    let planned = match (&spec.policy, &spec.claim) {
        (Some(policy), _) => {
            let reference = PolicyReference {
                kind: policy.kind,
                namespace: (policy.kind == PolicyKind::BackupPolicy).then(|| namespace.to_owned()),
                name: policy.name.clone(),
            };
            of_policy(&reference, here(), picture)?
        }
        (None, Some(claim)) => {
            let mut claims = here();
            let found = claims.find(|volume| {
                let named = volume.subject.claim.as_ref();
                named.is_some_and(|named| named.name == *claim)
            });
            let found = found.ok_or_else(|| {
                let names = here().filter_map(|volume| volume.subject.claim.as_ref());
                let names = names.map(|claim| claim.name.clone()).collect();
                let message = format!(
                    "there is no PersistentVolumeClaim '{claim}' in namespace {namespace}{}",
                    instead(names)
                );
                Refusal::missing("ClaimMissing", "spec.claim", message)
            })?;
            Planned {
                volumes: vec![chosen(found)],
                left_out: Vec::new(),
            }
        }
        (None, None) => of_claims(selector.as_ref(), here()),
    };
    if planned.volumes.is_empty() {
        let left = match planned.left_out.len() {
            0 => String::new(),
            left => format!("; {left} are left out: {}", listed(&planned.left_out)),
        };
        let (field, what) = match (&spec.policy, &spec.claims) {
            (Some(policy), _) => ("spec.policy", format!("{} protects no volume", policy.name)),
            (None, Some(_)) => ("spec.claims", "no claim has these labels".to_owned()),
            (None, None) => ("spec", "there is no claim".to_owned()),
        };
        let message = format!("{what} in namespace {namespace}{left}");
        return Err(Refusal::missing("NothingSelected", field, message));
    }
    if spec.deletion_policy == DeletionPolicy::Delete && planned.volumes.len() > MAX_DELETED {
        let message = format!(
            "Delete is for at most {MAX_DELETED} volumes, and these are {}; select fewer, or write Retain",
            planned.volumes.len()
        );
        let errors = [FieldError::new("spec.deletionPolicy", message)];
        return Err(Refusal::invalid(&errors));
    }
    Ok(planned)
}

fn of_policy<'v>(
    reference: &PolicyReference,
    volumes: impl Iterator<Item = &'v Volume>,
    picture: &Picture,
) -> Result<Planned, Refusal> {
    let Some(policy) = picture.policies.get(reference) else {
        let of_kind = picture
            .policies
            .keys()
            .filter(|other| other.kind == reference.kind && other.namespace == reference.namespace);
        let names = of_kind.map(|other| other.name.clone()).collect();
        let message = format!("there is no {reference}{}", instead(names));
        return Err(Refusal::missing(
            "PolicyMissing",
            "spec.policy.name",
            message,
        ));
    };
    if !policy.errors.is_empty() {
        let message = format!(
            "{reference} is not understood ({}); mend it first",
            joined(&policy.errors)
        );
        return Err(Refusal::missing(
            "PolicyInvalid",
            "spec.policy.name",
            message,
        ));
    }
    let mut planned = Planned::default();
    for volume in volumes {
        match &volume.decision.outcome {
            Outcome::Protected(by) if **by == *reference => {
                planned.volumes.push(chosen(volume));
            }
            // Who asks for a run of a suspended policy wants one.
            Outcome::Unprotected {
                reason: Reason::PolicySuspended | Reason::NotMounted,
                policy: Some(by),
                ..
            } if **by == *reference => planned.volumes.push(chosen(volume)),
            Outcome::Unprotected {
                reason,
                policy: Some(by),
                ..
            } if **by == *reference => {
                planned.left_out.push((short(volume), reason.as_str()));
            }
            _ => {}
        }
    }
    Ok(planned)
}

fn of_claims<'v>(
    selector: Option<&Selector>,
    volumes: impl Iterator<Item = &'v Volume>,
) -> Planned {
    let mut planned = Planned::default();
    for volume in volumes {
        let subject = &volume.subject;
        let Some(claim) = &subject.claim else {
            continue;
        };
        if selector.is_some_and(|selector| !selector.matches(&claim.labels)) {
            continue;
        }
        let left_out = match &volume.decision.outcome {
            Outcome::Unprotected { reason, .. } => match reason {
                Reason::ExcludedByAnnotation
                | Reason::ExcludedByLabel
                | Reason::UnsupportedVolume
                | Reason::NamespaceDeleting => Some(reason.as_str()),
                _ => None,
            },
            Outcome::Protected(_) => None,
        };
        match left_out {
            Some(reason) => planned.left_out.push((short(volume), reason)),
            None => planned.volumes.push(chosen(volume)),
        }
    }
    planned
}

fn chosen(volume: &Volume) -> Chosen {
    Chosen {
        volume: volume.subject.id.clone(),
        uid: volume.subject.claim.as_ref().map(|claim| claim.uid.clone()),
    }
}

/// Its name within the namespace.
fn short(volume: &Volume) -> String {
    within(&volume.subject.id).to_owned()
}

/// The name of a history without its namespace.
pub fn within(volume: &str) -> &str {
    volume.split_once('/').map_or(volume, |(_, name)| name)
}

/// Whether it cannot be read at all now, and why.
pub fn unreadable(volume: &Volume) -> Option<(String, String)> {
    let subject = &volume.subject;
    match &subject.state {
        State::Unsupported { reason, detail } => Some((reason.clone(), detail.clone())),
        State::NotMounted if volume.node.is_none() && !volume.is_to_be_mounted() => {
            let what = match subject.kind {
                Some(VolumeKind::EmptyDir) => "its pod does not run",
                _ => {
                    "no running pod uses the claim, so no node has its files; start one, then back up again \
                     (a policy with unmountedClaims: Mount needs none)"
                }
            };
            Some((Reason::NotMounted.as_str().to_owned(), what.to_owned()))
        }
        _ => None,
    }
}

/// The first of what was left out, for people.
pub fn listed(left_out: &[(String, &'static str)]) -> String {
    let named = left_out.iter().take(NAMED);
    let named: Vec<String> = named
        .map(|(name, reason)| format!("{name} ({reason})"))
        .collect();
    let more = left_out.len().saturating_sub(NAMED);
    match more {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn instead(mut names: Vec<String>) -> String {
    names.sort();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    match (names.len(), more) {
        (0, _) => "; there is none at all".to_owned(),
        (_, 0) => format!("; there are: {}", names.join(", ")),
        (_, more) => format!("; there are: {} and {more} more", names.join(", ")),
    }
}
