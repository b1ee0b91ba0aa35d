//! Starts ordered work, each on a task of its own, within the limits.

use super::table::{Names, Table};
use crate::backup::{BackupOptions, Reading, RunReport, backup};
use crate::cancel::Cancel;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::exposure::Exposures;
use crate::journal::Journals;
use crate::limits::RateLimit;
use crate::metrics::AgentMetrics;
use crate::progress::Progress;
use crate::read::BusyPolicy;
use crate::restore::{Action, RestoreOptions, RestoreReport, Target, restore};
use crate::rolling::Rolling;
use crate::rules::Rules;
use crate::settings::ServeSettings;
use crate::volumes::VolumeCandidate;
use bytes::Bytes;
use holdfast_format::id::SnapshotId;
use holdfast_format::path::{RelPath, escape};
use holdfast_format::wire::{id_from_wire, problem_to_wire};
use holdfast_proto::v1 as proto;
use proto::{JobState, Report, order};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Problems in a report.
const PROBLEMS: usize = 100;

/// Work in progress.
#[derive(Debug)]
pub struct Works {
    /// What is to be said of it.
    pub table: Arc<Table>,
    /// How far the volumes are ahead of their newest snapshots.
    pub exposures: Exposures,
    context: Context,
    volumes: Vec<VolumeCandidate>,
    tasks: JoinSet<()>,
}

#[derive(Debug, Clone)]
struct Context {
    client: Client,
    settings: Arc<ServeSettings>,
    metrics: AgentMetrics,
    table: Arc<Table>,
    journals: Option<Journals>,
    rolling: Option<Rolling>,
    backups: Arc<Semaphore>,
    restores: Arc<Semaphore>,
}

impl Works {
    /// Nothing to do yet.
    pub fn new(
        client: Client,
        settings: Arc<ServeSettings>,
        metrics: AgentMetrics,
        table: Arc<Table>,
    ) -> Self {
        let journals = Journals::start(settings.journal);
        Self {
            table: table.clone(),
            exposures: Exposures::new(journals.clone()),
            context: Context {
                backups: Arc::new(Semaphore::new(settings.most_backups)),
                restores: Arc::new(Semaphore::new(settings.most_restores)),
                journals,
                rolling: settings
                    .reread_period
                    .map(|period| Rolling::new(period, &settings.backup.index_directory)),
                client,
                settings,
                metrics,
                table,
            },
            volumes: Vec::new(),
            tasks: JoinSet::new(),
        }
    }

    /// What should be told of changes.
    pub fn journals(&self) -> Option<Journals> {
        self.context.journals.clone()
    }

    /// What is read again between runs.
    pub fn rolling(&self) -> Option<Rolling> {
        self.context.rolling.clone()
    }

    /// What was found on this node.
    pub fn set_volumes(&mut self, volumes: Vec<VolumeCandidate>) {
        let there = volumes.iter().filter(|volume| volume.eligible.is_ok());
        let there = there.map(|volume| volume.facts.name.to_string()).collect();
        if let Some(journals) = &self.context.journals {
            journals.retain(&there);
        }
        if let Some(rolling) = &self.context.rolling {
            rolling.retain(&there);
        }
        // Whoever unmounts a volume must not wait for a backup of it.
        self.table.cancel_backups(|volume| !there.contains(volume));
        let there = volumes.iter().filter(|volume| volume.eligible.is_ok());
        self.exposures
            .set_volumes(there.map(|volume| volume.facts.clone()).collect());
        self.volumes = volumes;
    }

    /// What was found last.
    pub fn volumes(&self) -> &[VolumeCandidate] {
        &self.volumes
    }

    /// Takes an order. Nothing is waited for here.
    pub fn take(&mut self, order: proto::Order) {
        while self.tasks.try_join_next().is_some() {}
        let job = order.job;
        let Some(body) = order.body else { return };
        if matches!(body, order::Body::Cancel(_)) {
            if !self.table.cancel(&job) {
                tracing::info!("an unknown job was to be cancelled");
            }
            return;
        }
        let names = match &body {
            order::Body::Backup(order) => Names {
                what: "backup",
                volume: order.volume.clone(),
            },
            _ => Names {
                what: "restore",
                volume: String::new(),
            },
        };
        let (cancel, progress) = (Cancel::new(), Progress::new());
        if self
            .table
            .add(job.clone(), names, cancel.clone(), progress.clone())
            .is_none()
        {
            return;
        }
        let context = self.context.clone();
        match body {
            order::Body::Backup(order) => {
                let volume = self
                    .volumes
                    .iter()
                    .find(|volume| volume.facts.name.as_str() == order.volume)
                    .cloned();
                self.tasks.spawn(async move {
                    context.backup(&job, volume, order, progress, cancel).await;
                });
            }
            order::Body::Restore(order) => {
                self.tasks.spawn(async move {
                    context.restore(&job, order, progress, cancel).await;
                });
            }
            order::Body::Cancel(_) | order::Body::Plan(_) => {}
        }
    }

    /// Cancels everything and waits for it, no longer than `grace`.
    pub async fn stop(&mut self, grace: Duration) {
        self.table.cancel_all();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!(
                jobs = self.table.running(),
                "jobs did not stop in time and are left"
            );
        }
    }
}

impl Context {
    async fn backup(
        &self,
        job: &Bytes,
        volume: Option<VolumeCandidate>,
        order: proto::BackupOrder,
        progress: Arc<Progress>,
        cancel: Cancel,
    ) {
        let began = Instant::now();
        let work = self.backed_up(job, volume.as_ref(), &order, progress.clone(), &cancel);
        let done = work.await;
        if let Some(volume) = &volume {
            let result = done.as_ref().map(|_| ());
            self.metrics
                .backed_up(&volume.facts, result, &progress.view());
        }
        match done {
            Ok(report) => {
                self.metrics.looked(report.walk);
                if report.index_discarded.is_some() {
                    self.metrics.index_rebuilds.inc();
                }
                tracing::info!(
                    volume = %order.volume,
                    snapshot = %report.snapshot.id,
                    files = report.counters.files,
                    problems = report.problems(),
                    seconds = began.elapsed().as_secs_f64(),
                    walk = report.walk.unwrap_or("no"),
                    "backed up"
                );
                let parent_damage = report.parent_damage;
                let snapshot = report.snapshot;
                let problems = snapshot.first_problems.iter().take(PROBLEMS);
                let last = Report {
                    snapshot: Bytes::copy_from_slice(snapshot.id.as_bytes()),
                    problems: problems.map(|(p, it)| problem_to_wire(p, it)).collect(),
                    stats: Some(snapshot.stats.into()),
                    detail: parent_damage.unwrap_or_default(),
                    ..Report::default()
                };
                self.table.end(job, JobState::Done, last);
            }
            Err(error) => {
                tracing::warn!(volume = %order.volume, %error, reason = error.reason(), "not backed up");
                self.failed(job, &error);
            }
        }
    }

    async fn backed_up(
        &self,
        job: &Bytes,
        volume: Option<&VolumeCandidate>,
        order: &proto::BackupOrder,
        progress: Arc<Progress>,
        cancel: &Cancel,
    ) -> Result<RunReport> {
        let volume = volume.ok_or_else(|| Error::VolumeRefused {
            volume: order.volume.clone(),
            reason: "VolumeNotFound".to_owned(),
            detail: "this agent has no volume of that name".to_owned(),
        })?;
        let mut options = self.settings.backup.clone();
        // What other nodes write, this one's kernel does not tell of.
        options.journals = self.journals.clone().filter(|_| !volume.shared);
        options.rolling = self.rolling.clone();
        self.as_asked(order, &mut options);
        options.rules =
            Rules::new(&order.exclude, &order.include).map_err(|error| Error::VolumeRefused {
                volume: order.volume.clone(),
                reason: "RulesInvalid".to_owned(),
                detail: error.to_string(),
            })?;
        let _turn = self.turn(&self.backups, cancel).await?;
        self.table.begin(job);
        self.metrics.running.inc();
        let done = backup(&self.client, volume, &options, progress, cancel.clone()).await;
        self.metrics.running.dec();
        done
    }

    /// What the order says of how changes are found, and how fast.
    fn as_asked(&self, order: &proto::BackupOrder, options: &mut BackupOptions) {
        if order.detection() != proto::Detection::Unspecified
            && let Some(journals) = options.journals.take()
        {
            // Watching costs the kernel memory, and would be for nothing.
            journals.let_go_of(&order.volume);
        }
        if order.detection() == proto::Detection::Read {
            options.reading = Reading::All;
        }
        match order.busy_files() {
            proto::BusyFiles::Unspecified => {}
            proto::BusyFiles::Settle => options.busy = BusyPolicy::Settle,
            proto::BusyFiles::Reread => options.busy = BusyPolicy::Reread,
        }
        let limit = |rate: u64| RateLimit::new(Some(rate));
        options.read_rate = options.read_rate.and(&limit(order.read_rate));
        options.upload_rate = options.upload_rate.and(&limit(order.send_rate));
    }

    async fn restore(
        &self,
        job: &Bytes,
        order: proto::RestoreOrder,
        progress: Arc<Progress>,
        cancel: Cancel,
    ) {
        let done = self.restored(job, &order, progress, cancel).await;
        self.metrics.restored(done.as_ref().map(|_| ()));
        match done {
            Ok(report) => {
                tracing::info!(
                    snapshot = %report.snapshot,
                    target = %escape(&order.target),
                    problems = report.problem_count,
                    "restored"
                );
                let problems = report.problems.iter().take(PROBLEMS);
                let last = Report {
                    restored: Some(counts(&report)),
                    snapshot: order.snapshot,
                    problems: problems
                        .map(|it| proto::Problem {
                            path: Bytes::copy_from_slice(it.path.as_bytes()),
                            reason: it.problem.reason.to_owned(),
                            detail: it.problem.detail.clone(),
                            errno: it.problem.errno,
                            carried_over: false,
                            since_ns: 0,
                        })
                        .collect(),
                    detail: report
                        .skipped_lines()
                        .chain(report.space.map(|space| space.to_string()))
                        .chain(report.too_small.clone())
                        .collect::<Vec<_>>()
                        .join("; "),
                    ..Report::default()
                };
                self.table.end(job, JobState::Done, last);
            }
            Err(error) => {
                tracing::warn!(%error, reason = error.reason(), "not restored");
                self.failed(job, &error);
            }
        }
    }

    async fn restored(
        &self,
        job: &Bytes,
        order: &proto::RestoreOrder,
        progress: Arc<Progress>,
        cancel: Cancel,
    ) -> Result<RestoreReport> {
        let wrong = |source| Error::Answer {
            what: "take a restore order",
            source,
        };
        let snapshot: SnapshotId = id_from_wire(&order.snapshot).map_err(wrong)?;
        let path = RelPath::new(order.path.to_vec()).map_err(wrong)?;
        let (target, within) = self.target(&order.target)?;
        let asked = order.options.unwrap_or_default();
        let options = RestoreOptions {
            in_place: asked.in_place,
            delete: asked.delete_extras,
            special: asked.special,
            dry_run: asked.dry_run,
        };
        let _turn = self.turn(&self.restores, &cancel).await?;
        self.table.begin(job);
        self.metrics.running.inc();
        let channel = self.client.channel();
        let place = Target {
            directory: &target,
            temporary: &self.settings.backup.temporary_directory,
            within: within.as_deref(),
        };
        let done = restore(channel, snapshot, path, place, &options, progress, cancel).await;
        self.metrics.running.dec();
        done
    }

    /// The target of an order, if orders may write there, and the directory that it must not lead out of.
    fn target(&self, bytes: &[u8]) -> Result<(PathBuf, Option<PathBuf>)> {
        let target = PathBuf::from(OsStr::from_bytes(bytes));
        let plain = target.is_absolute()
            && target
                .components()
                .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let below = &self.settings.restore_below;
        let within = below.iter().find(|root| target.starts_with(root)).cloned();
        if plain && (below.is_empty() || within.is_some()) {
            return Ok((target, within));
        }
        Err(Error::Restore {
            reason: "TargetRefused",
            detail: format!(
                "{} is not a directory that this agent may restore to",
                escape(bytes)
            ),
        })
    }

    async fn turn(
        &self,
        limit: &Arc<Semaphore>,
        cancel: &Cancel,
    ) -> Result<tokio::sync::OwnedSemaphorePermit> {
        tokio::select! {
            turn = limit.clone().acquire_owned() => turn.map_err(|_| Error::Cancelled),
            () = cancel.cancelled() => Err(Error::Cancelled),
        }
    }

    fn failed(&self, job: &Bytes, error: &Error) {
        let state = match error {
            Error::Cancelled => JobState::Cancelled,
            _ => JobState::Failed,
        };
        let mut detail = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            detail = format!("{detail}: {cause}");
            source = cause.source();
        }
        let last = Report {
            reason: error.reason().to_owned(),
            detail,
            ..Report::default()
        };
        self.table.end(job, state, last);
    }
}

/// What a restore did to paths, or would.
fn counts(report: &RestoreReport) -> proto::Restored {
    proto::Restored {
        created: report.count(Action::Create),
        replaced: report.count(Action::Replace),
        metadata: report.count(Action::Metadata),
        deleted: report.count(Action::Delete),
        kept: report.count(Action::Keep),
        written_bytes: match &report.plan {
            Some(plan) => plan.items.iter().map(|item| item.bytes).sum(),
            None => report.written_bytes,
        },
        problems: report.problem_count,
    }
}
