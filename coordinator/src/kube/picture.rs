//! The cluster as policies see it: every volume, what was decided about it, and who reads it. Drawn anew when
//! something changes; pure.

use super::subjects::subjects;
use super::world::World;
use crate::kube::api::{PolicyKind, PolicyReference, PolicySpec};
use crate::policy::compile::Policy;
use crate::policy::due::Rhythm;
use crate::policy::error::Errors;
use crate::policy::hooks::{self, Hook};
use crate::policy::orders::order;
use crate::policy::select::Explanation;
use crate::policy::subject::State;
use crate::policy::validate::Scope;
use crate::policy::values::duration;
use crate::policy::{Decision, FieldError, Outcome, Policies, Subject};
use holdfast_proto::v1::{BackupOrder, ExplainReply, ExplainedPolicy, NodePlan};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashMap, HashSet};

/// One look at the cluster.
pub struct Picture {
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// Its policies.
    pub policies: HashMap<PolicyReference, PolicyFacts>,
    /// The namespaces that are being deleted.
    pub deleting: HashSet<String>,
    deciding: Policies,
    places: HashMap<String, usize>,
}

/// A volume.
pub struct Volume {
    /// The volume.
    pub subject: Subject,
    /// What was decided about it.
    pub decision: Decision,
    /// The node that reads it; `None`: none does now.
    pub node: Option<String>,
}

impl Volume {
    /// Whether no pod uses it, and its policy has one made for its runs.
    pub fn is_to_be_mounted(&self) -> bool {
        self.subject.state == State::NotMounted
            && self.subject.claim.is_some()
            && matches!(self.decision.outcome, Outcome::Protected(_))
    }
}

/// A policy, read.
pub struct PolicyFacts {
    /// Its uid.
    pub uid: String,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// When it was made.
    pub created: Timestamp,
    /// What it says.
    pub spec: PolicySpec,
    /// What is done before and after its runs.
    pub hooks: Vec<Hook>,
    /// What makes its runs due; `None` where it is not understood.
    pub rhythm: Option<Rhythm>,
    /// How long a run may take.
    pub time_limit: Option<SignedDuration>,
    /// What is wrong with it.
    pub errors: Vec<FieldError>,
}

impl Picture {
    /// Draws it.
    pub fn draw(world: &World, plans: &BTreeMap<String, NodePlan>) -> Self {
        let mut nodes: HashMap<&str, &str> = HashMap::new();
        for (node, plan) in plans {
            let read = plan
                .volumes
                .iter()
                .filter(|volume| volume.reason.is_empty());
            let names = read.filter_map(|volume| volume.facts.as_ref());
            nodes.extend(names.map(|facts| (&facts.name[..], &node[..])));
        }
        let policies = world.policies().cloned();
        let drawn = Self::of(policies, subjects(world), |name| {
            nodes.get(name).map(|node| (*node).to_owned())
        });
        let deleting = world.namespaces().filter(|namespace| namespace.deleting);
        Self {
            deleting: deleting.map(|namespace| namespace.name.clone()).collect(),
            ..drawn
        }
    }

    /// Decides about volumes; `node_of` says who reads one.
    pub fn of(
        policies: impl IntoIterator<Item = Policy>,
        subjects: Vec<Subject>,
        node_of: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let policies = Policies::new(policies);
        let places = subjects.iter().enumerate();
        let places = places.map(|(at, subject)| (subject.id.clone(), at));
        let places = places.collect();
        let decisions = policies.decide_all(&subjects);
        let volumes = subjects.into_iter().zip(decisions);
        Self {
            volumes: volumes
                .map(|(subject, decision)| Volume {
                    node: node_of(&subject.id),
                    subject,
                    decision,
                })
                .collect(),
            policies: policies
                .iter()
                .map(|(policy, errors)| {
                    let facts = PolicyFacts {
                        uid: policy.uid.clone(),
                        generation: policy.generation,
                        created: policy.created,
                        hooks: hooks_of(policy),
                        rhythm: Rhythm::read(&policy.spec, &mut Errors::default()),
                        time_limit: limit(policy.spec.deadline.as_deref()),
                        spec: policy.spec.clone(),
                        errors: errors.to_vec(),
                    };
                    (policy.reference.clone(), facts)
                })
                .collect(),
            deleting: HashSet::new(),
            deciding: policies,
            places,
        }
    }

    /// A volume, by the name of its history.
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.get(*self.places.get(name)?)
    }

    /// What an agent is asked for when a volume is backed up: as its policy says; `None` where none protects it.
    pub fn order_of(&self, name: &str) -> Option<BackupOrder> {
        let volume = self.volume(name)?;
        match &volume.decision.outcome {
            Outcome::Protected(reference) => {
                let policy = self.policies.get(&**reference)?;
                Some(order(&policy.spec, name))
            }
            Outcome::Unprotected { .. } => None,
        }
    }

    /// Why a volume is protected or not; `None` where there is no such volume.
    pub fn explain(&self, name: &str) -> Option<ExplainReply> {
        let volume = self.volume(name)?;
        let Explanation {
            decision,
            word,
            trace,
        } = self.deciding.explain(&volume.subject);
        let (policy, reason, detail) = match decision.outcome {
            Outcome::Protected(policy) => (Some(policy), String::new(), String::new()),
            Outcome::Unprotected {
                reason,
                message,
                policy,
            } => (policy, reason.to_string(), message),
        };
        let deciding = policy
            .as_deref()
            .and_then(|policy| self.policies.get(policy));
        let pods = volume.subject.pods.iter();
        let pods: Vec<_> = pods.map(|pod| (&pod.name[..], &pod.annotations)).collect();
        let policy_hooks = deciding.map(|policy| &policy.hooks[..]).unwrap_or_default();
        let hooks = hooks::explain(policy_hooks, &pods);
        let overruled = |policy: &PolicyReference| {
            let mut overruled = decision.overruled.iter();
            overruled.find(|other| *other.policy == *policy)
        };
        Some(ExplainReply {
            policy: policy.map(|policy| policy.to_string()).unwrap_or_default(),
            reason,
            detail,
            said: word.unwrap_or_default(),
            node: volume.node.clone().unwrap_or_default(),
            policies: trace
                .iter()
                .map(|trace| ExplainedPolicy {
                    policy: trace.policy.to_string(),
                    verdict: match overruled(&trace.policy) {
                        Some(other) => format!("{}; {}", trace.verdict, other.why),
                        None => trace.verdict.to_string(),
                    },
                })
                .collect(),
            hooks,
            problems: decision
                .problems
                .iter()
                .map(|problem| problem.message.clone())
                .collect(),
            // Whoever starts runs knows.
            next_run_ns: 0,
        })
    }
}

fn hooks_of(policy: &Policy) -> Vec<Hook> {
    let scope = match policy.reference.kind {
        PolicyKind::BackupPolicy => Scope::Namespace,
        PolicyKind::ClusterBackupPolicy => Scope::Cluster,
    };
    hooks::read(&policy.spec, scope, &mut Errors::default())
}

fn limit(text: Option<&str>) -> Option<SignedDuration> {
    SignedDuration::try_from(duration(text?).ok()?).ok()
}
