//! Follows the Restores of the cluster, by one watch.

use crate::kube::api::Restore;
use futures::StreamExt;
use holdfast_runtime::shutdown::Shutdown;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc::{self, Receiver};

/// News that wait to be taken in.
const WAITING: usize = 64;

/// News of restores.
pub enum Change {
    /// These are all.
    All(Vec<Restore>),
    /// One was made or changed.
    Put(Box<Restore>),
    /// The one with this uid is gone.
    Gone(String),
}

/// Watches, until the coordinator stops.
pub fn start(client: Client, stopping: Shutdown) -> Receiver<Change> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let api: Api<Restore> = Api::all(client);
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        let mut listed = Vec::new();
        let mut is_told = false;
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
                    listed.push(object);
                    continue;
                }
                Some(Ok(Event::InitDone)) => {
                    is_told = false;
                    Change::All(std::mem::take(&mut listed))
                }
                Some(Ok(Event::Apply(object))) => Change::Put(Box::new(object)),
                Some(Ok(Event::Delete(object))) => {
                    Change::Gone(object.metadata.uid.unwrap_or_default())
                }
                Some(Err(error)) => {
                    if !is_told {
                        tracing::warn!(%error, "restores cannot be watched");
                    }
                    is_told = true;
                    continue;
                }
            };
            if sender.send(change).await.is_err() {
                return;
            }
        }
    });
    receiver
}
