//! `holdfast restore SNAPSHOT[:/PATH] --target DIR`: writes a snapshot back, here or on an agent's node.

use super::{admin, jobs, select};
use crate::args::{Format, Global, Restore};
use crate::connect::{self, Access};
use crate::failure::{Exit, Failure, Outcome, chain, exit_of};
use crate::gaps::Gaps;
use crate::output::{self, bytes};
use crate::progress::Progress as Shown;
use crate::signals;
use crate::suspicion;
use holdfast_agent::restore::{Action, RestoreOptions, RestoreReport, Target, restore};
use holdfast_agent::{Cancel, Progress};
use holdfast_format::id::hex;
use holdfast_format::path::escape;
use holdfast_proto::v1;
use serde_json::json;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Restores, and says what could not be.
pub async fn run(global: &Global, options: Restore) -> Outcome<()> {
    if let Some(node) = &options.node {
        return on_node(global, &options, node).await;
    }
    let connected = connect::open(global, Access::Read).await?;
    let (info, id, selection) = select(&connected.channel, &options.snapshot).await?;
    suspicion::tell(&info);
    let gaps = Gaps::new(&info, &selection.path);
    let target = std::path::absolute(&options.target)?;
    let progress = Arc::new(Progress::default());
    let cancel = Cancel::new();
    let shown = Shown::new("restore", global.quiet || options.dry_run);
    let how = RestoreOptions {
        in_place: options.in_place,
        delete: options.delete,
        special: options.special,
        dry_run: options.dry_run,
    };
    let state = connected.agent_state.as_deref();
    let temporary = state.map_or_else(std::env::temp_dir, |state| state.join("tmp"));
    let work = restore(
        connected.channel.clone(),
        id,
        selection.path.clone(),
        Target {
            directory: &target,
            temporary: &temporary,
            within: None,
        },
        &how,
        progress.clone(),
        cancel.clone(),
    );
    let work = signals::cancel_on_interrupt(work, cancel);
    let report = shown.follow(&progress, work).await;
    let report = report.map_err(|e| match e.reason() {
        "PathNotFound" => gaps.missing(&selection.path),
        "Cancelled" if !options.dry_run => Failure::with(
            Exit::Interrupted,
            "interrupted: the same command, run again, goes on with what is missing",
        ),
        reason => Failure::with(exit_of(reason), chain(&e)),
    })?;
    print(global, &options, &report, &gaps)?;
    connected.close().await;
    end(&options, &report, &gaps)
}

fn print(global: &Global, options: &Restore, report: &RestoreReport, gaps: &Gaps) -> Outcome<()> {
    gaps.tell();
    if let Some(plan) = &report.plan
        && matches!(global.output, Format::Table | Format::Wide | Format::Name)
    {
        print!("{plan}");
    }
    for problem in &report.problems {
        eprintln!("problem: {problem}");
    }
    let counts = [
        Action::Create,
        Action::Replace,
        Action::Metadata,
        Action::Delete,
        Action::Keep,
    ]
    .map(|a| report.count(a));
    let [created, replaced, metadata, deleted, kept] = counts;
    if matches!(global.output, Format::Json | Format::Yaml) {
        let plan = report
            .plan
            .as_ref()
            .map(|p| p.items.iter().map(ToString::to_string).collect::<Vec<_>>());
        return output::document(
            global.output,
            &json!({
                "snapshot": hex(report.snapshot.as_bytes()), "target": escape(report.target.as_os_str().as_bytes()),
                "resumed": report.resumed, "dry_run": options.dry_run, "created": created, "replaced": replaced,
                "metadata": metadata, "deleted": deleted, "kept": kept, "fetched_bytes": report.fetched_bytes,
                "written_bytes": report.written_bytes, "problem_count": report.problem_count,
                "snapshot_problem_count": gaps.count(),
                "problems": report.problems.iter().map(|p| json!({"path": p.path, "reason": p.problem.reason, "detail": p.problem.detail})).collect::<Vec<_>>(),
                "skipped": report.skipped_lines().collect::<Vec<_>>(), "plan": plan,
                "needed_bytes": report.space.map(|s| s.needed.bytes), "needed_inodes": report.space.map(|s| s.needed.inodes),
                "free_bytes": report.space.map(|s| s.free.bytes), "free_inodes": report.space.map(|s| s.free.inodes),
            }),
        );
    }
    if let Some(space) = report.space.filter(|_| !global.quiet) {
        let inodes = match space.free.inodes {
            u64::MAX => "any number of".to_owned(),
            free => free.to_string(),
        };
        eprintln!(
            "note: it needs {} and {} inodes; {} and {inodes} inodes are free",
            bytes(space.needed.bytes),
            space.needed.inodes,
            bytes(space.free.bytes)
        );
    }
    for line in report.skipped_lines() {
        eprintln!("note: {line}");
    }
    if global.output == Format::Name {
        println!("{}", report.target.display());
    } else if !global.quiet {
        let would = if options.dry_run {
            "would restore"
        } else {
            "restored"
        };
        let resumed = if report.resumed { ", resumed" } else { "" };
        let written = match report.written_bytes {
            0 => String::new(),
            count => format!("; {} written", bytes(count)),
        };
        println!(
            "{would} {} into {}{resumed}: {}{written}",
            report.snapshot.short(),
            escape(report.target.as_os_str().as_bytes()),
            counted(counts)
        );
    }
    Ok(())
}

/// What was done, without what was not.
fn counted(counts: [u64; 5]) -> String {
    const WORDS: [&str; 5] = [
        "created",
        "replaced",
        "with metadata set",
        "deleted",
        "as they were",
    ];
    let done: Vec<String> = counts
        .iter()
        .zip(WORDS)
        .filter(|(count, _)| **count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    if done.is_empty() {
        "nothing".into()
    } else {
        done.join(", ")
    }
}

fn end(options: &Restore, report: &RestoreReport, gaps: &Gaps) -> Outcome<()> {
    if let Some(why) = &report.too_small {
        return Err(Failure::with(exit_of("TargetTooSmall"), why.clone()));
    }
    if !report.is_complete() {
        return Err(Failure::with(
            Exit::Incomplete,
            format!(
                "{} paths were not restored as the snapshot has them",
                report.problem_count
            ),
        ));
    }
    if options.strict && !report.skipped.is_empty() {
        return Err(Failure::with(
            Exit::Incomplete,
            "some metadata could not be restored (--strict)",
        ));
    }
    if options.strict && gaps.count() > 0 {
        return Err(Failure::with(
            Exit::Incomplete,
            "the snapshot was stored incomplete (--strict)",
        ));
    }
    Ok(())
}

/// The same, by the agent of another node.
async fn on_node(global: &Global, options: &Restore, node: &str) -> Outcome<()> {
    if options.dry_run || options.strict || global.output != Format::Table {
        return Err(Failure::usage(
            "--node goes without --dry-run, --strict and -o: the job of another node reports no plan and no \
             counts; leave --node out to restore here",
        ));
    }
    if !options.target.is_absolute() {
        return Err(Failure::usage(
            "on another node the target must be an absolute path",
        ));
    }
    let connected = connect::open(global, Access::Write).await?;
    let (info, id, selection) = select(&connected.channel, &options.snapshot).await?;
    suspicion::tell(&info);
    let request = v1::StartRestoreRequest {
        snapshot: id.as_bytes().to_vec().into(),
        path: selection.path.as_bytes().to_vec().into(),
        target: options.target.as_os_str().as_bytes().to_vec().into(),
        node: node.to_owned(),
        options: Some(v1::RestoreOptions {
            in_place: options.in_place,
            delete_extras: options.delete,
            special: options.special,
            dry_run: false,
        }),
    };
    let job = admin(&connected.channel)
        .start_restore(request)
        .await?
        .into_inner();
    let ended = jobs::watch(&connected.channel, job.id, global.quiet).await?;
    let report = ended.last.unwrap_or_default();
    jobs::print_problems(&report.problems, report.problems.len() as u64);
    Gaps::new(&info, &selection.path).tell();
    if !global.quiet {
        println!(
            "restored {} into {} on {node}: {} files, {}",
            id.short(),
            escape(options.target.as_os_str().as_bytes()),
            report.done_files,
            bytes(report.done_bytes)
        );
    }
    connected.close().await;
    if report.problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::with(
            Exit::Incomplete,
            "some paths were not restored as the snapshot has them",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn zeros_are_left_out() {
        assert_eq!(counted([15, 0, 1, 0, 0]), "15 created, 1 with metadata set");
        assert_eq!(counted([0; 5]), "nothing");
    }
}
