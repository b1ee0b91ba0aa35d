//! `holdfast backup`: a snapshot of directories in this process, or of volumes that agents serve.

use super::{admin, jobs, list_snapshots};
use crate::args::{Backup, Format, Global};
use crate::connect::{self, Access, Connected};
use crate::failure::{Exit, Failure, Outcome, chain, exit_of};
use crate::output::{self, Table, bytes};
use crate::progress::Progress as Shown;
use crate::selector::new_volume;
use crate::signals;
use crate::suspicion;
use holdfast_agent::backup::{BackupOptions, RunReport, backup};
use holdfast_agent::client::Client;
use holdfast_agent::limits::RateLimit;
use holdfast_agent::rolling::{self, PassOptions, Rolling};
use holdfast_agent::rules::Rules;
use holdfast_agent::volumes::{ExplicitVolume, VolumeCandidate, VolumeSettings, discover};
use holdfast_agent::{Cancel, Progress};
use holdfast_format::id::hex;
use holdfast_format::volume::VolumeName;
use holdfast_proto::v1;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

const HEADINGS: &[&str] = &[
    "SNAPSHOT", "VOLUME", "FILES", "SIZE", "CHANGED", "ADDED", "PROBLEMS",
];

/// Backs up everything that was named; the worst end of all is the command's.
pub async fn run(global: &Global, options: Backup) -> Outcome<()> {
    if options.name.is_some() && options.what.len() > 1 {
        return Err(Failure::usage("--name goes with one directory"));
    }
    let here = global.repo.is_some();
    if !here {
        let connected = connect::open(global, Access::Write).await?;
        return by_agents(global, &options, connected).await;
    }
    if options.no_wait {
        return Err(Failure::usage(
            "--no-wait goes with --coordinator: with --repo this process makes the backup",
        ));
    }
    // Everything that can be wrong with the command line is told before anything is opened.
    let rules =
        Rules::new(&options.exclude, &options.include).map_err(|e| Failure::usage(chain(&e)))?;
    let volumes = volumes(&options)?;
    let connected = connect::open(global, Access::Create).await?;
    let result = in_process(global, &options, rules, &volumes, &connected).await;
    connected.close().await;
    result
}

/// The directories as volumes; each must be there and readable as a volume.
fn volumes(options: &Backup) -> Outcome<Vec<VolumeCandidate>> {
    let mut explicit: Vec<ExplicitVolume> = Vec::new();
    for what in &options.what {
        let path = PathBuf::from(what);
        let name = match &options.name {
            Some(name) => name.clone(),
            None => default_name(&path)?,
        };
        let name = new_volume(&name)
            .map_err(|e| Failure::usage(format!("{}; choose one with --name", e.message)))?;
        if explicit.iter().any(|earlier| earlier.name == name) {
            return Err(Failure::usage(format!(
                "two directories are both called {name}: back them up one by one, with --name"
            )));
        }
        explicit.push(ExplicitVolume {
            name,
            path: std::path::absolute(&path)?,
        });
    }
    let settings = VolumeSettings {
        node: connect::node(),
        kubelet_pods: None,
        explicit,
        ..VolumeSettings::default()
    };
    let found = discover(&settings, None).map_err(|e| Failure::usage(chain(&e)))?;
    for volume in &found {
        if let Err(why) = &volume.eligible {
            return Err(Failure::failed(format!("{}: {why}", volume.facts.name)));
        }
    }
    Ok(found)
}

fn default_name(path: &std::path::Path) -> Outcome<String> {
    let full = path
        .canonicalize()
        .map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
    match full.file_name().and_then(|n| n.to_str()) {
        Some(name) => Ok(name.to_owned()),
        None => Err(Failure::usage(format!(
            "{}: give the volume a name with --name",
            path.display()
        ))),
    }
}

async fn in_process(
    global: &Global,
    options: &Backup,
    rules: Rules,
    volumes: &[VolumeCandidate],
    connected: &Connected,
) -> Outcome<()> {
    let Some(state) = &connected.agent_state else {
        return Err(Failure::usage(
            "directories are backed up with --repo; a coordinator is asked for volumes by name",
        ));
    };
    connect::private_dir(&state.join("index"))?;
    let client = Client::new(connected.channel.clone());
    let mut worst = Exit::Done;
    let mut table = Table::new(HEADINGS, HEADINGS.len());
    let rolling = Rolling::new(rolling::PERIOD, &state.join("index"));
    for volume in volumes {
        let mut how = BackupOptions::new(state, connect::node());
        how.rules = rules.clone();
        how.adopt = options.adopt;
        how.read_rate = RateLimit::new(options.read_rate);
        how.upload_rate = RateLimit::new(options.send_rate);
        how.rolling = Some(rolling.clone());
        let report = one(global, &client, volume, &how).await?;
        if let Some(note) = &volume.note {
            eprintln!("note: {}: {note}", volume.facts.name);
        }
        if let Some(damage) = &report.parent_damage {
            eprintln!(
                "note: the snapshot before this one is damaged ({damage}); what it lost was read again, and \
                 this snapshot does not need it"
            );
        }
        for boundary in &report.boundaries {
            eprintln!(
                "note: {boundary} is a mount of its own and was not entered; back it up as a volume of its own"
            );
        }
        let info: v1::SnapshotInfo = report.snapshot.clone().into();
        let files = info.stats.as_ref().map_or(0, |stats| stats.files);
        if files == 0 && !options.include.is_empty() {
            eprintln!(
                "warning: {}: no file matches --include: the snapshot holds none",
                volume.facts.name
            );
        }
        if report.problems() > 0 {
            jobs::print_problems(&info.first_problems, report.problems());
            worst = worst.worse(Exit::Incomplete);
        }
        push(&mut table, volume.facts.name.as_str(), &info);
        if !options.no_reread {
            worst = worst.worse(read_again(global, volume, &how, &rolling).await);
        }
    }
    print(global, table, worst)
}

/// One row of what was made.
fn push(table: &mut Table, volume: &str, info: &v1::SnapshotInfo) {
    suspicion::tell(info);
    let stats = info.stats.unwrap_or_default();
    let id = hex(&info.id);
    let cells = vec![
        id[..12.min(id.len())].to_owned(),
        volume.to_owned(),
        stats.files.to_string(),
        bytes(stats.content_bytes),
        stats.entries_changed.to_string(),
        bytes(stats.stored_bytes),
        stats.problems.to_string(),
    ];
    table.push(cells, id, output::snapshot(info));
}

fn print(global: &Global, table: Table, worst: Exit) -> Outcome<()> {
    if !(global.quiet && matches!(global.output, Format::Table | Format::Wide)) {
        table.print(global.output, "")?;
    }
    match worst {
        Exit::Done => Ok(()),
        exit => Err(Failure::with(
            exit,
            "stored, but some files could not be read as they are; see the problems above",
        )),
    }
}

async fn one(
    global: &Global,
    client: &Client,
    volume: &VolumeCandidate,
    how: &BackupOptions,
) -> Outcome<RunReport> {
    let progress = Arc::new(Progress::default());
    let cancel = Cancel::new();
    let shown = Shown::new(format!("backup of {}", volume.facts.name), global.quiet);
    let work = backup(client, volume, how, progress.clone(), cancel.clone());
    let work = signals::cancel_on_interrupt(work, cancel);
    let report = shown.follow(&progress, work).await;
    report.map_err(|e| Failure::with(exit_of(e.reason()), chain(&e)))
}

/// Reads what is due of the files that have not changed, once the snapshot is stored.
async fn read_again(
    global: &Global,
    volume: &VolumeCandidate,
    how: &BackupOptions,
    rolling: &Rolling,
) -> Exit {
    let name = volume.facts.name.to_string();
    let (cancel, progress) = (Cancel::new(), Progress::new());
    let options = PassOptions {
        boot_id: how.boot_id.clone(),
        node: how.node.clone(),
        rate: how.read_rate.clone(),
        now_ns: how.clock.now_ns(),
        // A day's part of the period: who backs up once a week is not to wait for all of it.
        most: Some(rolling::PERIOD / 7),
        journals: None,
        progress: progress.clone(),
        cancel: cancel.clone(),
    };
    let (rolling, volume) = (rolling.clone(), name.clone());
    let work = tokio::task::spawn_blocking(move || rolling.pass(&volume, &options));
    let shown = Shown::new(format!("reading {name} again"), global.quiet);
    let work = signals::cancel_on_interrupt(work, cancel);
    // The snapshot stands, whatever becomes of this.
    let found = match shown.follow(&progress, work).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            eprintln!("note: {name}: the reading of unchanged files was not finished: {error}");
            return Exit::Done;
        }
        Err(error) => {
            eprintln!("warning: {name}: the reading of unchanged files broke: {error}");
            return Exit::Done;
        }
    };
    if found.files > 0 && !global.quiet {
        eprintln!(
            "{name}: {} files ({}) that had not changed were read again",
            found.files,
            bytes(found.bytes)
        );
    }
    for path in &found.silent {
        eprintln!(
            "problem: {path}: ChangedSilently: it holds something else than what is stored, though neither its \
             times nor its size changed (a damaged disk or memory?): compare it with the snapshot; the next \
             backup stores it as it is then"
        );
    }
    for path in &found.in_flight {
        eprintln!(
            "problem: {path}: ChangedWhileRead: it was being written when it was read, and what is stored of it is \
             of no one moment; the next backup reads it again"
        );
    }
    match found.silent.is_empty() && found.in_flight.is_empty() {
        true => Exit::Done,
        false => Exit::Incomplete,
    }
}

async fn by_agents(global: &Global, options: &Backup, connected: Connected) -> Outcome<()> {
    if options.name.is_some()
        || options.adopt
        || options.read_rate.is_some()
        || options.send_rate.is_some()
        || options.no_reread
    {
        return Err(Failure::usage(
            "--name, --adopt, --read-rate, --send-rate and --no-reread go with --repo: volumes of agents are set up there",
        ));
    }
    let mut started = Vec::new();
    for what in &options.what {
        let volume = volume_name(what)?;
        let request = v1::StartBackupRequest {
            volume,
            exclude: options.exclude.clone(),
            include: options.include.clone(),
        };
        started.push(
            admin(&connected.channel)
                .start_backup(request)
                .await?
                .into_inner(),
        );
    }
    if options.no_wait {
        if matches!(global.output, Format::Json | Format::Yaml) {
            let jobs = started.iter().map(jobs::as_document).collect();
            return output::document(global.output, &serde_json::Value::Array(jobs));
        }
        for job in started {
            println!("{}", hex(&job.id));
        }
        return Ok(());
    }
    tokio::select! {
        done = all(global, &connected, &started) => done,
        () = signals::interrupted() => {
            if !global.quiet {
                for job in &started {
                    let id = hex(&job.id);
                    eprintln!("note: the backup of {} goes on: `holdfast jobs --cancel {id}` ends it", job.volume);
                }
            }
            Err(Failure::with(Exit::Interrupted, ""))
        }
    }
}

/// Waits for all jobs; one that fails does not hide the others.
async fn all(global: &Global, connected: &Connected, started: &[v1::JobInfo]) -> Outcome<()> {
    let channel = &connected.channel;
    let mut worst = Exit::Done;
    let mut table = Table::new(HEADINGS, HEADINGS.len());
    let mut failed: Option<Failure> = None;
    for job in started {
        let ended = match jobs::watch(channel, job.id.clone(), global.quiet).await {
            Ok(ended) => ended,
            Err(failure) => {
                if let Some(earlier) = failed.replace(failure) {
                    eprintln!("holdfast: {}", earlier.message);
                }
                continue;
            }
        };
        let report = ended.last.unwrap_or_default();
        let stats = report.stats.unwrap_or_default();
        jobs::print_problems(&report.problems, stats.problems);
        if stats.problems > 0 {
            worst = worst.worse(Exit::Incomplete);
        }
        let listed = list_snapshots(channel, Some(job.volume.clone())).await?;
        let listed = listed.snapshots;
        let made = listed.into_iter().find(|info| info.id == report.snapshot);
        // It may have been forgotten already.
        let made = made.unwrap_or_else(|| v1::SnapshotInfo {
            id: report.snapshot,
            stats: Some(stats),
            ..v1::SnapshotInfo::default()
        });
        push(&mut table, &job.volume, &made);
    }
    if let Some(failure) = failed {
        if !table.is_empty() {
            let _ = print(global, table, worst);
        }
        return Err(failure);
    }
    print(global, table, worst)
}

/// A volume's name; a path is told to be one.
fn volume_name(what: &OsString) -> Outcome<String> {
    let text = what.to_string_lossy().into_owned();
    match text.parse::<VolumeName>() {
        Ok(name) => Ok(name.to_string()),
        Err(_) => Err(Failure::usage(format!(
            "{text:?} is no volume name: a coordinator backs up volumes that its agents serve (see `holdfast volumes`); directories go with --repo"
        ))),
    }
}
