//! A policy's selection, read once: globs, selectors and sizes as values, and whether a volume meets them.

use crate::kube::api::{
    AnnotationMatch, BackupPolicy, ClusterBackupPolicy, PolicyKind, PolicyReference, PolicySpec,
    Selection, SelectionMode, VolumeKind,
};
use crate::policy::error::{Errors, FieldError};
use crate::policy::glob::Glob;
use crate::policy::labels::Selector;
use crate::policy::subject::{Namespace, Subject};
use crate::policy::values::bytes;
use crate::policy::words::{Says, Word};
use jiff::Timestamp;

/// A policy, wherever it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its kind, namespace and name.
    pub reference: PolicyReference,
    /// Its uid; of a file's policy its kind and name.
    pub uid: String,
    /// The generation of its spec, where there are any.
    pub generation: Option<i64>,
    /// When it was made.
    pub created: Timestamp,
    /// What it says.
    pub spec: PolicySpec,
    /// Why it could not be read; empty: it could. What it says is not known then.
    pub misread: Vec<FieldError>,
}

impl From<&BackupPolicy> for Policy {
    fn from(policy: &BackupPolicy) -> Self {
        let meta = &policy.metadata;
        let namespace = Some(meta.namespace.clone().unwrap_or_default());
        Self::of(PolicyKind::BackupPolicy, namespace, meta, &policy.spec)
    }
}

impl From<&ClusterBackupPolicy> for Policy {
    fn from(policy: &ClusterBackupPolicy) -> Self {
        let kind = PolicyKind::ClusterBackupPolicy;
        Self::of(kind, None, &policy.metadata, &policy.spec)
    }
}

impl Policy {
    /// One that could not be read.
    pub fn misread(
        kind: PolicyKind,
        meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
        misread: Vec<FieldError>,
    ) -> Self {
        let namespace = match kind {
            PolicyKind::BackupPolicy => Some(meta.namespace.clone().unwrap_or_default()),
            PolicyKind::ClusterBackupPolicy => None,
        };
        Self {
            misread,
            ..Self::of(kind, namespace, meta, &PolicySpec::default())
        }
    }

    fn of(
        kind: PolicyKind,
        namespace: Option<String>,
        meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
        spec: &PolicySpec,
    ) -> Self {
        let name = meta.name.clone().unwrap_or_default();
        let reference = PolicyReference {
            kind,
            namespace,
            name,
        };
        let created = meta.creation_timestamp.as_ref();
        Self {
            // What was not read from an API server has no uid.
            uid: meta.uid.clone().unwrap_or_else(|| reference.to_string()),
            generation: meta.generation,
            created: created.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            reference,
            spec: spec.clone(),
            misread: Vec::new(),
        }
    }
}

/// A selection that is understood.
#[derive(Clone, Debug)]
pub struct Conditions {
    mode: SelectionMode,
    include: Vec<Glob>,
    exclude: Vec<Glob>,
    included_volumes: Vec<Glob>,
    excluded_volumes: Vec<Glob>,
    namespace: Option<Selector>,
    pod: Option<Selector>,
    claim: Option<Selector>,
    annotations: Vec<AnnotationMatch>,
    storage_classes: Vec<Glob>,
    drivers: Vec<Glob>,
    access_modes: Vec<&'static str>,
    min_bytes: Option<u64>,
    max_bytes: Option<u64>,
    kinds: Vec<VolumeKind>,
}

/// A condition that a volume does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// The policy's list of excluded namespaces has the volume's.
    NamespaceExcluded,
    /// Its list of namespaces does not.
    Namespaces,
    /// The namespace's labels.
    NamespaceSelector,
    /// The policy's list of excluded volumes has it.
    VolumeExcluded,
    /// Its list of volumes does not.
    Volumes,
    /// The kind of the volume.
    Kinds,
    /// The claim's labels.
    ClaimSelector,
    /// The pods' labels.
    PodSelector,
    /// The annotations.
    Annotations,
    /// The storage class.
    StorageClasses,
    /// The driver.
    Drivers,
    /// The access modes.
    AccessModes,
    /// The size.
    MinSize,
    /// The size.
    MaxSize,
    /// The volume would have to ask for it.
    NotAskedFor,
}

impl Unmet {
    /// The field of the policy.
    pub fn field(self) -> &'static str {
        match self {
            Self::NamespaceExcluded => "spec.selection.namespaces.exclude",
            Self::Namespaces => "spec.selection.namespaces.include",
            Self::NamespaceSelector => "spec.selection.namespaceSelector",
            Self::VolumeExcluded => "spec.selection.volumes.exclude",
            Self::Volumes => "spec.selection.volumes.include",
            Self::Kinds => "spec.selection.kinds",
            Self::ClaimSelector => "spec.selection.claimSelector",
            Self::PodSelector => "spec.selection.podSelector",
            Self::Annotations => "spec.selection.annotations",
            Self::StorageClasses => "spec.selection.storageClasses",
            Self::Drivers => "spec.selection.drivers",
            Self::AccessModes => "spec.selection.accessModes",
            Self::MinSize => "spec.selection.minSize",
            Self::MaxSize => "spec.selection.maxSize",
            Self::NotAskedFor => "spec.selection.mode",
        }
    }
}

impl Conditions {
    /// Reads a selection at a path, and notes mistakes.
    pub fn read(path: &str, selection: &Selection, errors: &mut Errors) -> Self {
        let names = selection.namespaces.clone().unwrap_or_default();
        let volumes = selection.volumes.clone().unwrap_or_default();
        let size = |name: &str, text: &Option<String>, errors: &mut Errors| {
            let text = text.as_ref()?;
            errors.check(&format!("{path}.{name}"), bytes(text))
        };
        let min_bytes = size("minSize", &selection.min_size, errors);
        let max_bytes = size("maxSize", &selection.max_size, errors);
        if let (Some(min), Some(max)) = (min_bytes, max_bytes)
            && min > max
        {
            let message = "is smaller than minSize: no volume has such a size";
            errors.add(format!("{path}.maxSize"), message);
        }
        if selection.kinds.is_empty() {
            let message = "is empty; leave it out, or name PersistentVolumeClaim or EmptyDir";
            errors.add(format!("{path}.kinds"), message);
        }
        let mut selector = |name: &str, selector: &Option<_>| {
            let selector = selector.as_ref()?;
            Some(Selector::read(&format!("{path}.{name}"), selector, errors))
        };
        Self {
            mode: selection.mode,
            namespace: selector("namespaceSelector", &selection.namespace_selector),
            pod: selector("podSelector", &selection.pod_selector),
            claim: selector("claimSelector", &selection.claim_selector),
            include: globs(
                &format!("{path}.namespaces.include"),
                &names.include,
                errors,
            ),
            exclude: globs(
                &format!("{path}.namespaces.exclude"),
                &names.exclude,
                errors,
            ),
            included_volumes: globs(&format!("{path}.volumes.include"), &volumes.include, errors),
            excluded_volumes: globs(&format!("{path}.volumes.exclude"), &volumes.exclude, errors),
            annotations: selection.annotations.clone(),
            storage_classes: globs(
                &format!("{path}.storageClasses"),
                &selection.storage_classes,
                errors,
            ),
            drivers: globs(&format!("{path}.drivers"), &selection.drivers, errors),
            access_modes: selection
                .access_modes
                .iter()
                .map(|mode| mode.name())
                .collect(),
            min_bytes,
            max_bytes,
            kinds: selection.kinds.clone(),
        }
    }

    /// A label that every claim has which matches.
    pub fn required_label(&self) -> Option<(&str, &str)> {
        self.claim.as_ref()?.required()
    }

    /// The first condition on the namespace that does not hold.
    pub fn unmet_by_namespace(&self, namespace: &Namespace) -> Option<Unmet> {
        let has = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(&namespace.name));
        if has(&self.exclude) {
            return Some(Unmet::NamespaceExcluded);
        }
        if !self.include.is_empty() && !has(&self.include) {
            return Some(Unmet::Namespaces);
        }
        let selector = self.namespace.as_ref()?;
        (!selector.matches(&namespace.labels)).then_some(Unmet::NamespaceSelector)
    }

    /// The first other condition that does not hold.
    pub fn unmet_by_volume(&self, subject: &Subject, word: Option<&Word>) -> Option<Unmet> {
        let asks = word.filter(|word| word.says == Says::Yes);
        // Who names a volume means it, whatever its kind.
        let is_named = asks.is_some_and(|word| word.names_volume);
        let claim = subject.claim.as_ref();
        if is_named_by(&self.excluded_volumes, subject) {
            return Some(Unmet::VolumeExcluded);
        }
        if !self.included_volumes.is_empty() && !is_named_by(&self.included_volumes, subject) {
            return Some(Unmet::Volumes);
        }
        let fits = |kind| is_named || self.kinds.contains(&kind);
        if !subject.kind.is_some_and(fits) {
            return Some(Unmet::Kinds);
        }
        if let Some(selector) = &self.claim
            && !claim.is_some_and(|claim| selector.matches(&claim.labels))
        {
            return Some(Unmet::ClaimSelector);
        }
        if let Some(selector) = &self.pod
            && !subject.pods.iter().any(|pod| selector.matches(&pod.labels))
        {
            return Some(Unmet::PodSelector);
        }
        if !self
            .annotations
            .iter()
            .all(|wanted| has_annotation(subject, wanted))
        {
            return Some(Unmet::Annotations);
        }
        let class = claim.and_then(|claim| claim.storage_class.as_deref());
        if !is_among(&self.storage_classes, class) {
            return Some(Unmet::StorageClasses);
        }
        if !is_among(&self.drivers, subject.driver.as_deref()) {
            return Some(Unmet::Drivers);
        }
        let modes = claim.map_or(&[][..], |claim| &claim.access_modes);
        let has_mode = modes
            .iter()
            .any(|mode| self.access_modes.contains(&mode.as_str()));
        if !self.access_modes.is_empty() && !has_mode {
            return Some(Unmet::AccessModes);
        }
        let size = claim.and_then(|claim| claim.size_bytes);
        if self
            .min_bytes
            .is_some_and(|min| size.is_none_or(|size| size < min))
        {
            return Some(Unmet::MinSize);
        }
        if self
            .max_bytes
            .is_some_and(|max| size.is_none_or(|size| size > max))
        {
            return Some(Unmet::MaxSize);
        }
        (self.mode == SelectionMode::Annotated && asks.is_none()).then_some(Unmet::NotAskedFor)
    }

    /// Why a condition is not met, with the values.
    pub fn explain(&self, unmet: Unmet, subject: &Subject) -> String {
        let namespace = &subject.namespace;
        let claim = subject.claim.as_ref();
        let texts = |globs: &[Glob]| globs.iter().map(Glob::text).collect::<Vec<_>>().join(", ");
        let or_none =
            |text: Option<&str>| text.map_or("none".to_owned(), |text| format!("'{text}'"));
        let size = || {
            let size = claim.and_then(|claim| claim.size_bytes);
            size.map_or("is not known".to_owned(), |size| format!("is {size} bytes"))
        };
        match unmet {
            Unmet::NamespaceExcluded => format!(
                "namespace '{}' is in: {}",
                namespace.name,
                texts(&self.exclude)
            ),
            Unmet::Namespaces => format!(
                "namespace '{}' is not in: {}",
                namespace.name,
                texts(&self.include)
            ),
            Unmet::NamespaceSelector => {
                let failed = self
                    .namespace
                    .as_ref()
                    .and_then(|selector| selector.failed(&namespace.labels));
                format!(
                    "labels of namespace '{}': {}",
                    namespace.name,
                    failed.unwrap_or_default()
                )
            }
            Unmet::VolumeExcluded => format!(
                "volume '{}' is in: {}",
                subject.id,
                texts(&self.excluded_volumes)
            ),
            Unmet::Volumes => format!(
                "volume '{}' is not in: {}",
                subject.id,
                texts(&self.included_volumes)
            ),
            Unmet::Kinds => {
                let kinds: Vec<String> = self.kinds.iter().map(VolumeKind::to_string).collect();
                let kind = subject.kind.map(|kind| kind.to_string());
                format!(
                    "the volume's kind is {}, not {}",
                    or_none(kind.as_deref()),
                    kinds.join(" or ")
                )
            }
            Unmet::ClaimSelector => match (claim, &self.claim) {
                (Some(claim), Some(selector)) => {
                    let failed = selector.failed(&claim.labels).unwrap_or_default();
                    format!("labels of claim '{}': {failed}", claim.name)
                }
                _ => "the volume has no claim".to_owned(),
            },
            Unmet::PodSelector => match (subject.pods.first(), &self.pod) {
                (Some(pod), Some(selector)) => {
                    let failed = selector.failed(&pod.labels).unwrap_or_default();
                    let others = match subject.pods.len() - 1 {
                        0 => String::new(),
                        others => format!(" (nor do {others} other pods match)"),
                    };
                    format!("labels of pod '{}': {failed}{others}", pod.name)
                }
                _ => "no pod uses the volume".to_owned(),
            },
            Unmet::Annotations => {
                let missing = self
                    .annotations
                    .iter()
                    .find(|wanted| !has_annotation(subject, wanted));
                missing.map_or(String::new(), |wanted| match &wanted.value {
                    Some(value) => format!("annotation {} is not '{value}'", wanted.key),
                    None => format!("there is no annotation {}", wanted.key),
                })
            }
            Unmet::StorageClasses => {
                let class = claim.and_then(|claim| claim.storage_class.as_deref());
                format!(
                    "storage class is {}, not: {}",
                    or_none(class),
                    texts(&self.storage_classes)
                )
            }
            Unmet::Drivers => {
                let driver = subject.driver.as_deref();
                format!(
                    "driver is {}, not: {}",
                    or_none(driver),
                    texts(&self.drivers)
                )
            }
            Unmet::AccessModes => {
                let modes = claim.map_or(String::new(), |claim| claim.access_modes.join(", "));
                format!(
                    "access modes are '{modes}', none of: {}",
                    self.access_modes.join(", ")
                )
            }
            Unmet::MinSize => format!(
                "its size {}, less than {} bytes",
                size(),
                self.min_bytes.unwrap_or(0)
            ),
            Unmet::MaxSize => format!(
                "its size {}, more than {} bytes",
                size(),
                self.max_bytes.unwrap_or(0)
            ),
            Unmet::NotAskedFor => "mode is Annotated, and neither claim, pod nor namespace has \
                                   holdfast.dev/backup: \"true\""
                .to_owned(),
        }
    }
}

/// Annotations are looked for on the claim, or on the pods of what has none.
fn has_annotation(subject: &Subject, wanted: &AnnotationMatch) -> bool {
    let is_right = |value: &String| wanted.value.as_ref().is_none_or(|wanted| wanted == value);
    match &subject.claim {
        Some(claim) => claim.annotations.get(&wanted.key).is_some_and(is_right),
        None => {
            let mut pods = subject.pods.iter();
            pods.any(|pod| pod.annotations.get(&wanted.key).is_some_and(is_right))
        }
    }
}

/// By its name with its namespace, or without.
fn is_named_by(globs: &[Glob], subject: &Subject) -> bool {
    let name = &subject.id[..];
    let alone = name.strip_prefix(&subject.namespace.name[..]);
    let alone = alone.and_then(|rest| rest.strip_prefix('/'));
    let mut globs = globs.iter();
    globs.any(|glob| glob.matches(name) || alone.is_some_and(|alone| glob.matches(alone)))
}

fn is_among(globs: &[Glob], name: Option<&str>) -> bool {
    globs.is_empty() || name.is_some_and(|name| globs.iter().any(|glob| glob.matches(name)))
}

fn globs(path: &str, texts: &[String], errors: &mut Errors) -> Vec<Glob> {
    let read = |(index, text): (usize, &String)| {
        errors.check(&format!("{path}[{index}]"), Glob::new(text))
    };
    texts.iter().enumerate().filter_map(read).collect()
}
