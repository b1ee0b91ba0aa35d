//! The cluster: what its API says is in use where, sent to each agent as its node's plan.
//!
//! One watch for each kind of object, whatever the number of nodes; of each object only what is needed is
//! kept. Where the API cannot be reached, the agents go on by the plans they have.

pub mod api;
mod calls;
pub mod events;
mod facts;
mod feed;
mod guard;
mod hooks;
mod lenient;
mod picture;
mod plan;
mod pods;
mod point;
mod restores;
mod runs;
mod statuses;
mod subjects;
#[cfg(test)]
mod tests;
mod told;
mod watch;
mod words;
mod world;

use crate::Coordinator;
use crate::error::{Error, Result};
use crate::settings::{KubernetesMode, KubernetesSettings};
pub use events::Events;
use guard::Mounting;
pub use hooks::Brackets;
pub use picture::Picture;
pub use pods::{Helpers, Role as HelperRole};
use runs::{Runs, Writes};
pub use statuses::Wanted;

pub use calls::ApiCalls;
use holdfast_runtime::metrics::Metrics;
use kube::Client;
use kube::client::ClientBuilder;
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use std::sync::Arc;
use tokio::sync::watch::{Receiver, Sender};
use world::Shared;

/// A client of the cluster's API; `None` where there is none and none is required.
pub async fn client(settings: &KubernetesSettings, metrics: &Metrics) -> Result<Option<Client>> {
    let required = match settings.mode {
        KubernetesMode::Off => return Ok(None),
        KubernetesMode::On => true,
        KubernetesMode::Auto => settings.kubeconfig.is_some(),
    };
    let config = match &settings.kubeconfig {
        Some(path) => {
            let wrong = |error: KubeconfigError| unusable(&path.display().to_string(), &error);
            let read = Kubeconfig::read_from(path).map_err(wrong)?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(read, &options).await;
            config.map_err(wrong)?
        }
        None => match Config::incluster() {
            Ok(config) => config,
            Err(error) if required => return Err(unusable("the pod's service account", &error)),
            Err(error) => {
                tracing::info!(%error, "not in a cluster: volumes are what agents find");
                return Ok(None);
            }
        },
    };
    let client = ClientBuilder::try_from(config);
    let client = client.map_err(|error| unusable("its address", &error))?;
    Ok(Some(client.with_layer(&ApiCalls::new(metrics)).build()))
}

fn unusable(what: &str, error: &dyn std::error::Error) -> Error {
    let causes = std::iter::successors(error.source(), |error| error.source());
    let said = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
    Error::invalid(format!(
        "the cluster's API cannot be used with {what}: {said}"
    ))
}

/// Watches the cluster, sends agents their plans and protects volumes as policies say, until the coordinator
/// stops.
pub fn start(coordinator: &Arc<Coordinator>, client: Client, helpers: Option<Helpers>) {
    let events = Events::new(coordinator.clock().clone());
    events.start(
        client.clone(),
        &crate::settings::host_name(),
        coordinator.stopping(),
    );
    coordinator.set_events(events);
    let updates = watch::start(&client, &coordinator.stopping());
    let world = Shared::default();
    let helpers = helpers.map(Arc::new);
    let restoring = restores::start(coordinator, client.clone(), world.clone(), helpers.clone());
    let mounting = Mounting::new(client.clone(), world.clone(), helpers, restoring);
    let pictures = feed::start(coordinator, updates, world);
    coordinator.set_pictures(pictures.clone());
    coordinator.set_brackets(hooks::start(coordinator, client.clone(), pictures.clone()));
    let backups = watch::one(&client, &coordinator.stopping());
    let writes = Writes::new();
    writes.start(
        client.clone(),
        coordinator.clock().clone(),
        coordinator.stopping(),
    );
    let runs = Runs::new(backups, writes);
    let statuses = statuses::start(client, coordinator.stopping());
    coordinator.set_told(statuses.0.subscribe());
    guard::start(coordinator, pictures, statuses, runs, Some(mounting));
}

/// Protects volumes as the policies of pictures say that come from elsewhere: there is nobody to be told, and no
/// objects stand for runs.
pub fn protect(coordinator: &Arc<Coordinator>, pictures: Receiver<Option<Arc<Picture>>>) {
    // Nothing was told before.
    let told = Sender::new(Some(Arc::default())).subscribe();
    let told = (Sender::default(), told);
    guard::start(coordinator, pictures, told, Runs::without_objects(), None);
}
