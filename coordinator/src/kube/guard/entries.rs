//! What the queue and the runs are told of a volume. Pure.

use crate::kube::api::PolicyReference;
use crate::kube::picture::{Picture, PolicyFacts, Volume};
use crate::kube::runs::Ended;
use crate::policy::Outcome;
use crate::policy::due::Bound;
use crate::policy::queue::Entry;
use crate::schedule::{ContinuousRule, VolumePattern};
use holdfast_format::id::JobId;
use holdfast_proto::v1::JobInfo;
use jiff::Timestamp;

/// A run of a volume, for the queue.
pub fn entry(
    volume: &Volume,
    policy: Option<&PolicyFacts>,
    reference: &str,
    now: Timestamp,
) -> Entry {
    let limits = policy.and_then(|policy| policy.spec.limits.as_ref());
    Entry {
        volume: volume.subject.id.clone(),
        node: volume.node.clone(),
        namespace: volume.subject.namespace.name.clone(),
        policy: reference.to_owned(),
        priority: policy.map_or(0, |policy| policy.spec.priority),
        due: now,
        start_by: None,
        time_limit: policy.and_then(|policy| policy.time_limit),
        max_per_node: limits
            .and_then(|limits| limits.max_concurrent_per_node)
            .and_then(|most| usize::try_from(most).ok()),
        attempt: 0,
    }
}

/// What `schedule::continuous` goes by for a volume under this bound.
pub fn rule(bound: &Bound) -> ContinuousRule {
    ContinuousRule {
        max_bytes: bound.max_bytes,
        quiet: bound.quiet,
        min_interval: bound.min_interval,
        // The name is matched by the map; the pattern is never asked.
        ..ContinuousRule::new(VolumePattern::any(), bound.max_age)
    }
}

/// How a job ended, for the runs that wanted it.
pub fn end_of(picture: &Picture, info: &JobInfo) -> Ended {
    let volume = picture.volume(&info.volume);
    let claim = volume.and_then(|volume| volume.subject.claim.as_ref());
    // An id of ours, or one that an agent made up.
    let id = <[u8; 16]>::try_from(&info.id[..]).unwrap_or_default();
    Ended {
        volume: info.volume.clone(),
        job: JobId::from_bytes(id),
        report: info.last.clone().unwrap_or_default(),
        is_retried: false,
        is_overdue: false,
        uid: claim.map(|claim| claim.uid.clone()),
    }
}

/// The policy that protects a volume, and its name.
pub fn protected_by<'p>(
    picture: &'p Picture,
    volume: &'p Volume,
) -> Option<(&'p PolicyFacts, &'p PolicyReference)> {
    match &volume.decision.outcome {
        Outcome::Protected(reference) => {
            let policy = picture.policies.get(&**reference)?;
            Some((policy, reference))
        }
        Outcome::Unprotected { .. } => None,
    }
}
