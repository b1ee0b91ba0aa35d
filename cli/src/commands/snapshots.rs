//! `holdfast snapshots`: what there is to restore.

use super::list_snapshots;
use crate::args::{Global, Snapshots};
use crate::connect::{self, Access};
use crate::failure::Outcome;
use crate::output::{self, Table, bytes, time};
use holdfast_format::id::hex;

/// Lists them, oldest first within a volume.
pub async fn run(global: &Global, options: Snapshots) -> Outcome<()> {
    let connected = connect::open(global, Access::Read).await?;
    let snapshots = list_snapshots(&connected.channel, options.volume).await?;
    let headings = &[
        "ID", "VOLUME", "TIME", "FILES", "SIZE", "ADDED", "PROBLEMS", "NODE", "SOURCE", "SEQ",
    ];
    let mut table = Table::new(headings, 7);
    for info in snapshots {
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
            facts.node,
            facts.source,
            info.sequence.to_string(),
        ];
        table.push(cells, id, output::snapshot(&info));
    }
    let result = table.print(global.output, "no snapshots yet");
    connected.close().await;
    result
}
