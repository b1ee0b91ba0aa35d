//! Starts the runs that the queue lets go, and takes in how runs have ended, whoever asked for them.

use super::entries::end_of;
use super::{Guard, now, tell};
use crate::Coordinator;
use crate::error::Result;
use crate::kube::api::FilesSpec;
use crate::kube::events::Reason;
use crate::kube::picture::Picture;
use crate::kube::told;
use crate::policy::orders;
use crate::policy::queue::{End, Finished, Run};
use crate::schedule::What;
use holdfast_format::id::JobId;
use holdfast_proto::v1::{JobInfo, JobState};
use jiff::Timestamp;
use std::collections::HashSet;

impl Guard {
    /// Takes in how runs have ended, whoever asked for them.
    pub(super) fn follow(&mut self, coordinator: &Coordinator, picture: &Picture, now: Timestamp) {
        let hub = coordinator.hub();
        let mut heard = self.heard_ns;
        let mut foreign = Vec::new();
        for info in hub.jobs() {
            if info.what != "backup" || info.ended_ns <= self.heard_ns {
                continue;
            }
            heard = heard.max(info.ended_ns);
            let is_ours = self.jobs.get(&info.volume);
            let is_ours = is_ours.is_some_and(|job| job.as_bytes()[..] == info.id[..]);
            if !is_ours {
                foreign.push(info.clone());
            }
            let (reason, note) = told::end(&info);
            let report = info.last.unwrap_or_default();
            if let Some(known) = self.known.get_mut(&info.volume) {
                known.is_fresh = false;
                known.hooks = crate::kube::hooks::problems_of(&report);
                // Runs that keep a bound of exposure are many: that all is well again is news, that it still is not.
                let is_news = reason != Reason::BackupCompleted || known.failure.is_some();
                if is_ours || is_news {
                    tell(coordinator, picture, &info.volume, reason, note);
                }
                match report.state() {
                    JobState::Done => known.failure = None,
                    _ => self.failed(&info.volume, now, &report.reason, &report.detail),
                }
            }
        }
        self.heard_ns = heard;
        // Of runs that were not started here, such as those of an earlier process.
        for info in foreign {
            let mut run = end_of(picture, &info);
            // The queue does not know it: who wants the volume offers it again.
            run.is_retried = true;
            let is_done = run.report.state() == JobState::Done;
            self.runs.ended(run, now);
            // It has made what a retry was to make.
            if is_done && !self.runs.waits_for(&info.volume) {
                self.queue.cancel(&info.volume);
            }
        }
        let mut ended = Vec::new();
        for (volume, job) in &self.jobs {
            match hub.watch(job).map(|job| job.borrow().clone()) {
                Ok(info) if info.ended_ns == 0 => {}
                Ok(info) => ended.push(info),
                // Forgotten among many: how it went is not known.
                Err(_) => ended.push(JobInfo {
                    id: job.as_bytes().to_vec().into(),
                    volume: volume.clone(),
                    ..JobInfo::default()
                }),
            }
        }
        for info in ended {
            let volume = info.volume.clone();
            let mut run = end_of(picture, &info);
            self.jobs.remove(&volume);
            run.is_overdue = self.overdue.remove(&run.job);
            let end = match run.report.state() {
                JobState::Done => End::Done,
                JobState::Cancelled => End::Cancelled,
                _ => End::Failed,
            };
            let finished = self.queue.finish(&volume, end, now);
            run.is_retried = matches!(finished, Finished::Retry { .. });
            self.runs.ended(run, now);
            if let Finished::GivenUp { attempts, .. } = finished {
                tracing::error!(volume, attempts, "given up until it is due again");
                let note = format!("failed {attempts} times; tried again when it is due again");
                tell(coordinator, picture, &volume, Reason::BackupGivenUp, note);
            }
        }
    }

    pub(super) fn failed(&mut self, volume: &str, now: Timestamp, reason: &str, detail: &str) {
        let known = self.known.entry(volume.to_owned()).or_default();
        let failures = known.failure.take().map_or(0, |failure| failure.in_a_row);
        known.failure = Some(crate::kube::words::Failure {
            at: now,
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            in_a_row: failures + 1,
        });
    }

    pub(super) fn start(&mut self, coordinator: &Coordinator, picture: &Picture, now: Timestamp) {
        let connected: HashSet<String> = coordinator.hub().agents().into_iter().collect();
        let is_ready = |node: Option<&str>| node.is_some_and(|node| connected.contains(node));
        let mut broken = Vec::new();
        while let Some(run) = self.queue.pop(now, is_ready) {
            let volume = run.entry.volume.clone();
            let files = self.runs.files(&volume);
            match order(coordinator, picture, &run, files.clone()) {
                Ok(job) => {
                    tracing::info!(volume, policy = run.entry.policy, job = %job, "backup started");
                    let node = run.entry.node.unwrap_or_default();
                    let note = format!("by {} on node {node}", run.entry.policy);
                    tell(coordinator, picture, &volume, Reason::BackupStarted, note);
                    self.runs.started(&volume, job, files);
                    self.jobs.insert(volume, job);
                }
                Err(error) => broken.push((volume, error)),
            }
        }
        for (volume, error) in broken {
            tracing::warn!(volume, %error, "backup could not be started");
            let finished = self.queue.finish(&volume, End::Failed, now);
            let why = (error.reason().as_str(), &error.to_string()[..]);
            self.refused(coordinator, picture, &volume, why, finished);
        }
    }

    /// A run was not started.
    pub(super) fn refused(
        &mut self,
        coordinator: &Coordinator,
        picture: &Picture,
        volume: &str,
        (reason, detail): (&str, &str),
        finished: Finished,
    ) {
        let is_retried = matches!(finished, Finished::Retry { .. });
        self.runs.refused(volume, reason, detail, is_retried);
        self.failed(volume, now(coordinator), reason, detail);
        let note = format!("{reason}: {detail}");
        tell(coordinator, picture, volume, Reason::BackupFailed, note);
    }
}

/// Asks the node's agent for a run.
fn order(
    coordinator: &Coordinator,
    picture: &Picture,
    run: &Run,
    files: Option<FilesSpec>,
) -> Result<JobId> {
    let entry = &run.entry;
    let mut policies = picture.policies.iter();
    let policy = policies.find(|(reference, _)| reference.to_string() == entry.policy);
    let mut order = match policy {
        Some((_, policy)) => orders::order(&policy.spec, &entry.volume),
        // It was deleted since, or a person wants a volume without one: the run is made as far as it is known.
        None => coordinator.order_of(&entry.volume),
    };
    if let Some(files) = files {
        (order.exclude, order.include) = (files.exclude, files.include);
    }
    let id = JobId::from_bytes(crate::repo::kek::random()?);
    let now_ns = coordinator.clock().now_ns();
    let hub = coordinator.hub();
    hub.start(id, What::Backup(order), entry.node.as_deref(), now_ns)?;
    Ok(id)
}
