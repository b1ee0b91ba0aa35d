//! What policies of files choose from: the volumes that connected agents list. Pure.

use crate::kube::api::VolumeKind;
use crate::policy::Subject;
use crate::policy::subject::{Namespace, State};
use holdfast_proto::v1::AgentVolume;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The namespace of a volume whose name has none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Each volume once, with the node that reads it: of several agents that list it, the first that can.
pub fn subjects(listed: &[(String, AgentVolume)]) -> (Vec<Subject>, HashMap<String, String>) {
    let mut best: BTreeMap<&str, (&str, &AgentVolume)> = BTreeMap::new();
    for (node, volume) in listed {
        let Some(facts) = &volume.facts else { continue };
        let found = best.entry(&facts.name).or_insert((node, volume));
        if volume.eligible && !found.1.eligible {
            *found = (node, volume);
        }
    }
    let mut namespaces: HashMap<&str, Arc<Namespace>> = HashMap::new();
    let mut nodes = HashMap::new();
    let mut subjects = Vec::with_capacity(best.len());
    for (name, (node, volume)) in best {
        let told = volume.facts.as_ref().map_or("", |facts| &facts.namespace);
        let namespace = namespace_of(name, told);
        let shared = namespaces.entry(namespace).or_insert_with(|| {
            Arc::new(Namespace {
                name: namespace.to_owned(),
                ..Namespace::default()
            })
        });
        let state = match volume.eligible {
            true => State::Mounted,
            false => State::Unsupported {
                reason: volume.reason.clone(),
                detail: volume.detail.clone(),
            },
        };
        if volume.eligible {
            nodes.insert(name.to_owned(), node.to_owned());
        }
        subjects.push(Subject {
            id: name.to_owned(),
            namespace: shared.clone(),
            // The kind that every policy has which names none, as those of files do not.
            kind: Some(VolumeKind::PersistentVolumeClaim),
            claim: None,
            driver: None,
            pods: Vec::new(),
            state,
        });
    }
    (subjects, nodes)
}

/// What its agent says, else what stands before the name's first slash.
fn namespace_of<'n>(name: &'n str, told: &'n str) -> &'n str {
    match (told, name.split_once('/')) {
        ("", Some((namespace, _))) => namespace,
        ("", None) => DEFAULT_NAMESPACE,
        (told, _) => told,
    }
}
