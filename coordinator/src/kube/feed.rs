//! Keeps the picture of the cluster, sends agents their plans when it changes, and draws it for policies.

use super::picture::Picture;
use super::plan::plans;
use super::world::{Shared, Update};
use crate::Coordinator;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;

/// What belongs together mostly comes together; a pod's end is to be known within two seconds.
const DEBOUNCE: Duration = Duration::from_millis(250);
/// Pictures are drawn so far apart: in a large cluster one costs some tenths of a second of CPU.
const DRAW_EVERY: Duration = Duration::from_secs(2);

/// Feeds the agents, until the watches or the coordinator end. The picture as it is now, once there is one.
pub fn start(
    coordinator: &Arc<Coordinator>,
    mut updates: Receiver<Update>,
    world: Shared,
) -> watch::Receiver<Option<Arc<Picture>>> {
    let (pictures, drawn_pictures) = watch::channel(None);
    let clock = coordinator.clock().clone();
    let coordinator: Weak<Coordinator> = Arc::downgrade(coordinator);
    tokio::spawn(async move {
        let mut newest = BTreeMap::new();
        let mut drawn: Option<Duration> = None;
        let mut is_stale = false;
        loop {
            let rest = drawn.map_or(Duration::ZERO, |drawn| {
                DRAW_EVERY.saturating_sub(clock.elapsed().saturating_sub(drawn))
            });
            let update = tokio::select! {
                update = updates.recv() => match update {
                    Some(update) => Some(update),
                    None => return,
                },
                () = clock.sleep(rest), if is_stale && world.lock().has_policies() => None,
            };
            if let Some(update) = update {
                let mut differs = world.lock().take(update);
                clock.sleep(DEBOUNCE).await;
                while let Ok(update) = updates.try_recv() {
                    differs |= world.lock().take(update);
                }
                let Some(coordinator) = coordinator.upgrade() else {
                    return;
                };
                if differs && world.lock().is_whole() {
                    newest = plans(&mut world.lock());
                    coordinator.hub().set_plans(newest.clone());
                    is_stale = true;
                }
            }
            let is_due = drawn.is_none_or(|drawn| clock.elapsed() >= drawn + DRAW_EVERY);
            if is_stale && is_due && world.lock().has_policies() {
                let picture = Picture::draw(&world.lock(), &newest);
                pictures.send_replace(Some(Arc::new(picture)));
                drawn = Some(clock.elapsed());
                is_stale = false;
            }
        }
    });
    drawn_pictures
}
