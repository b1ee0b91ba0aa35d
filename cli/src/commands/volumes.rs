//! `holdfast volumes`: every volume known or seen, protected or not, and why not.

use super::admin;
use crate::args::Global;
use crate::connect::{self, Access};
use crate::failure::Outcome;
use crate::output::{self, Table, age, bytes, time};
use holdfast_format::id::hex;
use holdfast_proto::v1;
use serde_json::json;

/// Lists them.
pub async fn run(global: &Global) -> Outcome<()> {
    let connected = connect::open(global, Access::Read).await?;
    let reply = admin(&connected.channel)
        .volumes(v1::VolumesRequest {})
        .await?
        .into_inner();
    let mut table = Table::new(
        &[
            "VOLUME",
            "SNAPSHOTS",
            "LATEST",
            "STATE",
            "JOURNAL",
            "EXPOSED",
            "POLICY",
            "NEXT RUN",
            "SOURCE",
            "NODE",
            "ID",
        ],
        7,
    );
    let listed = |volume: &v1::VolumeInfo| {
        let facts = volume.facts.as_ref();
        global.lists(facts.map_or("", |facts| &facts.namespace))
    };
    for volume in reply.volumes.into_iter().filter(listed) {
        let exposed = exposed(&volume);
        let facts = volume.facts.unwrap_or_default();
        let latest = volume.latest.as_ref().map(|s| time(s.received_ns));
        let state = match (volume.eligible, volume.reason.as_str()) {
            // Without a coordinator there are no agents that could serve it.
            (false, "" | "NotServed") if connected.coordinator.is_some() => "-".to_owned(),
            (true, _) => "served".to_owned(),
            (false, "" | "NotServed") => "not served".to_owned(),
            (false, reason) => reason.to_owned(),
        };
        let said = volume.protection.clone().unwrap_or_default();
        let next = (said.next_run_ns != 0).then(|| time(said.next_run_ns));
        let told = volume.state.clone().unwrap_or_default();
        let is_told = volume.state.is_some();
        let document = json!({
            "name": facts.name, "id": hex(&volume.id), "snapshots": volume.snapshots, "eligible": volume.eligible,
            "reason": volume.reason, "detail": volume.detail, "source": facts.source, "node": facts.node,
            "agent": volume.agent, "namespace": facts.namespace, "plugin": facts.plugin,
            "persistentvolumeclaim": facts.persistentvolumeclaim,
            "latest": volume.latest.as_ref().map(output::snapshot), "suspicious": volume.suspicious,
            "exposed_seconds": seconds(volume.exposed_ns), "exposed_at_most": volume.exposed_at_most,
            "journal": is_told.then_some(&told.journal), "journal_reason": is_told.then_some(&told.reason),
            "exposed_bytes": is_told.then_some(told.exposed_bytes),
            "exposed_files": is_told.then_some(told.exposed_files),
            "quiet_seconds": is_told.then(|| seconds(told.quiet_ns)),
            "policy": said.policy, "unprotected": said.reason, "next_run": next,
            "watched_directories": is_told.then_some(told.watched_directories),
        });
        let cells = vec![
            facts.name.clone(),
            volume.snapshots.to_string(),
            latest.unwrap_or_else(|| "never".into()),
            state,
            match is_told {
                true => told.journal,
                false => "-".to_owned(),
            },
            exposed,
            policy(volume.protection.as_ref()),
            next.unwrap_or_else(|| "-".to_owned()),
            facts.source,
            facts.node,
            hex(&volume.id),
        ];
        table.push(cells, facts.name, document);
    }
    let result = table.print(
        global.output,
        match &global.at {
            None => "no volumes yet: `holdfast backup DIR` makes the first snapshot",
            Some(_) => "no volumes in the namespace; -A lists those of all namespaces",
        },
    );
    connected.close().await;
    result
}

/// The policy that protects it, or why none does.
fn policy(protection: Option<&v1::Protection>) -> String {
    match protection {
        None => "-".to_owned(),
        Some(one) if one.reason.is_empty() => one.policy.clone(),
        Some(one) => one.reason.clone(),
    }
}

/// How far it is ahead of its newest snapshot: the age of the oldest change and about how much it is, `none`,
/// or at most how old a change can be where nobody watches it.
fn exposed(volume: &v1::VolumeInfo) -> String {
    match (volume.exposed_at_most, volume.exposed_ns) {
        (true, 0) => "all".to_owned(),
        (true, ns) => format!("<= {}", age(ns)),
        (false, 0) => "none".to_owned(),
        (false, ns) => match volume.state.as_ref().map_or(0, |state| state.exposed_bytes) {
            0 => age(ns),
            count => format!("{}, {}", age(ns), bytes(count)),
        },
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposure_is_an_age_a_size_or_a_bound() {
        let volume = |exposed_at_most, seconds: u64, exposed_bytes| v1::VolumeInfo {
            exposed_at_most,
            exposed_ns: seconds * 1_000_000_000,
            state: Some(v1::VolumeState {
                exposed_bytes,
                ..Default::default()
            }),
            ..Default::default()
        };
        for (volume, expected) in [
            (volume(false, 0, 0), "none"),
            (volume(false, 90, 0), "90s"),
            (volume(false, 300, 12 << 20), "5m, 12.0 MiB"),
            (volume(true, 3 * 3600, 0), "<= 3h"),
            (volume(true, 0, 0), "all"),
        ] {
            assert_eq!(exposed(&volume), expected);
        }
    }
}
