//! Keeps the picture of the cluster, sends agents their plans when it changes, and draws it for policies.

use super::picture::Picture;
use super::plan::plans;
use super::world::{Update, World};
use crate::Coordinator;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;

/// What belongs together mostly comes together; a pod's end is to be known within two seconds.
const DEBOUNCE: Duration = Duration::from_millis(250);

/// Feeds the agents, until the watches or the coordinator end. The picture as it is now, once there is one.
pub fn start(
    coordinator: &Arc<Coordinator>,
    mut updates: Receiver<Update>,
) -> watch::Receiver<Option<Arc<Picture>>> {
    let (pictures, drawn) = watch::channel(None);
    let clock = coordinator.clock().clone();
    let coordinator: Weak<Coordinator> = Arc::downgrade(coordinator);
    tokio::spawn(async move {
        let mut world = World::default();
        while let Some(update) = updates.recv().await {
            let mut differs = world.take(update);
            clock.sleep(DEBOUNCE).await;
            while let Ok(update) = updates.try_recv() {
                differs |= world.take(update);
            }
            let Some(coordinator) = coordinator.upgrade() else {
                return;
            };
            if differs && world.is_whole() {
                let plans = plans(&mut world);
                if world.has_policies() {
                    pictures.send_replace(Some(Arc::new(Picture::draw(&world, &plans))));
                }
                coordinator.hub().set_plans(plans);
            }
        }
    });
    drawn
}
