//! Keeps the policies of files up to date, draws what agents list for them, and has volumes protected by them.

use super::source::{Loaded, Mistakes, Seen, load, look};
use super::subjects::subjects;
use crate::Coordinator;
use crate::kube::{self, Picture};
use holdfast_proto::v1::AgentVolume;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often files and volumes are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Mistakes that are kept to be told.
const MAX_MISTAKES: usize = 100;

/// How the files are doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Where they are.
    pub path: String,
    /// Policies in force.
    pub policies: usize,
    /// When those were read.
    pub read_ns: i64,
    /// Why the files as they are now are not in force; empty: they are.
    pub mistakes: Vec<String>,
}

/// Protects volumes by the policies that were loaded, and by what the files become, until the coordinator
/// stops. They are also read again when `again` is notified.
pub fn start(coordinator: &Arc<Coordinator>, path: PathBuf, loaded: Loaded, again: Arc<Notify>) {
    let clock = coordinator.clock().clone();
    let (standing, told) = watch::channel(Standing {
        path: path.display().to_string(),
        policies: loaded.policies.len(),
        read_ns: clock.now_ns(),
        mistakes: Vec::new(),
    });
    let (pictures, drawn) = watch::channel(None);
    coordinator.set_policy_files(told);
    coordinator.set_pictures(drawn.clone());
    kube::protect(coordinator, drawn);
    let stopping = coordinator.stopping();
    let coordinator: Weak<Coordinator> = Arc::downgrade(coordinator);
    tokio::spawn(async move {
        let mut seen = loaded.seen.clone();
        let mut loaded = loaded;
        let mut volumes: Vec<(String, AgentVolume)> = Vec::new();
        let mut is_stale = true;
        loop {
            if let Some(coordinator) = coordinator.upgrade() {
                let listed = coordinator.hub().volumes();
                if listed != volumes {
                    volumes = listed;
                    is_stale = true;
                }
            } else {
                return;
            }
            if std::mem::take(&mut is_stale) {
                pictures.send_replace(Some(Arc::new(draw(&loaded, &volumes))));
            }
            let is_asked = tokio::select! {
                () = clock.sleep(LOOK_EVERY) => false,
                () = again.notified() => true,
                _ = stopping.requested() => return,
            };
            let Some(read) = read_again(&path, &mut seen, is_asked).await else {
                continue;
            };
            match read {
                Ok(mut new) => {
                    // A policy that was there is as old as it was.
                    for (reference, since) in &mut new.since {
                        if let Some(before) = loaded.since.get(reference) {
                            *since = *before;
                        }
                    }
                    tracing::info!(path = %path.display(), policies = new.policies.len(), "policies read again");
                    standing.send_modify(|standing| {
                        standing.policies = new.policies.len();
                        standing.read_ns = clock.now_ns();
                        standing.mistakes.clear();
                    });
                    loaded = new;
                    is_stale = true;
                }
                Err(Mistakes(mut mistakes)) => {
                    for mistake in &mistakes {
                        tracing::error!(mistake, "the policies before stay in force");
                    }
                    mistakes.truncate(MAX_MISTAKES);
                    standing.send_modify(|standing| standing.mistakes = mistakes);
                }
            }
        }
    });
}

/// What the files say now, if they look different from what was seen, or somebody asks.
async fn read_again(
    path: &Path,
    seen: &mut Seen,
    is_asked: bool,
) -> Option<Result<Loaded, Mistakes>> {
    let (path, before) = (path.to_owned(), seen.clone());
    let read = tokio::task::spawn_blocking(move || {
        // Files that cannot be looked at look different from all that can.
        let now = look(&path).unwrap_or_default();
        (is_asked || now != before).then(|| (now, load(&path)))
    });
    // A search that broke is made again.
    let (now, read) = read.await.ok()??;
    *seen = now;
    Some(read)
}

fn draw(loaded: &Loaded, volumes: &[(String, AgentVolume)]) -> Picture {
    let (subjects, nodes) = subjects(volumes);
    let mut picture = Picture::of(loaded.policies.clone(), subjects, |name| {
        nodes.get(name).cloned()
    });
    for (reference, facts) in &mut picture.policies {
        if let Some(since) = loaded.since.get(reference) {
            facts.created = *since;
        }
    }
    picture
}
