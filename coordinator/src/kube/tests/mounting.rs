//! A claim that no pod uses, and a pod of ours that no node takes: the volume says why it is not backed up, and the
//! pod goes when its time is over.

use super::runs::{Guarded, LOOK};
use super::*;
use crate::kube::facts::PodFacts;
use crate::kube::guard::Mounting;
use crate::kube::pods::Helpers;
use crate::kube::world::{Change, Shared, Update};
use std::sync::Mutex;
use tokio::sync::watch;

const HELPERS: &str = "
namespace: holdfast
kubelet_pods: /var/lib/kubelet/pods
mount: {most: 4, pod: {spec: {containers: [{name: hold}]}}}
";
const WHY: &str = "0/3 nodes are available: 3 Insufficient memory.";

/// What the API was asked for pods.
type Asked = Arc<Mutex<Vec<String>>>;

/// The API: pods that are made find no node, and the watch tells of them.
fn api(world: Shared, asked: Asked) -> Client {
    client(move |call| {
        let is_pods = call.path.starts_with("/api/v1/namespaces/shop/pods");
        if !is_pods {
            return refusal(404);
        }
        let mut pod = call.body.clone();
        let name = match &call.method[..] {
            "POST" => pod["metadata"]["name"].as_str().unwrap_or_default(),
            _ => call.name(),
        };
        asked
            .lock()
            .unwrap()
            .push(format!("{} {name}", call.method));
        let key = ("shop".to_owned(), name.to_owned());
        match &call.method[..] {
            "POST" => {
                pod["metadata"]["uid"] = json!("uid-of-ours");
                pod["status"] = json!({
                    "phase": "Pending",
                    "conditions": [{"type": "PodScheduled", "status": "False", "message": WHY}],
                });
                let facts = PodFacts::of(serde_json::from_value(pod.clone()).unwrap());
                let change = Change::Put(key, facts);
                world.lock().take(Update::Pods(change));
                Ok((201, pod))
            }
            "DELETE" => {
                world.lock().take(Update::Pods(Change::Gone(key)));
                let done = json!({"kind": "Status", "apiVersion": "v1", "status": "Success"});
                Ok((200, done))
            }
            _ => refusal(405),
        }
    })
}

impl Guarded {
    fn said(&self, field: &str) -> String {
        let wanted = self.wanted.borrow();
        let mut objects = wanted.objects.iter();
        let said = objects.find(|object| object.kind == "VolumeProtection");
        let said = said.and_then(|object| object.status[field].as_str().map(str::to_owned));
        said.unwrap_or_default()
    }
}

#[tokio::test]
async fn a_mount_pod_that_no_node_takes_is_told_of_and_goes_when_its_time_is_over() {
    let stage = Stage::new().await;
    let world = Shared::default();
    let asked = Asked::default();
    let helpers: Helpers = serde_norway::from_str(HELPERS).unwrap();
    let (_restoring, restored) = watch::channel(Arc::default());
    let mounting = Mounting::new(
        api(world.clone(), asked.clone()),
        world,
        Some(Arc::new(helpers)),
        restored,
    );
    let all = policy(json!({"exposure": {"maxAge": "1h"}, "unmountedClaims": "Mount"}));
    let picture = picture(vec![all], vec![subject("idle", &[])]);
    let guarded = Guarded::new(stage, picture, Some(mounting)).await;
    let of_pod = |verb: &str| {
        let asked = asked.lock().unwrap();
        let of = format!("{verb} holdfast-mount-backup-");
        asked.iter().filter(|call| call.starts_with(&of)).count()
    };
    for _ in 0..5 {
        guarded.pass(LOOK).await;
    }
    until("a pod is made", || of_pod("POST") == 1).await;
    // It may take some minutes to find a node.
    for _ in 0..28 {
        guarded.pass(5 * LOOK).await;
    }
    assert_eq!((of_pod("POST"), of_pod("DELETE")), (1, 0));
    assert_eq!(guarded.said("phase"), "Pending");
    for _ in 0..3 {
        guarded.pass(5 * LOOK).await;
    }
    until("the pod is deleted", || of_pod("DELETE") == 1).await;
    assert_eq!(guarded.said("phase"), "Failing");
    assert_eq!(guarded.said("reason"), "MountPodPending");
    let message = guarded.said("message");
    assert!(message.contains(WHY), "{message}");
}
