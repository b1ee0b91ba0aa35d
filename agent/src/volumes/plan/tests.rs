//! The plan against a real kubelet's directory: what both agree on is read, the rest says why not.

use super::super::kubelet;
use super::super::tests::{add_mount, listing, mountinfo, rebuild};
use super::*;
use std::os::unix::fs::symlink;

const DB: &str = "b4ca7246-8af9-47d7-a180-6343d9b82c74";

fn planned(name: &str, pod: &str, directory: &str) -> proto::PlannedVolume {
    let mut facts = VolumeFacts::named(name.parse().unwrap());
    facts.namespace = "shop".to_owned();
    facts.persistentvolumeclaim = "orders".to_owned();
    facts.pvc_uid = "c43a129d".to_owned();
    proto::PlannedVolume {
        facts: Some(facts.into()),
        pods: vec![pod.to_owned()],
        directory: directory.to_owned(),
        ..proto::PlannedVolume::default()
    }
}

fn on_host(name: &str, path: &Path) -> proto::PlannedVolume {
    proto::PlannedVolume {
        host_path: path.to_str().unwrap().to_owned(),
        ..planned(name, "pod", "")
    }
}

fn plan(volumes: Vec<proto::PlannedVolume>) -> Plan {
    Plan::try_from(proto::NodePlan { volumes }).unwrap()
}

struct World {
    directory: tempfile::TempDir,
    pods: PathBuf,
    settings: VolumeSettings,
}

fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let pods = directory.path().canonicalize().unwrap().join("pods");
    rebuild(&pods);
    let settings = VolumeSettings {
        node: "node-1".to_owned(),
        ..VolumeSettings::default()
    };
    World {
        directory,
        pods,
        settings,
    }
}

impl World {
    fn join(&self, volumes: Vec<proto::PlannedVolume>) -> Vec<VolumeCandidate> {
        let places = kubelet::discover(&self.settings, &self.pods, &mountinfo(&self.pods));
        join(&self.settings, &plan(volumes), places.unwrap())
    }

    fn one(&self, volume: proto::PlannedVolume) -> VolumeCandidate {
        self.join(vec![volume]).remove(0)
    }
}

fn reason(candidate: &VolumeCandidate) -> &'static str {
    match &candidate.eligible {
        Ok(()) => "eligible",
        Err(why) => why.reason.as_str(),
    }
}

#[test]
fn what_the_api_and_the_node_agree_on_is_read_under_the_apis_name() {
    let world = world();
    let mut found = world.join(vec![
        planned("shop/orders", DB, "pv-orders"),
        planned("shop/db-0/scratch", DB, "scratch"),
    ]);
    let orders = found.remove(0);
    assert_eq!(orders.eligible, Ok(()));
    assert_eq!(orders.facts.name.as_str(), "shop/orders");
    assert_eq!(orders.facts.pvc_uid, "c43a129d");
    assert_eq!(
        (&orders.facts.node[..], &orders.facts.pod_uid[..]),
        ("node-1", DB)
    );
    assert_eq!(orders.facts.filesystem, "ext4");
    assert_eq!(orders.facts.plugin, "kubernetes.io/local-volume");
    let place = format!("{DB}/volumes/kubernetes.io~local-volume/pv-orders");
    assert!(orders.path.ends_with(&place) && orders.facts.source == place);
    // What is configuration says so; nothing else is left over.
    assert_eq!(reason(&found.remove(0)), "eligible");
    for (_, reason) in listing(&found) {
        assert!(
            matches!(reason, "ConfigurationVolume" | "MemoryVolume"),
            "{reason}"
        );
    }
}

#[test]
fn what_only_one_side_knows_is_listed_and_not_read() {
    let world = world();
    let found = world.join(vec![planned("shop/other", DB, "pv-other")]);
    assert_eq!(reason(&found[0]), "VolumeNotMounted");
    let said = found[0].eligible.as_ref().unwrap_err().to_string();
    assert!(said.contains(DB) && said.contains("pv-other"), "{said}");
    let orders = found
        .iter()
        .find(|c| c.facts.name.as_str() == "pv/pv-orders")
        .unwrap();
    assert_eq!(reason(orders), "NotPlanned");
    let said = orders.eligible.as_ref().unwrap_err().to_string();
    assert!(said.contains(DB), "{said}");
    assert!(found.iter().all(|candidate| candidate.eligible.is_err()));
}

#[test]
fn a_handle_that_differs_is_named_on_both_sides() {
    let world = world();
    let place = world.pods.join("p1/volumes/kubernetes.io~csi/pvc-1");
    fs::create_dir_all(place.join("mount")).unwrap();
    let data = r#"{"specVolID":"pvc-1","volumeHandle":"vol-a","driverName":"ebs.csi.aws.com"}"#;
    fs::write(place.join("vol_data.json"), data).unwrap();
    let mut mounts = mountinfo(&world.pods);
    add_mount(&mut mounts, &place.join("mount"), "ext4", "/dev/nvme1n1");
    let join = |handle: &str| {
        let mut volume = planned("shop/orders", "p1", "pvc-1");
        let facts = volume.facts.as_mut().unwrap();
        facts.plugin = CSI.to_owned();
        facts.volume_handle = handle.to_owned();
        let places = kubelet::discover(&world.settings, &world.pods, &mounts).unwrap();
        join(&world.settings, &plan(vec![volume]), places).remove(0)
    };
    assert_eq!(reason(&join("ebs.csi.aws.com/vol-a")), "eligible");
    let differs = join("ebs.csi.aws.com/vol-b");
    assert_eq!(reason(&differs), "PlanMismatch");
    let said = differs.eligible.unwrap_err().to_string();
    assert!(said.contains("vol-a") && said.contains("vol-b"), "{said}");
}

#[test]
fn of_several_pods_one_is_read_through_and_a_shared_volume_is_known_as_one() {
    let world = world();
    let mut volume = planned("shop/orders", "gone", "pv-orders");
    volume.pods.push(DB.to_owned());
    volume.shared = true;
    let found = world.one(volume.clone());
    assert_eq!((reason(&found), found.shared), ("eligible", true));
    volume.reason = "ServedElsewhere".to_owned();
    volume.detail = "node-2 backs it up".to_owned();
    let found = world.one(volume);
    assert_eq!(reason(&found), "NotPlanned");
    let said = found.eligible.unwrap_err().to_string();
    assert!(
        said.contains("ServedElsewhere") && said.contains("node-2"),
        "{said}"
    );
}

#[test]
fn a_directory_of_the_host_is_read_only_below_an_allowed_root() {
    let mut world = world();
    let base = world.directory.path().canonicalize().unwrap();
    let (root, inside, secret) = (
        base.join("local"),
        base.join("local/pvc-1"),
        base.join("etc"),
    );
    fs::create_dir_all(&inside).unwrap();
    fs::create_dir_all(&secret).unwrap();
    symlink(&secret, root.join("link")).unwrap();
    let found = world.one(on_host("shop/uploads", &inside));
    assert_eq!(reason(&found), "HostRootNotAllowed");
    let said = found.eligible.unwrap_err().to_string();
    assert!(said.contains("volumes.host_roots"), "{said}");

    world.settings.host_roots = vec![root.clone()];
    let found = world.one(on_host("shop/uploads", &inside));
    assert_eq!((reason(&found), &found.path), ("eligible", &inside));
    for bad in [root.clone(), root.join("link"), root.join("../etc"), secret] {
        let found = world.one(on_host("shop/uploads", &bad));
        assert_eq!(reason(&found), "HostRootNotAllowed", "{}", bad.display());
    }
    let gone = world.one(on_host("shop/uploads", &root.join("gone")));
    assert_eq!(reason(&gone), "PathMissing");
}

#[test]
fn a_plan_outlives_the_agent_and_a_damaged_one_is_none() {
    let directory = tempfile::tempdir().unwrap();
    // The agent's first start has no state directory yet.
    let state = directory.path().join("holdfast/agent");
    let file = PlanFile::new(&state);
    assert_eq!(file.load(), None);
    let sent = proto::NodePlan {
        volumes: vec![planned("shop/orders", DB, "pv-orders")],
    };
    file.keep(&sent).unwrap();
    assert_eq!(file.load(), Some(Plan::try_from(sent.clone()).unwrap()));
    fs::write(state.join("plan"), [0xff; 40]).unwrap();
    assert_eq!(file.load(), None);
    file.keep(&sent).unwrap();
    assert!(file.load().is_some());
}
