//! What keeps all volumes of pods from being found: an agent for which one of these holds is not ready, in place of
//! serving nothing, or empty directories.

use super::kubelet::{is_propagated_to, mount_over};
use super::{Plan, VolumeSettings};
use crate::mount::{self, Mount};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Stable words, each with what to do.
pub type Troubles = BTreeMap<&'static str, String>;

/// There is no such directory.
const MISSING: &str = "KubeletDirectoryMissing";
/// It cannot be listed.
const UNREADABLE: &str = "KubeletDirectoryUnreadable";
/// It is there, and has none of the pods that run here.
const WRONG: &str = "KubeletDirectoryWrong";
/// What is mounted on the host later does not show here.
const NOT_PROPAGATED: &str = "MountPropagationMissing";
/// The table of mounts cannot be read.
const NO_MOUNTS: &str = "MountTableUnreadable";

/// Where kubelets of distributions keep their pods.
const CANDIDATES: [&str; 6] = [
    "/var/lib/kubelet/pods",
    "/var/lib/k0s/kubelet/pods",
    "/var/snap/microk8s/common/var/lib/kubelet/pods",
    "/opt/rke/var/lib/kubelet/pods",
    "/var/nutanix/var/lib/kubelet/pods",
    "/var/vcap/data/kubelet/pods",
];

/// Looks at the kubelet's directory, where there is one to be served.
pub fn troubles(settings: &VolumeSettings, plan: Option<&Plan>) -> Troubles {
    let Some(pods) = &settings.kubelet_pods else {
        return Troubles::new();
    };
    let listed = names(pods);
    let there = CANDIDATES.iter().map(PathBuf::from);
    let there: Vec<PathBuf> = there.filter(|path| path != pods && path.is_dir()).collect();
    let mut found = Troubles::new();
    if let Some((word, detail)) = of_directory(pods, &listed, plan, &there) {
        found.insert(word, detail);
    }
    match mount::mounts() {
        Err(error) => {
            found.insert(NO_MOUNTS, format!("/proc/self/mountinfo: {error}"));
        }
        Ok(mounts) if listed.is_ok() => {
            // The table names real paths.
            let real = std::fs::canonicalize(pods).unwrap_or_else(|_| pods.clone());
            found.extend(of_mounts(&real, &mounts).map(|detail| (NOT_PROPAGATED, detail)));
        }
        Ok(_) => {}
    }
    found
}

fn names(pods: &Path) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(pods)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

fn of_directory(
    pods: &Path,
    listed: &io::Result<Vec<String>>,
    plan: Option<&Plan>,
    there: &[PathBuf],
) -> Option<(&'static str, String)> {
    let elsewhere = || {
        let there: Vec<String> = there
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        match there.is_empty() {
            true => "none of the usual directories is here either; of a pod, only what is mounted into it is: the \
                     chart's agent.kubeletRoot says what that is (k0s: /var/lib/k0s/kubelet, microk8s: \
                     /var/snap/microk8s/common/var/lib/kubelet, rke: /opt/rke/var/lib/kubelet)"
                .to_owned(),
            false => format!(
                "here is {}: set volumes.kubelet_pods to it (the chart's agent.kubeletRoot, without /pods)",
                there.join(", ")
            ),
        }
    };
    let shown = pods.display();
    match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some((
            MISSING,
            format!(
                "the kubelet's pods directory {shown} is not there; {}",
                elsewhere()
            ),
        )),
        Err(error) => Some((
            UNREADABLE,
            format!("the kubelet's pods directory {shown} cannot be listed: {error}"),
        )),
        Ok(names) => {
            let planned = plan.map(Plan::pods).unwrap_or_default();
            let is_wrong = !planned.is_empty()
                && !planned
                    .iter()
                    .any(|pod| names.iter().any(|name| name == pod));
            is_wrong.then(|| {
                let detail = format!(
                    "the cluster says that {} pods with volumes are on this node, and {shown} has the directory of none \
                     of them: it is not its kubelet's; {}",
                    planned.len(),
                    elsewhere()
                );
                (WRONG, detail)
            })
        }
    }
}

/// Mounts that the host makes later reach a mount that is shared, or a slave. One of the whole of a filesystem above
/// the directory is where the host itself mounts; any other was bound into a pod.
fn of_mounts(pods: &Path, mounts: &[Mount]) -> Option<String> {
    let over = mount_over(mounts, pods)?;
    let is_bound = over.root != Path::new("/") || over.point == pods;
    (is_bound && !is_propagated_to(over)).then(|| {
        format!(
            "{} is mounted at {} without propagation: volumes that are mounted later would be seen as empty \
             directories; set mountPropagation: HostToContainer on this mount of the pod (of a container engine: rslave)",
            pods.display(),
            over.point.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::parse_mountinfo;

    fn listed(names: &[&str]) -> io::Result<Vec<String>> {
        Ok(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_directory_that_is_not_there_is_named_with_those_that_are() {
        let pods = Path::new("/var/lib/kubelet/pods");
        let missing = || Err(io::Error::from(io::ErrorKind::NotFound));
        let k0s = [PathBuf::from("/var/lib/k0s/kubelet/pods")];
        let (word, detail) = of_directory(pods, &missing(), None, &k0s).unwrap();
        assert_eq!(word, MISSING);
        for part in [
            "/var/lib/kubelet/pods",
            "here is /var/lib/k0s/kubelet/pods",
            "agent.kubeletRoot",
        ] {
            assert!(detail.contains(part), "{detail}");
        }
        let (_, detail) = of_directory(pods, &missing(), None, &[]).unwrap();
        assert!(detail.contains("microk8s"), "{detail}");
        let denied = Err(io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(
            of_directory(pods, &denied, None, &[]).unwrap().0,
            UNREADABLE
        );
        assert_eq!(of_directory(pods, &listed(&[]), None, &[]), None);
    }

    #[test]
    fn a_directory_without_the_pods_that_the_cluster_names_is_wrong() {
        use holdfast_proto::v1::{NodePlan, PlannedVolume, VolumeFacts};
        let volume = |pod: &str| PlannedVolume {
            facts: Some(VolumeFacts {
                name: "shop/a".into(),
                ..VolumeFacts::default()
            }),
            pods: vec![pod.into()],
            ..PlannedVolume::default()
        };
        let plan = NodePlan {
            volumes: vec![volume("uid-1"), volume("uid-2")],
        };
        let plan = Plan::try_from(plan).unwrap();
        let of = |names: &[&str], plan: Option<&Plan>| {
            let pods = Path::new("/p");
            of_directory(pods, &listed(names), plan, &[]).map(|(word, _)| word)
        };
        assert_eq!(of(&["uid-2", "x"], Some(&plan)), None);
        assert_eq!(of(&["x"], Some(&plan)), Some(WRONG));
        let empty = Plan::default();
        assert_eq!(of(&["x"], Some(&empty)), None);
        assert_eq!(of(&["x"], None), None);
    }

    #[test]
    fn a_private_bind_mount_is_found() {
        for (table, is_private) in [
            // A pod's mount, as the three values of mountPropagation make it.
            (
                "1 0 0:1 / / rw - overlay o rw\n2 1 8:1 /var/lib/kubelet/pods /pods ro - ext4 /dev/a rw",
                true,
            ),
            (
                "1 0 0:1 / / rw - overlay o rw\n2 1 8:1 /var/lib/kubelet/pods /pods ro master:7 - ext4 /dev/a rw",
                false,
            ),
            (
                "1 0 0:1 / / rw - overlay o rw\n2 1 8:1 /var/lib/kubelet/pods /pods ro shared:7 - ext4 /dev/a rw",
                false,
            ),
            // A filesystem of its own, bound whole.
            (
                "1 0 0:1 / / rw - overlay o rw\n2 1 8:1 / /pods ro - ext4 /dev/a rw",
                true,
            ),
            // Bound higher up.
            (
                "1 0 0:1 / / rw - overlay o rw\n2 1 8:1 /x / ro - ext4 /dev/a rw",
                true,
            ),
            // The host itself, with and without systemd.
            ("1 0 8:1 / / rw shared:1 - ext4 /dev/a rw", false),
            ("1 0 8:1 / / rw - ext4 /dev/a rw", false),
            // The later mount at a place counts.
            (
                "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:1 /x /pods rw master:1 - ext4 /dev/a rw\n3 2 8:1 /x /pods rw - ext4 /dev/a rw",
                true,
            ),
        ] {
            let found = of_mounts(Path::new("/pods"), &parse_mountinfo(table.as_bytes()));
            assert_eq!(found.is_some(), is_private, "{table}");
            assert!(found.is_none_or(|text| text.contains("mountPropagation: HostToContainer")));
        }
    }
}
