//! What was decided about a volume, and why.

use crate::kube::api::{PolicyKind, PolicyReference};
use crate::policy::words::Problem;
use std::fmt;
use std::sync::Arc;

/// So many policies that are overruled are told; more are not looked for.
pub const MAX_OVERRULED: usize = 16;

/// About one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Protected by what, or not and why.
    pub outcome: Outcome,
    /// The other policies that match, in the order in which they would follow; at most `MAX_OVERRULED`.
    pub overruled: Vec<Overruled>,
    /// What is wrong but does not change the outcome.
    pub problems: Vec<Problem>,
}

/// Protected or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By this policy.
    Protected(Arc<PolicyReference>),
    /// Not.
    Unprotected {
        /// Why, as one stable word.
        reason: Reason,
        /// Why, for people.
        message: String,
        /// The policy that has to do with it.
        policy: Option<Arc<PolicyReference>>,
    },
}

impl Outcome {
    /// Whether the volume is no policy's, nor kept out: rules of the settings may hold for it.
    pub fn is_left_to_rules(&self) -> bool {
        match self {
            Self::Protected(_) => false,
            Self::Unprotected { reason, .. } => match reason {
                Reason::NoPolicyMatches
                | Reason::NotAskedFor
                | Reason::ExcludedByPolicy
                | Reason::PolicyInvalid
                | Reason::PolicyNotFound
                | Reason::PolicyNotForNamespace => true,
                Reason::ExcludedByAnnotation
                | Reason::ExcludedByLabel
                | Reason::UnsupportedVolume
                | Reason::NamespaceDeleting
                | Reason::PolicySuspended
                | Reason::NotMounted
                | Reason::ClaimNotBound
                | Reason::ReadWriteOncePod => false,
            },
        }
    }
}

/// Why a volume is not protected. The words are part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No policy is for it.
    NoPolicyMatches,
    /// A policy would be, if the volume asked for it.
    NotAskedFor,
    /// An annotation says no.
    ExcludedByAnnotation,
    /// A label says no.
    ExcludedByLabel,
    /// The only policies for the namespaces exclude this one.
    ExcludedByPolicy,
    /// It cannot be read.
    UnsupportedVolume,
    /// It goes away with its namespace.
    NamespaceDeleting,
    /// Its policy is not understood.
    PolicyInvalid,
    /// Its policy is suspended.
    PolicySuspended,
    /// The policy that it asks for does not exist.
    PolicyNotFound,
    /// The policy that it asks for is not for its namespace.
    PolicyNotForNamespace,
    /// No pod uses it, and its policy has none made.
    NotMounted,
    /// No pod uses it, and there is no volume to mount.
    ClaimNotBound,
    /// No pod uses it, and one of ours would keep those away that want to.
    ReadWriteOncePod,
}

impl Reason {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPolicyMatches => "NoPolicyMatches",
            Self::NotAskedFor => "NotAskedFor",
            Self::ExcludedByAnnotation => "ExcludedByAnnotation",
            Self::ExcludedByLabel => "ExcludedByLabel",
            Self::ExcludedByPolicy => "ExcludedByPolicy",
            Self::UnsupportedVolume => "UnsupportedVolume",
            Self::NamespaceDeleting => "NamespaceDeleting",
            Self::PolicyInvalid => "PolicyInvalid",
            Self::PolicySuspended => "PolicySuspended",
            Self::PolicyNotFound => "PolicyNotFound",
            Self::PolicyNotForNamespace => "PolicyNotForNamespace",
            Self::NotMounted => "NotMounted",
            Self::ClaimNotBound => "ClaimNotBound",
            Self::ReadWriteOncePod => "ReadWriteOncePod",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A policy that matches, but does not protect the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overruled {
    /// Which.
    pub policy: Arc<PolicyReference>,
    /// What puts the other one before it.
    pub why: Why,
}

/// What puts a policy before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The claim asks for it.
    AskedFor,
    /// A BackupPolicy goes before a ClusterBackupPolicy.
    OfNamespace,
    /// Its priority, and the other's.
    Priority(i32, i32),
    /// It is older.
    Older,
    /// Of two as old, its name is first.
    Name,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AskedFor => f.write_str("the claim asks for the other one"),
            Self::OfNamespace => {
                let (first, second) = (PolicyKind::BackupPolicy, PolicyKind::ClusterBackupPolicy);
                write!(f, "a {first} goes before a {second}")
            }
            Self::Priority(first, second) => {
                write!(f, "the other one has priority {first}, this one {second}")
            }
            Self::Older => f.write_str("of the same priority, the older one protects"),
            Self::Name => f.write_str("of the same priority and age, the first by name protects"),
        }
    }
}

/// A decision with what every policy contributed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What was decided.
    pub decision: Decision,
    /// What the volume's own objects say.
    pub word: Option<String>,
    /// The policies of its namespace and of the cluster, in the order in which they are asked.
    pub trace: Vec<Trace>,
}

/// What one policy contributed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Which.
    pub policy: Arc<PolicyReference>,
    /// Whether it matches.
    pub verdict: Verdict,
}

/// Whether a policy matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Matches,
    /// It does not: the first condition that does not hold.
    Unmet {
        /// The field of the policy.
        field: &'static str,
        /// The values that do not fit.
        detail: String,
    },
    /// It is not understood.
    Invalid(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matches => f.write_str("matches"),
            Self::Unmet { field, detail } => write!(f, "does not match: {field}: {detail}"),
            Self::Invalid(errors) => write!(f, "is not understood: {errors}"),
        }
    }
}

impl Decision {
    /// Protected.
    pub(super) fn with(policy: &Arc<PolicyReference>) -> Self {
        Self {
            outcome: Outcome::Protected(Arc::clone(policy)),
            overruled: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Not protected.
    pub(super) fn without(reason: Reason, message: String) -> Self {
        Self {
            outcome: Outcome::Unprotected {
                reason,
                message,
                policy: None,
            },
            overruled: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// The same, and names the policy that has to do with it.
    pub(super) fn of(mut self, by: &Arc<PolicyReference>) -> Self {
        if let Outcome::Unprotected { policy, .. } = &mut self.outcome {
            *policy = Some(Arc::clone(by));
        }
        self
    }

    /// The policy that protects it.
    #[cfg(test)]
    pub fn policy(&self) -> Option<&PolicyReference> {
        match &self.outcome {
            Outcome::Protected(policy) => Some(policy),
            Outcome::Unprotected { .. } => None,
        }
    }
}
