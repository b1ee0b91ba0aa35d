//! `holdfast volumes`: every volume known or seen, protected or not, and why not.

use super::admin;
use crate::args::Global;
use crate::connect::{self, Access};
use crate::failure::Outcome;
use crate::output::{self, Table, time};
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
            "SOURCE",
            "NODE",
            "ID",
        ],
        5,
    );
    for volume in reply.volumes {
        let facts = volume.facts.unwrap_or_default();
        let latest = volume.latest.as_ref().map(|s| time(s.received_ns));
        let state = match (volume.eligible, volume.reason.as_str()) {
            // Without a coordinator there are no agents that could serve it.
            (false, "" | "NotServed") if connected.coordinator.is_some() => "-".to_owned(),
            (true, _) => "served".to_owned(),
            (false, "" | "NotServed") => "not served".to_owned(),
            (false, reason) => reason.to_owned(),
        };
        let document = json!({
            "name": facts.name, "id": hex(&volume.id), "snapshots": volume.snapshots, "eligible": volume.eligible,
            "reason": volume.reason, "detail": volume.detail, "source": facts.source, "node": facts.node,
            "agent": volume.agent, "namespace": facts.namespace, "plugin": facts.plugin,
            "persistentvolumeclaim": facts.persistentvolumeclaim,
            "latest": volume.latest.as_ref().map(output::snapshot),
        });
        let cells = vec![
            facts.name.clone(),
            volume.snapshots.to_string(),
            latest.unwrap_or_else(|| "never".into()),
            state,
            facts.source,
            facts.node,
            hex(&volume.id),
        ];
        table.push(cells, facts.name, document);
    }
    let result = table.print(
        global.output,
        "no volumes yet: `holdfast backup DIR` makes the first snapshot",
    );
    connected.close().await;
    result
}
