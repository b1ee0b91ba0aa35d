//! One watch for each kind of object. A watch lists in pages, then follows; where the server has forgotten
//! its place (410 Gone) it lists again, and one that breaks begins again with growing pauses.

use super::facts::{ClaimFacts, ClusterPolicy, Facts, NamespaceFacts, PodFacts, VolumeFacts, key};
use super::lenient::Lenient;
use super::world::{Change, Update};
use crate::policy::compile::Policy;
use futures::StreamExt;
use holdfast_runtime::shutdown::Shutdown;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt::Debug;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// News that wait to be taken in.
const WAITING: usize = 1024;

/// Watches all kinds; the news of them.
pub fn start(client: &Client, stopping: &Shutdown) -> Receiver<Update> {
    let (sender, receiver) = mpsc::channel(WAITING);
    follow::<PodFacts, _>(client, stopping, sender.clone(), Update::Pods);
    follow::<ClaimFacts, _>(client, stopping, sender.clone(), Update::Claims);
    follow::<VolumeFacts, _>(client, stopping, sender.clone(), Update::Volumes);
    follow::<NamespaceFacts, _>(client, stopping, sender.clone(), Update::Namespaces);
    follow::<Policy, _>(client, stopping, sender.clone(), Update::Policies);
    follow::<ClusterPolicy, _>(client, stopping, sender, Update::ClusterPolicies);
    receiver
}

/// Watches one kind, for a controller of its own; the news of it.
pub fn one<F>(client: &Client, stopping: &Shutdown) -> Receiver<Change<F>>
where
    F: Facts,
    F::Object: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING);
    follow::<F, Change<F>>(client, stopping, sender, |change| change);
    receiver
}

fn follow<F, U>(
    client: &Client,
    stopping: &Shutdown,
    news: Sender<U>,
    as_update: fn(Change<F>) -> U,
) where
    F: Facts,
    U: Send + 'static,
    F::Object: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<Lenient<F::Object>> = Api::all(client.clone());
    let stopping = stopping.clone();
    tokio::spawn(async move {
        let kind = F::Object::plural(&());
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        let mut listed = HashMap::new();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = stopping.requested() => return,
            };
            let change = match event {
                None => return,
                Some(Ok(Event::Init)) => {
                    listed.clear();
                    continue;
                }
                Some(Ok(Event::InitApply(object))) => {
                    let key = key(object.meta());
                    if let Some(facts) = read::<F>(object) {
                        listed.insert(key, facts);
                    }
                    continue;
                }
                Some(Ok(Event::InitDone)) => Change::All(std::mem::take(&mut listed)),
                Some(Ok(Event::Apply(object))) => {
                    let key = key(object.meta());
                    match read::<F>(object) {
                        Some(facts) => Change::Put(key, facts),
                        None => Change::Gone(key),
                    }
                }
                Some(Ok(Event::Delete(object))) => Change::Gone(key(object.meta())),
                Some(Err(error)) => {
                    tracing::warn!(%error, kind = &*kind, "the cluster's API cannot be watched; agents go on by their plans");
                    continue;
                }
            };
            if news.send(as_update(change)).await.is_err() {
                return;
            }
        }
    });
}

/// One that cannot be read is named, and holds up no other.
fn read<F: Facts>(object: Lenient<F::Object>) -> Option<F>
where
    F::Object: Resource<DynamicType = ()>,
{
    match object.0 {
        Ok(object) => Some(F::of(object)),
        Err(misread) => {
            let (namespace, name) = key(&misread.metadata);
            let (kind, error) = (F::Object::kind(&()), &misread.error);
            tracing::error!(
                kind = &*kind,
                namespace,
                name,
                error,
                "an object of the cluster cannot be understood"
            );
            F::of_misread(&misread)
        }
    }
}
