//! Serves the coordinator's orders: subscribes, works within limits, reports, cancels.
//!
//! The subscription is made again for ever; jobs go on while it is broken, and what they have to say
//! is kept until it stands again. A stop cancels what runs and waits a bounded time for it.

mod look;
mod reread;
mod table;
mod work;

use crate::cancel::Cancel;
use crate::client::{Client, PROTOCOL, from_status};
use crate::condition;
use crate::error::{Error, Result};
use crate::exposure::{Exposures, Told};
use crate::metrics::AgentMetrics;
use crate::settings::ServeSettings;
use holdfast_proto::v1 as proto;
use holdfast_runtime::backoff::{Backoff, BackoffPolicy};
use holdfast_runtime::readiness::Latch;
use holdfast_runtime::shutdown::Shutdown;
use look::Looker;
use proto::agent_message::Body;
use proto::order;
use std::sync::Arc;
use std::time::Duration;
use table::Table;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use work::Works;

/// Reports of running jobs come at most this often.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// A job that does not move is reported this often, so that the coordinator knows that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// How often volumes are looked at: whether they are ahead of their newest snapshots.
const STATES_EVERY: Duration = Duration::from_secs(3);
/// How often the agent says how it is itself; what has changed it says at once. Also its clock, which may be set.
const CONDITION_EVERY: Duration = Duration::from_secs(60);
/// States in one message: it is to stay small.
const STATES: usize = 100;
/// Messages that wait for the connection.
const MESSAGES: usize = 64;

/// Serves until `shutdown`. `ready` is released when the first subscription stands.
pub async fn serve(
    client: Client,
    settings: Arc<ServeSettings>,
    metrics: AgentMetrics,
    shutdown: Shutdown,
    mut ready: Option<Latch>,
) -> Result<()> {
    let table = Arc::new(Table::default());
    let mut works = Works::new(
        client.clone(),
        settings.clone(),
        metrics.clone(),
        table.clone(),
    );
    // Whether or not the coordinator is there: without it, exposure only grows.
    let mut watching = JoinSet::new();
    watching.spawn(watch(works.exposures.clone(), metrics.clone()));
    let reading = Cancel::new();
    if let Some(rolling) = works.rolling() {
        let (journals, metrics) = (works.journals(), metrics.clone());
        reread::start(rolling, journals, &settings, metrics, reading.clone());
    }
    let readiness = ready.as_ref().map(|latch| latch.readiness().clone());
    let mut looker = Looker::new(&settings, readiness);
    let mut backoff = Backoff::new(BackoffPolicy::default());
    while !shutdown.is_requested() {
        let began = Instant::now();
        let ended = tokio::select! {
            ended = subscribed(&client, &settings, &metrics, &mut works, &mut looker, &mut ready) => ended,
            _ = shutdown.requested() => break,
        };
        metrics.connected.set(0);
        match ended {
            Ok(()) => tracing::info!("the coordinator ended the subscription"),
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "the coordinator cannot be reached");
            }
            Err(error) => {
                tracing::error!(%error, reason = error.reason(), "the coordinator refuses this agent");
            }
        }
        if began.elapsed() > Duration::from_secs(60) {
            backoff.reset();
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_wait()) => {}
            _ = shutdown.requested() => break,
        }
    }
    reading.cancel();
    metrics.connected.set(0);
    works.stop(settings.drain).await;
    report_last(&client, &settings, &table).await;
    Ok(())
}

/// One subscription, to its end. Dropping it leaves the jobs alone.
async fn subscribed(
    client: &Client,
    settings: &ServeSettings,
    metrics: &AgentMetrics,
    works: &mut Works,
    looker: &mut Looker,
    ready: &mut Option<Latch>,
) -> Result<()> {
    let mut listed = looker.look(settings, metrics, works).await;
    let (sender, receiver) = mpsc::channel(MESSAGES);
    send(&sender, Body::Hello(hello(settings, &listed))).await?;
    works.table.all_again();
    let call = client.jobs().subscribe(ReceiverStream::new(receiver)).await;
    let mut orders = call
        .map_err(|status| from_status("subscribe", &status))?
        .into_inner();
    tracing::info!(volumes = listed.len(), "connected to the coordinator");
    metrics.connected.set(1);
    drop(ready.take());
    let mut reports = interval(REPORT_EVERY);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = interval(settings.discover_every.max(Duration::from_secs(1)));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.reset();
    let mut told = Told::default();
    let mut conditions = interval(CONDITION_EVERY);
    conditions.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut states = interval(STATES_EVERY);
    states.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = orders.message() => {
                match order.map_err(|status| from_status("wait for orders", &status))? {
                    None => return Ok(()),
                    Some(proto::Order { body: Some(order::Body::Plan(plan)), .. }) => {
                        looker.take(settings, plan);
                    }
                    Some(order) => works.take(order),
                }
            }
            _ = reports.tick() => report(&works.table, &sender).await?,
            // Whoever waits for a job need not wait for the tick too.
            () = works.table.changed() => report(&works.table, &sender).await?,
            _ = states.tick() => {
                let now = works.exposures.states().into_iter().map(|(_, state)| state);
                for states in told.news(now.collect(), Instant::now().into_std()).chunks(STATES) {
                    let states = states.to_vec();
                    send(&sender, Body::States(proto::VolumeStates { states })).await?;
                }
            }
            _ = conditions.tick() => {
                let condition = condition::now(settings, looker.troubles());
                send(&sender, Body::Condition(condition)).await?;
            }
            () = looker.due(&mut looks) => {
                let before = looker.troubles().clone();
                let now = looker.look(settings, metrics, works).await;
                if *looker.troubles() != before {
                    conditions.reset_immediately();
                }
                if now != listed {
                    send(&sender, Body::Volumes(proto::VolumeList { volumes: now.clone() })).await?;
                    listed = now;
                }
            }
        }
    }
}

/// Sets the metrics of volumes, for as long as the agent serves.
async fn watch(exposures: Exposures, metrics: AgentMetrics) {
    let mut looks = interval(STATES_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        metrics.exposed(&exposures.states());
    }
}

/// Says what is to be said of the jobs.
async fn report(table: &Table, sender: &mpsc::Sender<proto::AgentMessage>) -> Result<()> {
    for report in table.due(ALIVE_EVERY) {
        let job = report.job.clone();
        let ended = table::has_ended(&report);
        send(sender, Body::Report(report)).await?;
        if ended {
            table.forget(&job);
        }
    }
    Ok(())
}

async fn send(sender: &mpsc::Sender<proto::AgentMessage>, body: Body) -> Result<()> {
    let message = proto::AgentMessage { body: Some(body) };
    sender.send(message).await.map_err(|_| Error::Disconnected {
        what: "report",
        message: "the subscription has ended".to_owned(),
    })
}

fn hello(settings: &ServeSettings, listed: &[proto::AgentVolume]) -> proto::Hello {
    proto::Hello {
        protocol: PROTOCOL,
        node: settings.volumes.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: settings.backup.boot_id.clone(),
        volumes: Some(proto::VolumeList {
            volumes: listed.to_vec(),
        }),
    }
}

/// Tells how the jobs that a stop ended have ended, if the coordinator still listens.
async fn report_last(client: &Client, settings: &ServeSettings, table: &Table) {
    let last = table.due(Duration::ZERO);
    if last.is_empty() {
        return;
    }
    let telling = async {
        let (sender, receiver) = mpsc::channel(MESSAGES);
        send(&sender, Body::Hello(hello(settings, &[]))).await?;
        let call = client.jobs().subscribe(ReceiverStream::new(receiver)).await;
        let mut orders = call
            .map_err(|status| from_status("subscribe", &status))?
            .into_inner();
        for report in last {
            send(&sender, Body::Report(report)).await?;
        }
        drop(sender);
        // The other side ends the stream once it has read all of it.
        while let Ok(Some(_)) = orders.message().await {}
        Ok::<(), Error>(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(1), telling).await {
        tracing::debug!(%error, "the last reports could not be given");
    }
}

#[cfg(test)]
mod tests;
