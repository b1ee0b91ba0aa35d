//! Which snapshot a restore means, whether its namespace may have it, and what a new claim for it asks for.
//!
//! Snapshots belong to the namespace that they were taken in. Another namespace gets them only where the one that
//! they are of says so, by an annotation of its Namespace: an object that tenants usually may not write.

use super::scene::{Choice, ClaimWanted, Failure};
use crate::Coordinator;
use crate::browse;
use crate::catalog::SnapshotRow;
use crate::error::Result;
use crate::kube::api::{NewClaim, RestoreSource, RestoreSpec, SourceClaim};
use crate::kube::facts::ClaimFacts;
use crate::kube::world::World;
use holdfast_format::id::IdPrefix;
use holdfast_format::volume::VolumeFacts;
use holdfast_format::wire::SnapshotInfo;

/// Whether a volume is the one that a source means.
type IsMeant = Box<dyn Fn(&VolumeFacts) -> bool + Send + Sync>;

/// The annotation of a namespace that says which others may have its snapshots: names, or `*`.
pub const RESTORE_TO: &str = "holdfast.dev/restore-to";

/// A snapshot's row and what its record says.
pub type Found = std::result::Result<SnapshotInfo, Failure>;

/// Finds the snapshot. An error is the catalog's, and may pass.
pub async fn find(
    coordinator: &Coordinator,
    source: &RestoreSource,
    namespace: &str,
) -> Result<Found> {
    let catalog = &coordinator.library().catalog;
    if let Some(prefix) = &source.snapshot {
        let Ok(prefix) = prefix.parse::<IdPrefix>() else {
            return Ok(missing(format!("{prefix} is no id of a snapshot")));
        };
        let ids = catalog.snapshots_by_prefix(&prefix).await?;
        let id = match ids.as_slice() {
            [id] => id,
            [] => return Ok(missing("no snapshot has this id".to_owned())),
            _ => {
                return Ok(missing(format!(
                    "{} snapshots have ids that begin so",
                    ids.len()
                )));
            }
        };
        return match catalog.snapshot(id).await? {
            Some(row) => Ok(Ok(browse::info(&row)?)),
            None => Ok(missing("no snapshot has this id".to_owned())),
        };
    }
    let (is_meant, name): (IsMeant, String) = match source {
        RestoreSource {
            claim: Some(claim), ..
        } => {
            let of = claim.namespace.as_deref().unwrap_or(namespace).to_owned();
            let SourceClaim { name, uid, .. } = claim.clone();
            let said = format!("claim {of}/{name}");
            let is_meant = move |facts: &VolumeFacts| {
                facts.namespace == of
                    && facts.persistentvolumeclaim == name
                    && uid.as_ref().is_none_or(|uid| *uid == facts.pvc_uid)
            };
            (Box::new(is_meant), said)
        }
        _ => {
            let name = source.volume.clone().unwrap_or_default();
            let said = format!("volume {name}");
            (
                Box::new(move |facts: &VolumeFacts| facts.name.as_str() == name),
                said,
            )
        }
    };
    let latest = source.as_of.as_ref().map(|time| time.0.as_nanosecond());
    let mut newest: Option<SnapshotRow> = None;
    for volume in catalog.volumes().await? {
        if !is_meant(&volume.facts) {
            continue;
        }
        for row in catalog.snapshots(Some(volume.no)).await? {
            let is_late = latest.is_some_and(|latest| i128::from(row.started_ns) > latest);
            let is_newer = newest
                .as_ref()
                .is_none_or(|newest| row.received_ns > newest.received_ns);
            if !is_late && is_newer {
                newest = Some(row);
            }
        }
    }
    match newest {
        Some(row) => Ok(Ok(browse::info(&row)?)),
        None => {
            let by = source.as_of.as_ref();
            let by = by.map(|time| format!(" that was begun by {}", time.0));
            Ok(missing(format!(
                "{name} has no snapshot{}",
                by.unwrap_or_default()
            )))
        }
    }
}

fn missing(message: String) -> Found {
    Err(Failure::new("SnapshotMissing", message))
}

/// Whether a namespace may have snapshots of another one.
pub fn may_have(
    world: &World,
    namespace: &str,
    of: &str,
    volume: &str,
) -> std::result::Result<(), Failure> {
    if of == namespace {
        return Ok(());
    }
    if of.is_empty() {
        let message = format!(
            "{volume} is no volume of this cluster's namespaces; restore it with `holdfast restore`"
        );
        return Err(Failure::new("SourceNotAllowed", message));
    }
    let allowed = world
        .namespace(of)
        .filter(|namespace| !namespace.deleting)
        .and_then(|namespace| namespace.annotations.get(RESTORE_TO));
    let allowed = allowed.map_or("", |names| &names[..]);
    let mut names = allowed.split(',').map(str::trim);
    if names.any(|name| !name.is_empty() && (name == namespace || name == "*")) {
        return Ok(());
    }
    let message = format!(
        "the snapshot is of namespace {of}, which does not let {namespace} have it; whoever administers {of} \
         allows it by its annotation {RESTORE_TO}: {namespace}"
    );
    Err(Failure::new("SourceNotAllowed", message))
}

/// What is chosen, with what a new claim would ask for.
pub fn choice(spec: &RestoreSpec, info: &SnapshotInfo, source: Option<&ClaimFacts>) -> Choice {
    let wanted = spec.target.new_claim.as_ref();
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let stats = &info.stats;
    Choice {
        id: info.id.to_string(),
        volume: info.facts.name.to_string(),
        begun: super::next::moment(info.started_ns),
        entries: count(stats.files + stats.directories + stats.others),
        files: count(stats.files),
        bytes: count(stats.content_bytes),
        new_claim: wanted.map(|wanted| new_claim(spec, wanted, info, source)),
    }
}

fn new_claim(
    spec: &RestoreSpec,
    wanted: &NewClaim,
    info: &SnapshotInfo,
    source: Option<&ClaimFacts>,
) -> std::result::Result<ClaimWanted, Failure> {
    let missing = |field: &str, hint: String| {
        let message = format!(
            "spec.target.newClaim.{field} must be given: claim {}/{}, which would say it, is not there any more{hint}",
            info.facts.namespace, info.facts.persistentvolumeclaim
        );
        Failure::new("ClaimSpecUnknown", message)
    };
    let size = wanted.size.clone();
    let size = size.or_else(|| source?.size.clone()).ok_or_else(|| {
        let hint = format!("; the snapshot holds {} bytes", info.stats.content_bytes);
        missing("size", hint)
    })?;
    let modes = match (&wanted.access_modes, source) {
        (modes, _) if !modes.is_empty() => modes.clone(),
        (_, Some(source)) if !source.access_modes.is_empty() => source.access_modes.clone(),
        _ => {
            return Err(missing(
                "accessModes",
                "; usually [ReadWriteOnce]".to_owned(),
            ));
        }
    };
    let old = source.and_then(|source| source.storage_class.clone());
    let mapped = old
        .as_ref()
        .and_then(|old| spec.storage_class_mapping.get(old));
    Ok(ClaimWanted {
        storage_class: wanted
            .storage_class_name
            .clone()
            .or(mapped.cloned())
            .or(old),
        size,
        access_modes: modes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::facts::NamespaceFacts;
    use crate::kube::world::{Change, Update};
    use std::collections::{BTreeMap, HashMap};

    #[test]
    fn a_namespace_gets_snapshots_of_another_only_where_that_one_says_so() {
        let namespace = |name: &str, allows: &str, deleting| {
            let facts = NamespaceFacts {
                name: name.to_owned(),
                labels: BTreeMap::new(),
                annotations: BTreeMap::from([(RESTORE_TO.to_owned(), allows.to_owned())]),
                deleting,
            };
            ((String::new(), name.to_owned()), facts)
        };
        let mut world = World::default();
        world.take(Update::Namespaces(Change::All(HashMap::from([
            namespace("open", "*", false),
            namespace("picky", "a, b", false),
            namespace("silent", "", false),
            namespace("going", "*", true),
        ]))));
        let cases = [
            ("silent", "silent", true),
            ("gone", "gone", true),
            ("a", "open", true),
            ("a", "picky", true),
            ("b", "picky", true),
            ("c", "picky", false),
            ("a, b", "picky", false),
            ("a", "silent", false),
            ("", "silent", false),
            ("a", "going", false),
            ("a", "gone", false),
            // Not of a namespace at all.
            ("a", "", false),
        ];
        for (whose, of, allowed) in cases {
            let found = may_have(&world, whose, of, "x");
            assert_eq!(found.is_ok(), allowed, "{whose} of {of}: {found:?}");
        }
    }
}
