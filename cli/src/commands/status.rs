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
                "agent_infos": serves.then(|| s.agent_infos.iter().map(agent).collect::<Vec<_>>()),
                "policy_files": s.policy_files.as_ref().map(|files| json!({
                    "path": files.path, "policies": files.policies, "read": time(files.read_ns),
                    "mistakes": files.mistakes,
                })),
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
                for agent in &s.agent_infos {
                    println!("             {}", said_of(agent));
                    for trouble in agent.condition.iter().flat_map(|said| &said.troubles) {
                        println!("               {}: {}", trouble.reason, trouble.detail);
                    }
                }
                println!("claim epoch  {}", s.claim_epoch);
                println!("started      {}", time(s.started_ns));
                if let Some(files) = &s.policy_files {
                    println!("policies     {} of {}", files.policies, files.path);
                    if !files.mistakes.is_empty() {
                        println!(
                            "             as read at {}: what is there now is not in force",
                            time(files.read_ns)
                        );
                    }
                    for mistake in &files.mistakes {
                        println!("             {mistake}");
                    }
                }
            }
        }
    }
    connected.close().await;
    Ok(())
}

/// Clocks that differ by more are told.
const MAX_SKEW_NS: u64 = 30_000_000_000;

/// Whether its node's clock is near the coordinator's, as far as is known.
pub fn is_clock_right(agent: &v1::AgentInfo) -> bool {
    agent.clock_ahead_ns.unsigned_abs() <= MAX_SKEW_NS
}

/// An agent in one line.
pub fn said_of(agent: &v1::AgentInfo) -> String {
    let mut said = format!("{}: version {}", agent.node, agent.version);
    if let Some(condition) = &agent.condition {
        let landlock = match condition.landlock {
            0 => "not restricted".to_owned(),
            abi => format!("restricted (Landlock {abi})"),
        };
        said.push_str(&format!(", changes by {}, {landlock}", condition.journal));
        if !is_clock_right(agent) {
            let seconds = agent.clock_ahead_ns / 1_000_000_000;
            said.push_str(&format!(
                "; its clock is {} s {} the coordinator's: set it",
                seconds.unsigned_abs(),
                if seconds > 0 { "ahead of" } else { "behind" }
            ));
        }
    }
    said
}

/// What is known of a connected agent, for programs.
pub fn agent(agent: &v1::AgentInfo) -> serde_json::Value {
    let said = agent.condition.clone();
    let is_told = said.is_some();
    let said = said.unwrap_or_default();
    let limits: serde_json::Map<_, _> = said
        .limits
        .iter()
        .map(|limit| (limit.name.clone(), limit.value.into()))
        .collect();
    let troubles = said.troubles.iter();
    let troubles: Vec<_> = troubles
        .map(|one| json!({"reason": one.reason, "detail": one.detail}))
        .collect();
    json!({
        "node": agent.node, "version": agent.version, "protocol": agent.protocol, "boot_id": agent.boot_id,
        "clock_ahead_seconds": is_told.then_some(agent.clock_ahead_ns as f64 / 1e9),
        "journal": said.journal, "journal_detail": said.journal_detail,
        "landlock_abi": said.landlock, "landlock_detail": said.landlock_detail,
        "kernel": said.kernel, "kubelet_pods": said.kubelet_pods, "limits": limits, "troubles": troubles,
    })
}
