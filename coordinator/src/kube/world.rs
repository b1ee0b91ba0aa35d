//! The cluster as far as it is known: the facts of each kind of object, kept up to date by its watch.

use super::facts::{ClaimFacts, ClusterPolicy, Key, NamespaceFacts, PodFacts, Source, VolumeFacts};
use crate::policy::compile::Policy;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// News of one kind of object.
#[derive(Debug)]
pub enum Change<T> {
    /// This is all there is: after a start, or when the watch had to begin anew.
    All(HashMap<Key, T>),
    /// One was made or changed.
    Put(Key, T),
    /// One was deleted.
    Gone(Key),
}

/// News of the cluster.
#[derive(Debug)]
pub enum Update {
    /// Of pods.
    Pods(Change<PodFacts>),
    /// Of claims.
    Claims(Change<ClaimFacts>),
    /// Of persistent volumes.
    Volumes(Change<VolumeFacts>),
    /// Of namespaces.
    Namespaces(Change<NamespaceFacts>),
    /// Of policies of namespaces.
    Policies(Change<Policy>),
    /// Of policies of the cluster.
    ClusterPolicies(Change<ClusterPolicy>),
}

/// The one copy of what is known: its watches write it, everybody reads it. Never held over a wait.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    /// Looks at it.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        // Every change of it is complete before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub struct World {
    pods: Kind<PodFacts>,
    claims: Kind<ClaimFacts>,
    volumes: Kind<VolumeFacts>,
    namespaces: Kind<NamespaceFacts>,
    policies: Kind<Policy>,
    cluster_policies: Kind<ClusterPolicy>,
    /// Which node reads a volume that several have, by the claim's uid.
    pub owners: HashMap<String, String>,
}

#[derive(Debug)]
struct Kind<T> {
    objects: BTreeMap<Key, T>,
    /// Whether all that there are have been listed once.
    listed: bool,
}

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            listed: false,
        }
    }
}

impl<T: PartialEq> Kind<T> {
    /// Whether anything is different now.
    fn take(&mut self, change: Change<T>) -> bool {
        match change {
            Change::All(objects) => {
                let objects: BTreeMap<Key, T> = objects.into_iter().collect();
                let differs = !self.listed || objects != self.objects;
                self.objects = objects;
                self.listed = true;
                differs
            }
            Change::Put(key, object) => {
                let differs = self.objects.get(&key) != Some(&object);
                self.objects.insert(key, object);
                differs
            }
            Change::Gone(key) => self.objects.remove(&key).is_some(),
        }
    }
}

impl World {
    /// Takes news in; whether they matter here.
    pub fn take(&mut self, update: Update) -> bool {
        match update {
            Update::Pods(change) => self.pods.take(change),
            Update::Claims(change) => self.claims.take(change),
            Update::Volumes(change) => self.volumes.take(change),
            Update::Namespaces(change) => self.namespaces.take(change),
            Update::Policies(change) => self.policies.take(change),
            Update::ClusterPolicies(change) => self.cluster_policies.take(change),
        }
    }

    /// Whether what policies go by has been listed too. Without the definitions of their kinds it never is.
    pub fn has_policies(&self) -> bool {
        self.is_whole()
            && self.namespaces.listed
            && self.policies.listed
            && self.cluster_policies.listed
    }

    /// All policies.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        let cluster = self
            .cluster_policies
            .objects
            .values()
            .map(|policy| &policy.0);
        self.policies.objects.values().chain(cluster)
    }

    /// All namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &NamespaceFacts> {
        self.namespaces.objects.values()
    }

    /// A namespace.
    pub fn namespace(&self, name: &str) -> Option<&NamespaceFacts> {
        let key = (String::new(), name.to_owned());
        self.namespaces.objects.get(&key)
    }

    /// The pods of a namespace.
    pub fn pods_of<'w>(&'w self, namespace: &'w str) -> impl Iterator<Item = &'w PodFacts> {
        let from = (namespace.to_owned(), String::new());
        let pods = self.pods.objects.range(from..);
        pods.take_while(move |((of, _), _)| of == namespace)
            .map(|(_, pod)| pod)
    }

    /// The pods that name a claim, whatever has become of them.
    pub fn users<'w>(
        &'w self,
        namespace: &'w str,
        claim: &'w str,
    ) -> impl Iterator<Item = &'w PodFacts> {
        self.pods_of(namespace).filter(move |pod| {
            let mut volumes = pod.volumes.iter();
            volumes.any(|volume| matches!(&volume.source, Source::Claim(of) if of == claim))
        })
    }

    /// A pod.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&PodFacts> {
        let key = (namespace.to_owned(), name.to_owned());
        self.pods.objects.get(&key)
    }

    /// Whether all namespaces have been listed.
    pub fn has_namespaces(&self) -> bool {
        self.namespaces.listed
    }

    /// All claims.
    pub fn claims(&self) -> impl Iterator<Item = &ClaimFacts> {
        self.claims.objects.values()
    }

    /// Whether every kind has been listed: before that, what is missing may only be unknown.
    pub fn is_whole(&self) -> bool {
        self.pods.listed && self.claims.listed && self.volumes.listed
    }

    /// All pods, by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &PodFacts> {
        self.pods.objects.values()
    }

    /// A claim.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&ClaimFacts> {
        let key = (namespace.to_owned(), name.to_owned());
        self.claims.objects.get(&key)
    }

    /// A persistent volume.
    pub fn volume(&self, name: &str) -> Option<&VolumeFacts> {
        self.volumes.objects.get(&(String::new(), name.to_owned()))
    }
}
