//! `holdfast jobs`: what runs and ran on the agents; `--watch` follows one, `--cancel` ends one.

use super::admin;
use crate::args::{Global, Jobs};
use crate::connect::{self, Access};
use crate::failure::{Exit, Failure, Outcome, exit_of};
use crate::output::{Table, bytes, stats, time};
use crate::progress::Progress;
use bytes::Bytes;
use holdfast_format::id::{JobId, hex};
use holdfast_format::path::escape;
use holdfast_proto::v1::{self, JobState};
use serde_json::json;
use tonic::transport::Channel;

/// Lists, follows or cancels.
pub async fn run(global: &Global, options: Jobs) -> Outcome<()> {
    let connected = connect::open(global, Access::Read).await?;
    let channel = &connected.channel;
    let result = if let Some(job) = options.watch {
        let job = parse(&job)?;
        watch(channel, job, global.quiet).await.map(|_| ())
    } else if let Some(job) = options.cancel {
        let info = admin(channel)
            .cancel_job(v1::CancelJobRequest { job: parse(&job)? })
            .await?
            .into_inner();
        if !global.quiet {
            println!("{} {}", hex(&info.id), state_word(&info));
        }
        Ok(())
    } else {
        list(global, channel).await
    };
    connected.close().await;
    result
}

fn parse(text: &str) -> Outcome<Bytes> {
    let id: JobId = text.parse().map_err(|e| Failure::usage(format!("{e}")))?;
    Ok(Bytes::copy_from_slice(id.as_bytes()))
}

async fn list(global: &Global, channel: &Channel) -> Outcome<()> {
    let jobs = admin(channel)
        .jobs(v1::JobsRequest {})
        .await?
        .into_inner()
        .jobs;
    let mut table = Table::new(
        &[
            "JOB", "WHAT", "VOLUME", "STATE", "CREATED", "DONE", "NODE", "REASON",
        ],
        6,
    );
    for job in jobs {
        let last = job.last.clone().unwrap_or_default();
        let id = hex(&job.id);
        let document = json!({
            "id": id, "what": job.what, "volume": job.volume, "node": job.node, "state": state_word(&job),
            "created": time(job.created_ns), "ended": (job.ended_ns != 0).then(|| time(job.ended_ns)),
            "done_bytes": last.done_bytes, "total_bytes": last.total_bytes, "reason": last.reason,
            "detail": last.detail, "snapshot": hex(&last.snapshot), "stats": stats(&last.stats.unwrap_or_default()),
        });
        let cells = vec![
            id.clone(),
            job.what.clone(),
            job.volume.clone(),
            state_word(&job).into(),
            time(job.created_ns),
            bytes(last.done_bytes),
            job.node.clone(),
            last.reason,
        ];
        table.push(cells, id, document);
    }
    table.print(global.output, "no jobs since the coordinator started")
}

/// The word for a job's state.
pub fn state_word(job: &v1::JobInfo) -> &'static str {
    match job
        .last
        .as_ref()
        .map_or(JobState::Queued, v1::Report::state)
    {
        JobState::Unspecified | JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// Follows a job to its end; its failure is the command's.
pub async fn watch(channel: &Channel, job: Bytes, quiet: bool) -> Outcome<v1::Report> {
    let mut stream = admin(channel)
        .watch_job(v1::WatchJobRequest { job })
        .await?
        .into_inner();
    let mut progress: Option<Progress> = None;
    let mut last = v1::Report::default();
    while let Some(info) = stream.message().await? {
        let shown = progress.get_or_insert_with(|| {
            Progress::new(format!("{} of {}", info.what, info.volume), quiet)
        });
        last = info.last.unwrap_or_default();
        shown.update(last.done_files, last.done_bytes, last.total_bytes);
    }
    drop(progress);
    match last.state() {
        JobState::Done => Ok(last),
        JobState::Cancelled => Err(Failure::with(Exit::Interrupted, "the job was cancelled")),
        _ if last.reason.is_empty() => Err(Failure::failed(
            "the coordinator ended the stream before the job ended",
        )),
        _ => Err(Failure::with(
            exit_of(&last.reason),
            format!("{} ({})", last.detail, last.reason),
        )),
    }
}

/// Problems as lines for people, on standard error.
pub fn print_problems(problems: &[v1::Problem], total: u64) {
    const SHOWN: usize = 20;
    for problem in problems.iter().take(SHOWN) {
        let carried = if problem.carried_over {
            "; the earlier state was kept"
        } else {
            ""
        };
        eprintln!(
            "problem: {}: {} ({}){carried}",
            escape(&problem.path),
            problem.detail,
            problem.reason
        );
    }
    let shown = problems.len().min(SHOWN) as u64;
    if total > shown {
        eprintln!(
            "problem: and {} more; `holdfast snapshots -o json` has the first 100",
            total - shown
        );
    }
}
