//! The volumes that are known: those that have snapshots, and those that agents list, each once.

use super::protection::{decisions, protection};
use crate::Coordinator;
use crate::browse;
use crate::catalog::Volume;
use crate::error::{Error, Result};
use crate::schedule::TRUSTED;
use holdfast_format::id::VolumeId;
use holdfast_format::volume::VolumeFacts;
use holdfast_format::wire::{SnapshotInfo, id_to_wire};
use holdfast_proto::v1 as proto;
use std::collections::HashMap;

impl Coordinator {
    /// The volume with this name.
    pub(crate) async fn volume(&self, name: &str) -> Result<Volume> {
        let found = self.library.catalog.volume_by_name(&name.parse()?).await?;
        found.ok_or_else(|| Error::VolumeNotFound {
            volume: name.to_owned(),
        })
    }

    /// Volumes that have snapshots, and those that agents list.
    pub(crate) async fn volumes(&self) -> Result<Vec<proto::VolumeInfo>> {
        let catalog = &self.library.catalog;
        let mut latest: HashMap<VolumeId, (u64, SnapshotInfo)> = HashMap::new();
        for row in catalog.snapshots(None).await? {
            let info = browse::info(&row)?;
            let count = latest.get(&row.volume).map_or(0, |(count, _)| *count);
            latest.insert(row.volume, (count + 1, info));
        }
        let suspicious = catalog.suspicious_counts().await?;
        let mut states: HashMap<String, proto::VolumeState> = HashMap::new();
        for served in self.hub.served(self.clock.elapsed()) {
            // The first that serves it is the one that is asked for it.
            if let Some((state, _)) = served.state {
                states.entry(served.facts.name).or_insert(state);
            }
        }
        let mut listed = self.hub.volumes();
        let mut out = Vec::new();
        for volume in catalog.volumes().await? {
            let name = volume.facts.name.as_str();
            let serving = listed.iter().position(|(_, l)| named(l, name));
            let serving = serving.map(|at| listed.swap_remove(at));
            let (snapshots, info) = latest.remove(&volume.id).unzip();
            let mut message = served(serving);
            message.id = id_to_wire(volume.id.as_bytes());
            message.facts = Some(volume.facts.clone().into());
            message.latest = info.map(Into::into);
            message.snapshots = snapshots.unwrap_or(0);
            message.suspicious = suspicious.get(&volume.id).copied().unwrap_or(0);
            out.push(message);
        }
        out.extend(listed.into_iter().map(|listed| served(Some(listed))));
        let now_ns = self.clock.now_ns();
        let picture = self.picture();
        let decided = decisions(picture.as_deref());
        let next = self.next_runs();
        for message in &mut out {
            let name = message.facts.as_ref().map(|facts| &facts.name[..]);
            let name = name.unwrap_or_default();
            message.state = states.remove(name);
            if let Some(decision) = decided.get(name) {
                message.protection = Some(protection(decision, next.get(name)));
            }
            expose(message, now_ns);
        }
        Ok(out)
    }

    /// The node that serves a volume now, else the one it was read on.
    pub(crate) fn node_of(&self, facts: &VolumeFacts) -> String {
        let listed = self.hub.volumes();
        let serving = listed
            .into_iter()
            .find(|(_, l)| named(l, facts.name.as_str()));
        serving.map_or_else(|| facts.node.clone(), |(node, _)| node)
    }
}

fn named(listed: &proto::AgentVolume, name: &str) -> bool {
    listed
        .facts
        .as_ref()
        .is_some_and(|facts| facts.name == name)
}

/// How long the oldest change may have been in no snapshot: as a journal that saw all of them says, else
/// since the newest snapshot was begun.
fn expose(message: &mut proto::VolumeInfo, now_ns: i64) {
    match (&message.state, &message.latest) {
        (Some(state), _) if state.journal == TRUSTED => message.exposed_ns = state.exposed_ns,
        (_, Some(latest)) => {
            let begun = latest.started_ns.min(latest.received_ns);
            let age = now_ns.saturating_sub(begun).max(1);
            message.exposed_ns = u64::try_from(age).unwrap_or(1);
            message.exposed_at_most = true;
        }
        // Never backed up: there is no age to tell.
        (_, None) => message.exposed_at_most = true,
    }
}

/// What an agent says of a volume.
fn served(listed: Option<(String, proto::AgentVolume)>) -> proto::VolumeInfo {
    let Some((node, listed)) = listed else {
        return proto::VolumeInfo {
            reason: "NotServed".into(),
            detail: "no connected agent lists it".into(),
            ..proto::VolumeInfo::default()
        };
    };
    proto::VolumeInfo {
        facts: listed.facts,
        eligible: listed.eligible,
        reason: listed.reason,
        detail: listed.detail,
        agent: node,
        ..proto::VolumeInfo::default()
    }
}
