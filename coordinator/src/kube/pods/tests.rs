//! Helpers get a name, a node and one volume, and keep the rest of their templates.

use super::*;
use crate::kube::facts::{Origin, VolumeFacts};
use k8s_openapi::api::core::v1::Container;

const FILE: &str = r"
namespace: holdfast
kubelet_pods: /var/lib/kubelet/pods
host_roots: [/opt/local-path]
mount:
  most: 4
  pod:
    metadata: {labels: {team: storage}}
    spec:
      securityContext: {runAsNonRoot: true}
      containers: [{name: hold, image: holdfast}]
restore:
  most: 2
  pod:
    spec:
      containers:
        - name: agent
          image: holdfast
          securityContext: {capabilities: {drop: [ALL], add: [CHOWN, SETFCAP, MKNOD]}}
          volumeMounts: [{name: tls, mountPath: /etc/holdfast/tls}]
      volumes: [{name: tls, secret: {secretName: tls}}]
";

fn helpers() -> Helpers {
    serde_norway::from_str(FILE).unwrap()
}

fn volume(origin: Origin) -> VolumeFacts {
    VolumeFacts {
        name: "pvc-1".to_owned(),
        claim_uid: None,
        origin,
        block: false,
        shared: false,
    }
}

fn csi() -> Origin {
    Origin::Csi {
        driver: "d".to_owned(),
        handle: "h".to_owned(),
    }
}

#[test]
fn a_volume_is_written_where_the_kubelet_mounts_it_and_shown_from_above() {
    let pods = Path::new("/k/pods");
    let roots = [PathBuf::from("/opt/local-path")];
    let other = |plugin| Origin::Other {
        plugin,
        identity: String::new(),
    };
    let at = |shown: &str, root: &str| {
        Ok(Place {
            shown: shown.into(),
            root: root.into(),
        })
    };
    let cases = [
        (
            csi(),
            at(
                "/k/pods/p/volumes/kubernetes.io~csi/pvc-1",
                "/k/pods/p/volumes/kubernetes.io~csi/pvc-1/mount",
            ),
        ),
        (
            other("kubernetes.io/nfs"),
            at(
                "/k/pods/p/volumes/kubernetes.io~nfs",
                "/k/pods/p/volumes/kubernetes.io~nfs/pvc-1",
            ),
        ),
        (
            Origin::HostPath("/opt/local-path/a".to_owned()),
            at("/opt/local-path/a", "/opt/local-path/a"),
        ),
        (
            Origin::HostPath("/etc".to_owned()),
            Err(Unplaced::HostRootNotAllowed("/etc".to_owned())),
        ),
        // The root itself holds everybody's volumes.
        (
            Origin::HostPath("/opt/local-path".to_owned()),
            Err(Unplaced::HostRootNotAllowed("/opt/local-path".to_owned())),
        ),
        (
            Origin::HostPath("/opt/local-path/../../etc".to_owned()),
            Err(Unplaced::HostRootNotAllowed(
                "/opt/local-path/../../etc".to_owned(),
            )),
        ),
        (other("another plugin"), Err(Unplaced::UnknownPlugin)),
    ];
    for (origin, expected) in cases {
        let found = place(pods, &roots, "p", &volume(origin.clone()));
        assert_eq!(found, expected, "{origin:?}");
    }
    for pod in ["..", "a/b", "", "a,b"] {
        let found = place(pods, &roots, pod, &volume(csi()));
        assert_eq!(found, Err(Unplaced::BadName(pod.to_owned())));
    }
    let block = VolumeFacts {
        block: true,
        ..volume(csi())
    };
    assert_eq!(place(pods, &roots, "p", &block), Err(Unplaced::RawBlock));
}

#[test]
fn a_mount_pod_has_the_claim_and_no_more() {
    let template = helpers().mount.unwrap();
    let pod = mount_pod(&template, "shop", "orders", "abc", None, true);
    let meta = &pod.metadata;
    assert_eq!(meta.name.as_deref(), Some("holdfast-mount-abc"));
    assert_eq!(meta.namespace.as_deref(), Some("shop"));
    let labels = meta.labels.as_ref().unwrap();
    assert_eq!(labels["team"], "storage");
    assert_eq!(labels[HELPER], "mount");
    assert_eq!(labels[HELPER_OF], "abc");
    let spec = pod.spec.unwrap();
    assert!(spec.node_name.is_none(), "the scheduler finds the node");
    let volumes = spec.volumes.unwrap();
    assert_eq!(volumes.len(), 1);
    let claim = volumes[0].persistent_volume_claim.as_ref().unwrap();
    assert_eq!(claim.claim_name, "orders");
    let mounts = spec.containers[0].volume_mounts.as_ref().unwrap();
    assert_eq!(mounts[0].read_only, Some(true));
    assert_eq!(spec.security_context.unwrap().run_as_non_root, Some(true));
}

#[test]
fn a_restore_pod_sees_one_volume_and_takes_restores_to_it_alone() {
    let template = helpers().restore.unwrap();
    let place = place(Path::new("/k/pods"), &[], "p", &volume(csi())).unwrap();
    let access = Access {
        read_only: false,
        special: false,
    };
    let pod = restore_pod(&template, "holdfast", "abc", "node-1", &place, access);
    assert_eq!(pod.metadata.namespace.as_deref(), Some("holdfast"));
    let spec = pod.spec.unwrap();
    assert_eq!(spec.node_name.as_deref(), Some("node-1"));
    let container = &spec.containers[0];
    let capabilities = |container: &Container| {
        let security = container.security_context.clone().unwrap();
        security.capabilities.unwrap().add.unwrap()
    };
    assert_eq!(capabilities(container), ["CHOWN"]);
    let all = Access {
        special: true,
        ..access
    };
    let special = restore_pod(&template, "holdfast", "abc", "node-1", &place, all);
    let special = &special.spec.unwrap().containers[0];
    assert_eq!(capabilities(special), ["CHOWN", "SETFCAP", "MKNOD"]);
    let env = container.env.as_ref().unwrap();
    let value = |name: &str| {
        let found = env.iter().find(|var| var.name == name);
        found.and_then(|var| var.value.clone()).unwrap()
    };
    assert_eq!(value("HOLDFAST_AGENT_NODE"), "restore/abc");
    assert_eq!(
        value("HOLDFAST_RESTORE_BELOW"),
        "/k/pods/p/volumes/kubernetes.io~csi/pvc-1/mount"
    );
    let paths: Vec<String> = spec
        .volumes
        .unwrap()
        .into_iter()
        .filter_map(|volume| volume.host_path)
        .map(|host| host.path)
        .collect();
    assert_eq!(paths, ["/k/pods/p/volumes/kubernetes.io~csi/pvc-1"]);
    let mounts = container.volume_mounts.as_ref().unwrap();
    assert_eq!(mounts[1].mount_path, paths[0]);
    assert_eq!(
        mounts[1].mount_propagation.as_deref(),
        Some("HostToContainer")
    );
    assert_eq!(mounts[1].read_only, Some(false));
}

#[test]
fn a_wrong_file_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("helpers.yaml");
    let cases = [
        ("namespace: holdfast\nkubelet_pods: relative\n", "absolute"),
        (
            "namespace: holdfast\nkubelet_pods: /k\nmount: {most: 1, pod: {spec: {containers: []}}}\n",
            "one container",
        ),
        (
            "namespace: holdfast\nkubelet_pods: /k\nmuont: {}\n",
            "muont",
        ),
        (&FILE.replace("most: 4", "most: 0"), "mount.most"),
    ];
    for (text, expected) in cases {
        std::fs::write(&file, text).unwrap();
        let error = Helpers::read(&file).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains("helpers.yaml"),
            "{error}"
        );
    }
    std::fs::write(&file, FILE).unwrap();
    assert!(Helpers::read(&file).is_ok());
    assert_eq!(token("a"), token("a"));
    assert_ne!(token("a"), token("b"));
}
