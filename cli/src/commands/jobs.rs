//! `holdfast jobs`: what runs and ran on the agents; `--watch` follows one, `--cancel` ends one.

use super::admin;
use crate::args::{Format, Global, Jobs};
use crate::connect::{self, Access};
use crate::failure::{Exit, Failure, Outcome, exit_of, reason_of};
use crate::output::{Table, bytes, document, stats, time};
use crate::progress::Progress;
use bytes::Bytes;
use holdfast_format::id::{JobId, hex};
use holdfast_format::path::escape;
use holdfast_proto::v1::{self, JobState};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// How long a coordinator that went away may take to come back, with the job's agent.
const COME_BACK: Duration = Duration::from_secs(60);
/// How often it is asked meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Lists, follows or cancels.
pub async fn run(global: &Global, options: Jobs) -> Outcome<()> {
    let connected = connect::open(global, Access::Read).await?;
    let channel = &connected.channel;
    let result = if let Some(job) = options.watch {
        let job = named(channel, &job).await?;
        match watch(channel, job.id, global.quiet).await {
            Ok(info) => print(global, &info),
            Err(failure) => Err(failure),
        }
    } else if let Some(job) = options.cancel {
        let job = named(channel, &job).await?;
        if job.ended_ns != 0 {
            eprintln!("note: the job had ended already");
        }
        let info = admin(channel)
            .cancel_job(v1::CancelJobRequest { job: job.id })
            .await?
            .into_inner();
        print(global, &info)
    } else {
        list(global, channel).await
    };
    connected.close().await;
    result
}

/// The job that is meant by its id, or by the only one that starts so.
async fn named(channel: &Channel, text: &str) -> Outcome<v1::JobInfo> {
    if let Ok(id) = text.parse::<JobId>() {
        // It may be one that the coordinator has yet to learn of from its agent.
        let id = Bytes::copy_from_slice(id.as_bytes());
        let known = all(channel).await?.into_iter().find(|job| job.id == id);
        return Ok(known.unwrap_or(v1::JobInfo {
            id,
            ..Default::default()
        }));
    }
    one_of(all(channel).await?, text)
}

fn one_of(jobs: Vec<v1::JobInfo>, prefix: &str) -> Outcome<v1::JobInfo> {
    let digits = prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    if prefix.len() < 4 || !digits {
        return Err(Failure::usage(format!(
            "{prefix:?} names no job: use the first 4 or more digits of its id, see `holdfast jobs`"
        )));
    }
    let prefix = prefix.to_ascii_lowercase();
    let mut found = jobs
        .into_iter()
        .filter(|job| hex(&job.id).starts_with(&prefix));
    match (found.next(), found.next()) {
        (Some(job), None) => Ok(job),
        (None, _) => Err(Failure::failed(
            "no job has an id that starts so; see `holdfast jobs`",
        )),
        (Some(_), Some(_)) => Err(Failure::usage(
            "several jobs have ids that start so: type more digits",
        )),
    }
}

async fn all(channel: &Channel) -> Outcome<Vec<v1::JobInfo>> {
    let jobs = admin(channel).jobs(v1::JobsRequest {}).await?;
    Ok(jobs.into_inner().jobs)
}

async fn list(global: &Global, channel: &Channel) -> Outcome<()> {
    let jobs = all(channel).await?;
    let mut table = Table::new(
        &[
            "JOB", "WHAT", "VOLUME", "STATE", "CREATED", "DONE", "REASON", "NODE",
        ],
        7,
    );
    for job in jobs {
        let id = hex(&job.id);
        let as_document = as_document(&job);
        let last = job.last.clone().unwrap_or_default();
        let cells = vec![
            id[..12.min(id.len())].to_owned(),
            job.what.clone(),
            job.volume.clone(),
            state_word(&job).into(),
            time(job.created_ns),
            bytes(last.done_bytes),
            last.reason,
            job.node.clone(),
        ];
        table.push(cells, id, as_document);
    }
    table.print(global.output, "no jobs since the coordinator started")
}

/// A job for programs.
pub fn as_document(job: &v1::JobInfo) -> Value {
    let last = job.last.clone().unwrap_or_default();
    let problems = last
        .problems
        .iter()
        .map(|one| json!({"path": escape(&one.path), "reason": one.reason, "detail": one.detail}));
    let problems: Vec<Value> = problems.collect();
    json!({
        "id": hex(&job.id), "what": job.what, "volume": job.volume, "node": job.node, "state": state_word(job),
        "created": time(job.created_ns), "ended": (job.ended_ns != 0).then(|| time(job.ended_ns)),
        "done_bytes": last.done_bytes, "total_bytes": last.total_bytes, "reason": last.reason,
        "detail": last.detail, "snapshot": hex(&last.snapshot), "stats": stats(&last.stats.unwrap_or_default()),
        "problems": problems,
    })
}

/// One job, as it was asked for.
fn print(global: &Global, job: &v1::JobInfo) -> Outcome<()> {
    match global.output {
        Format::Json | Format::Yaml => return document(global.output, &as_document(job)),
        Format::Name => println!("{}", hex(&job.id)),
        Format::Table | Format::Wide if global.quiet => {}
        Format::Table | Format::Wide => println!("{} {}", hex(&job.id), state_word(job)),
    }
    Ok(())
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
///
/// A coordinator that is started again is waited for: the agent goes on with the job and tells the
/// new process of it.
pub async fn watch(channel: &Channel, job: Bytes, quiet: bool) -> Outcome<v1::JobInfo> {
    let mut progress: Option<Progress> = None;
    let mut last: Option<v1::JobInfo> = None;
    let mut away: Option<Instant> = None;
    loop {
        let take = |info: v1::JobInfo| {
            away = None;
            let shown = progress.get_or_insert_with(|| {
                Progress::new(format!("{} of {}", info.what, info.volume), quiet)
            });
            let report = info.last.clone().unwrap_or_default();
            shown.update(report.done_files, report.done_bytes, report.total_bytes);
            last = Some(info);
        };
        let broke = follow(channel, &job, take).await;
        if let Some(info) = last.take_if(|info| info.ended_ns != 0) {
            drop(progress);
            return ended(info);
        }
        if let Err(status) = &broke
            && (last.is_none() || !may_come_back(status))
        {
            return Err(status.clone().into());
        }
        if away.is_none() && !quiet {
            progress = None;
            eprintln!(
                "note: the coordinator went away; the agent goes on, and this command waits for both"
            );
        }
        if away.get_or_insert_with(Instant::now).elapsed() > COME_BACK {
            return Err(lost(last.as_ref()));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn follow(
    channel: &Channel,
    job: &Bytes,
    mut take: impl FnMut(v1::JobInfo),
) -> Result<(), tonic::Status> {
    let request = v1::WatchJobRequest { job: job.clone() };
    let mut stream = admin(channel).watch_job(request).await?.into_inner();
    while let Some(info) = stream.message().await? {
        take(info);
    }
    Ok(())
}

/// Whether the same question may be answered by the coordinator's next process. One that has just
/// started learns of the job when its agent is back.
fn may_come_back(status: &tonic::Status) -> bool {
    match reason_of(status).as_str() {
        "" => !matches!(
            status.code(),
            tonic::Code::PermissionDenied
                | tonic::Code::Unauthenticated
                | tonic::Code::Unimplemented
                | tonic::Code::InvalidArgument
        ),
        "JobNotFound" | "Cancelled" => true,
        _ => false,
    }
}

fn lost(last: Option<&v1::JobInfo>) -> Failure {
    let (what, volume) = last.map_or(("job", ""), |info| (&*info.what, &*info.volume));
    Failure::failed(format!(
        "nothing was heard of the {what} for {} s after the coordinator went away: it may have ended \
         meanwhile; look at `holdfast jobs` and `holdfast snapshots {volume}`, then start it again",
        COME_BACK.as_secs()
    ))
}

fn ended(info: v1::JobInfo) -> Outcome<v1::JobInfo> {
    let last = info.last.clone().unwrap_or_default();
    match last.state() {
        JobState::Done => Ok(info),
        JobState::Cancelled => Err(Failure::with(Exit::Interrupted, "the job was cancelled")),
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
            "problem: and {} more; `holdfast snapshots --problems SNAPSHOT` lists the first 100",
            total - shown
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_by_the_start_of_its_id() {
        let job = |first: u8| v1::JobInfo {
            id: vec![first, 0xcd, 1].into(),
            ..Default::default()
        };
        let jobs = vec![job(0xab), job(0xac), job(0xac)];
        assert_eq!(one_of(jobs.clone(), "ABcd").unwrap().id, jobs[0].id);
        for wrong in ["abc", "accd", "0000", "nope"] {
            assert!(one_of(jobs.clone(), wrong).is_err(), "{wrong}");
        }
    }
}
