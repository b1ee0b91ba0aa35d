//! `holdfast snapshots`: what there is to restore.

use super::{list_snapshots, select};
use crate::args::{Global, Snapshots};
use crate::connect::{self, Access, Connected};
use crate::failure::{Exit, Failure, Outcome};
use crate::gaps::shown_path;
use crate::output::{self, Table, bytes, time};
use crate::suspicion;
use holdfast_format::id::hex;

/// Lists them, oldest first within a volume.
pub async fn run(global: &Global, options: Snapshots) -> Outcome<()> {
    let connected = connect::open(global, Access::Read).await?;
    if let Some(snapshot) = &options.problems {
        let result = problems(global, &connected, snapshot).await;
        connected.close().await;
        return result;
    }
    let is_named = options.volume.is_some();
    let mut listed = list_snapshots(&connected.channel, options.volume).await?;
    listed.snapshots.retain(|info| {
        let facts = info.facts.as_ref();
        is_named || global.lists(facts.map_or("", |facts| &facts.namespace))
    });
    let headings = &[
        "ID", "VOLUME", "TIME", "FILES", "SIZE", "ADDED", "PROBLEMS", "SCORE", "STATE", "NODE",
        "SOURCE", "SEQ",
    ];
    let mut table = Table::new(headings, 7);
    let notes: Vec<String> = listed
        .snapshots
        .iter()
        .filter_map(suspicion::note)
        .collect();
    for info in listed.snapshots {
        let stats = info.stats.unwrap_or_default();
        let facts = info.facts.clone().unwrap_or_default();
        let id = hex(&info.id);
        let cells = vec![
            id[..12.min(id.len())].to_owned(),
            facts.name,
            time(info.received_ns),
            stats.files.to_string(),
            bytes(stats.content_bytes),
            bytes(stats.stored_bytes),
            info.problems.to_string(),
            info.signals
                .as_ref()
                .map_or("-".into(), |_| info.score.to_string()),
            suspicion::state(&info).to_owned(),
            facts.node,
            facts.source,
            info.sequence.to_string(),
        ];
        table.push(cells, id, output::snapshot(&info));
    }
    let result = table.print(
        global.output,
        match &global.at {
            None => "no snapshots yet",
            Some(_) => "no snapshots in the namespace; -A lists those of all namespaces",
        },
    );
    connected.close().await;
    result?;
    notes.iter().for_each(|note| eprintln!("warning: {note}"));
    match listed.damaged_records.len() {
        0 => Ok(()),
        count => Err(Failure::with(
            Exit::Damage,
            format!("{count} snapshots are not listed: their records are damaged"),
        )),
    }
}

/// What one of them was stored with.
async fn problems(global: &Global, connected: &Connected, snapshot: &str) -> Outcome<()> {
    let (info, _, selection) = select(&connected.channel, snapshot).await?;
    if !selection.path.is_root() {
        return Err(Failure::usage(
            "--problems lists those of a whole snapshot: leave the path out",
        ));
    }
    let headings = &["PATH", "REASON", "KEPT", "DETAIL"];
    let mut table = Table::new(headings, headings.len());
    for problem in &info.first_problems {
        let path = shown_path(problem);
        let kept = if problem.carried_over {
            "earlier state"
        } else {
            "nothing"
        };
        let cells = vec![
            path.clone(),
            problem.reason.clone(),
            kept.into(),
            problem.detail.clone(),
        ];
        table.push(cells, path, output::problem(problem));
    }
    table.print(global.output, "no problems: this snapshot is complete")?;
    let named = info.first_problems.len() as u64;
    if info.problems > named {
        eprintln!(
            "note: {} more are counted and not named in the snapshot's record",
            info.problems - named
        );
    }
    Ok(())
}
