//! `holdfast status`: what the coordinator is and holds.

use super::admin;
use crate::args::{Format, Global};
use crate::connect::{self, Access};
use crate::failure::Outcome;
use crate::output::{bytes, document, time};
use holdfast_format::id::hex;
use holdfast_proto::v1;
use serde_json::json;

/// Prints it.
pub async fn run(global: &Global) -> Outcome<()> {
    let connected = connect::open(global, Access::Read).await?;
    let s = admin(&connected.channel)
        .status(v1::StatusRequest {})
        .await?
        .into_inner();
    let repository = hex(&s.repository);
    // This process is no coordinator that serves: its sessions, agents and claim say nothing.
    let serves = connected.coordinator.is_none();
    match global.output {
        Format::Json | Format::Yaml => document(
            global.output,
            &json!({
                "version": s.version, "repository": repository, "store": s.store, "format_version": s.format_version,
                "volumes": s.volumes, "snapshots": s.snapshots, "suspicious": s.suspicious, "chunks": s.chunks, "packs": s.packs,
                "pack_bytes": s.pack_bytes, "open_sessions": serves.then_some(s.open_sessions),
                "agents": serves.then_some(s.agents), "claim_epoch": serves.then_some(s.claim_epoch),
                "started": serves.then(|| time(s.started_ns)),
            }),
        )?,
        Format::Name => println!("{repository}"),
        Format::Table | Format::Wide => {
            let agents = if s.agents.is_empty() {
                "none".to_owned()
            } else {
                s.agents.join(", ")
            };
            println!("repository   {repository} (format {})", s.format_version);
            println!("store        {}", s.store);
            println!("version      {}", s.version);
            println!("volumes      {}", s.volumes);
            println!("snapshots    {}", s.snapshots);
            if s.suspicious > 0 {
                println!(
                    "suspicious   {} snapshots, not acknowledged: see `holdfast snapshots`",
                    s.suspicious
                );
            }
            println!(
                "packs        {} ({}), {} chunks",
                s.packs,
                bytes(s.pack_bytes),
                s.chunks
            );
            if serves {
                println!("sessions     {} open", s.open_sessions);
                println!("agents       {agents}");
                println!("claim epoch  {}", s.claim_epoch);
                println!("started      {}", time(s.started_ns));
            }
        }
    }
    connected.close().await;
    Ok(())
}
