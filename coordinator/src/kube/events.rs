//! What happens, told as events of the cluster's objects. Telling never waits: what cannot be written is kept
//! in a bounded queue, whose oldest goes first, and is counted.
//!
//! The same event of the same object again is no new object: its count is raised and its message is the newest.
//! Where a namespace does not let us write events, that is said once in the log, and tried again minutes later.

mod book;
mod reason;
#[cfg(test)]
mod tests;

pub use reason::Reason;

use book::{Answer, Book, Fact, Write};
use holdfast_runtime::clock::Clock;
use holdfast_runtime::shutdown::Shutdown;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Who tells.
const COMPONENT: &str = "holdfast";
/// Between two writes.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the API did not answer: the first wait, and the longest.
const AWAY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// Longest message, in bytes, as the API has it.
const MAX_NOTE: usize = 1024;

/// Tells events. Clones are one.
#[derive(Clone)]
pub struct Events(Arc<Shared>);

struct Shared {
    book: Mutex<Book>,
    news: Notify,
    clock: Arc<dyn Clock>,
}

/// What became of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Told to the API.
    pub told: u64,
    /// Given up, since too many waited or the API did not take them.
    pub dropped: u64,
}

impl Events {
    /// Keeps events; nothing writes them before [`Events::start`].
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            book: Mutex::default(),
            news: Notify::new(),
            clock,
        }))
    }

    /// Writes them until the coordinator stops. `instance` is this process among those of its kind.
    pub fn start(&self, client: Client, instance: &str, stopping: Shutdown) {
        let writer = Writer {
            events: self.clone(),
            client,
            instance: cut(instance, 128),
        };
        tokio::spawn(async move {
            tokio::select! {
                () = writer.run() => {}
                _ = stopping.requested() => {}
            }
        });
    }

    /// Says that something happened to an object. Never waits, never fails.
    pub fn tell(&self, about: &ObjectReference, reason: Reason, note: impl Into<String>) {
        let fact = Fact {
            about: about.clone(),
            reason,
            note: cut(&note.into(), MAX_NOTE),
        };
        self.book().add(fact, self.0.clock.now_ns());
        self.0.news.notify_one();
    }

    /// What became of events so far.
    pub fn counts(&self) -> Counts {
        self.book().counts()
    }

    /// What waits: name of the object, reason, message.
    #[cfg(test)]
    pub fn waiting(&self) -> Vec<(String, Reason, String)> {
        self.book().waiting()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Every change is complete before anything can panic.
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A claim, as events name it.
pub fn claim(namespace: &str, name: &str, uid: &str) -> ObjectReference {
    object("v1", "PersistentVolumeClaim", Some(namespace), name, uid)
}

/// An object, as events name it. Without a uid (`""`), `kubectl describe` does not find its events.
pub fn object(
    api_version: &str,
    kind: &str,
    namespace: Option<&str>,
    name: &str,
    uid: &str,
) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: namespace.map(str::to_owned),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    }
}

struct Writer {
    events: Events,
    client: Client,
    instance: String,
}

impl Writer {
    async fn run(self) {
        let clock = self.events.0.clock.clone();
        let mut wait = AWAY.0;
        loop {
            let next = self.events.book().next(clock.now_ns(), clock.elapsed());
            let Some(write) = next else {
                tokio::select! {
                    () = self.events.0.news.notified() => {}
                    // What had to wait may be due.
                    () = clock.sleep(Duration::from_secs(5)) => {}
                }
                continue;
            };
            let answer = match tokio::time::timeout(PATIENCE, self.write(&write)).await {
                Ok(Ok(())) => Answer::Taken,
                Ok(Err(error)) => answer(&error),
                Err(_) => Answer::Away("no answer in time".to_owned()),
            };
            let pause = match &answer {
                Answer::Away(error) => {
                    tracing::debug!(error, "an event could not be told; again later");
                    let now = wait;
                    wait = (wait * 2).min(AWAY.1);
                    now
                }
                _ => {
                    wait = AWAY.0;
                    PAUSE
                }
            };
            self.events.book().settle(write, answer, clock.elapsed());
            clock.sleep(pause).await;
        }
    }

    async fn write(&self, write: &Write) -> kube::Result<()> {
        // Events of objects that have no namespace are kept there, by custom.
        let namespace = write.fact.about.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if write.raises {
            let patch = json!({
                "count": write.count,
                "lastTimestamp": time(write.last_ns),
                "message": write.fact.note,
            });
            let patched = api
                .patch(&write.name, &PatchParams::default(), &Patch::Merge(&patch))
                .await;
            match patched {
                // The API has let go of it.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                patched => return patched.map(drop),
            }
        }
        let event = self.event(write, namespace);
        match api.create(&PostParams::default(), &event).await {
            // An answer to an earlier try was lost.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            created => created.map(drop),
        }
    }

    fn event(&self, write: &Write, namespace: &str) -> Event {
        let fact = &write.fact;
        Event {
            metadata: ObjectMeta {
                name: Some(write.name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: fact.about.clone(),
            type_: Some(fact.reason.kind().to_owned()),
            reason: Some(fact.reason.as_str().to_owned()),
            action: Some(fact.reason.as_str().to_owned()),
            message: Some(fact.note.clone()),
            count: Some(write.count),
            first_timestamp: Some(time(write.first_ns)),
            last_timestamp: Some(time(write.last_ns)),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: None,
            }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

fn time(ns: i64) -> Time {
    let time = Timestamp::from_nanosecond(ns.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    // The API keeps whole seconds.
    Time(time.round(jiff::Unit::Second).unwrap_or(time))
}

fn answer(error: &kube::Error) -> Answer {
    let kube::Error::Api(status) = error else {
        return Answer::Away(error.to_string());
    };
    let said = status.to_string();
    match status.code {
        // Nothing can be made in a namespace that is being deleted; others are not meant.
        403 if said.contains("NamespaceTerminating") || said.contains("being terminated") => {
            Answer::Refused(said)
        }
        401 | 403 => Answer::Forbidden(said),
        429 | 500.. => Answer::Away(said),
        _ => Answer::Refused(said),
    }
}

fn cut(text: &str, most: usize) -> String {
    let mut at = most.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    text[..at].to_owned()
}
