//! The cluster as far as it is known: the facts of each kind of object, kept up to date by its watch.

use super::facts::{ClaimFacts, Key, PodFacts, VolumeFacts};
use std::collections::{BTreeMap, HashMap};

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
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub struct World {
    pods: Kind<PodFacts>,
    claims: Kind<ClaimFacts>,
    volumes: Kind<VolumeFacts>,
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
        }
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
