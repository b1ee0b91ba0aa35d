use super::*;
use crate::mount::parse_mountinfo;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

const LAYOUT: &str = include_str!("../../../tests/fixtures/kube/kubelet-pods-layout.txt");
const MOUNTS: &str = include_str!("../../../tests/fixtures/kube/proc-mounts.txt");
const PODS: &str = "/var/lib/kubelet/pods";

/// A listing of a real kubelet's pods directory, built again.
pub(super) fn rebuild(pods: &Path) {
    for line in LAYOUT.lines() {
        let (kind, rest) = line.split_at(1);
        let (rest, target) = rest.split_once(" -> ").unwrap();
        let name = rest.trim_start().split_once(' ').unwrap().1;
        let path = pods.join(name);
        match kind {
            "d" => fs::create_dir_all(path).unwrap(),
            "f" => fs::write(path, name).unwrap(),
            "l" => symlink(target, path).unwrap(),
            other => panic!("{other}"),
        }
    }
}

/// The mounts of that node as mountinfo shows them, below another directory.
pub(super) fn mountinfo(pods: &Path) -> Vec<Mount> {
    let mut text = String::from("1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n");
    for (number, line) in MOUNTS.lines().enumerate() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [source, point, filesystem, options, ..] = fields[..] else {
            panic!("{line}")
        };
        let point = point.replace(PODS, pods.to_str().unwrap());
        let id = number + 2;
        text += &format!("{id} 1 8:1 / {point} {options} shared:{id} - {filesystem} {source} rw\n");
    }
    parse_mountinfo(text.as_bytes())
}

pub(super) fn add_mount(mounts: &mut Vec<Mount>, point: &Path, filesystem: &str, source: &str) {
    let line = format!(
        "99 1 0:9 / {} rw shared:9 - {filesystem} {source} rw\n",
        point.display()
    );
    mounts.extend(parse_mountinfo(line.as_bytes()));
}

pub(super) fn listing(found: &[VolumeCandidate]) -> Vec<(String, &'static str)> {
    let reason = |c: &VolumeCandidate| match &c.eligible {
        Ok(()) => "eligible",
        Err(why) => why.reason.as_str(),
    };
    found
        .iter()
        .map(|c| (c.facts.name.as_str().to_owned(), reason(c)))
        .collect()
}

fn discovered(pods: &Path, mounts: &[Mount], memory: MemoryVolumes) -> Vec<VolumeCandidate> {
    let settings = VolumeSettings {
        node: "n1".to_owned(),
        memory,
        ..VolumeSettings::default()
    };
    let places = kubelet::discover(&settings, pods, mounts).unwrap();
    listed_once(places.into_iter().map(|place| place.candidate).collect())
}

#[test]
fn a_real_kubelets_directory_is_listed_whole() {
    let directory = tempfile::tempdir().unwrap();
    let pods = directory.path().canonicalize().unwrap().join("pods");
    rebuild(&pods);
    let found = discovered(&pods, &mountinfo(&pods), MemoryVolumes::Exclude);
    let pod = "pods/b4ca7246-8af9-47d7-a180-6343d9b82c74";
    let expected = [
        (
            "pods/7fdff27d-4c81-4d1f-8ece-0f04e0cdbd36/kube-api-access-tmp8v".to_owned(),
            "ConfigurationVolume",
        ),
        (format!("{pod}/cfg"), "ConfigurationVolume"),
        (
            format!("{pod}/kube-api-access-tjst6"),
            "ConfigurationVolume",
        ),
        (format!("{pod}/mem"), "MemoryVolume"),
        (format!("{pod}/scratch"), "eligible"),
        (
            "pods/e6bfc19d-fd35-4b56-a18e-2e9bd3d8574f/kube-api-access-mwncm".to_owned(),
            "ConfigurationVolume",
        ),
        ("pv/pv-orders".to_owned(), "eligible"),
    ];
    assert_eq!(listing(&found), expected);
    let orders = &found[6];
    assert_eq!(orders.facts.plugin, "kubernetes.io/local-volume");
    assert_eq!(orders.facts.filesystem, "ext4");
    assert_eq!(orders.facts.pod_uid, &pod[5..]);
    assert_eq!(orders.facts.node, "n1");
    assert!(
        orders
            .path
            .ends_with("volumes/kubernetes.io~local-volume/pv-orders")
    );
    let with_memory = discovered(&pods, &mountinfo(&pods), MemoryVolumes::Include);
    assert_eq!(with_memory[3].eligible, Ok(()));
    assert_eq!(with_memory[3].facts.filesystem, "tmpfs");
}

#[test]
fn every_other_kind_has_its_answer() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().canonicalize().unwrap().join("pods");
    let place = |pod: &str, rest: &str| {
        let path = real.join(pod).join(rest);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let data = |path: &Path, id: &str, mode: &str| {
        let text = format!(
            r#"{{"attachmentID":"x","driverName":"d.io","nodeName":"n1","specVolID":"{id}","volumeHandle":"h-{id}","volumeLifecycleMode":"{mode}"}}"#
        );
        fs::write(path.join("vol_data.json"), text).unwrap();
    };
    let mut mounts = parse_mountinfo(b"1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n");
    let csi = "volumes/kubernetes.io~csi";
    // Mounted, through two pods.
    for pod in ["p1", "p2"] {
        let good = place(pod, &format!("{csi}/pvc-good"));
        data(&good, "pvc-good", "Persistent");
        fs::create_dir(good.join("mount")).unwrap();
        add_mount(&mut mounts, &good.join("mount"), "xfs", "/dev/vdb");
    }
    // The directory is there, and empty: the driver has not mounted it, or no longer.
    let bare = place("p1", &format!("{csi}/pvc-bare"));
    data(&bare, "pvc-bare", "Persistent");
    fs::create_dir(bare.join("mount")).unwrap();
    // Not even the directory.
    data(
        &place("p1", &format!("{csi}/pvc-none")),
        "pvc-none",
        "Persistent",
    );
    let swapped = place("p1", &format!("{csi}/pvc-swapped"));
    data(&swapped, "pvc-other", "Persistent");
    fs::create_dir(swapped.join("mount")).unwrap();
    add_mount(&mut mounts, &swapped.join("mount"), "ext4", "/dev/vdc");
    place("p1", &format!("{csi}/pvc-nodata/mount"));
    let inline = place("p1", &format!("{csi}/inline"));
    data(&inline, "inline", "Ephemeral");
    fs::create_dir(inline.join("mount")).unwrap();
    add_mount(&mut mounts, &inline.join("mount"), "ext4", "/dev/vdd");
    fs::create_dir_all(real.join("p1/volumeDevices/kubernetes.io~csi")).unwrap();
    symlink(
        "/dev/null",
        real.join("p1/volumeDevices/kubernetes.io~csi/pvc-block"),
    )
    .unwrap();
    let nfs = place("p1", "volumes/kubernetes.io~nfs/share");
    add_mount(&mut mounts, &nfs, "nfs4", "nas:/export");
    place("p1", "volumes/kubernetes.io~nfs/lost");
    let huge = place("p1", "volumes/kubernetes.io~empty-dir/huge");
    add_mount(&mut mounts, &huge, "hugetlbfs", "nodev");
    place("p1", "volumes/kubernetes.io~empty-dir/wrapped_x");
    place("p1", "volumes/kubernetes.io~empty-dir/old.deleting~123");
    place("p1", "volumes/kubernetes.io~empty-dir/bad name");
    symlink("/etc", real.join("p1/volumes/kubernetes.io~empty-dir/evil")).unwrap();
    for kind in ["secret", "downward-api"] {
        place("p1", &format!("volumes/kubernetes.io~{kind}/{kind}"));
    }
    place("p1", "volumes/vendor~driver/flex");
    place("p1", "volume-subpaths/pvc-good/app/0");
    place("p1", "containers/app");
    fs::write(real.join("p1/etc-hosts"), b"").unwrap();
    // The kubelet's root may be a symlink.
    let pods = directory.path().join("link");
    symlink(&real, &pods).unwrap();
    let found = discovered(&pods, &mounts, MemoryVolumes::Exclude);
    let expected = [
        ("pods/p1/bad_name", "NameRefused"),
        ("pods/p1/downward-api", "ConfigurationVolume"),
        ("pods/p1/evil", "NotADirectory"),
        ("pods/p1/flex", "VolumeNotMounted"),
        ("pods/p1/huge", "HugePages"),
        ("pods/p1/inline", "eligible"),
        ("pods/p1/lost", "VolumeNotMounted"),
        ("pods/p1/pvc-block", "RawBlock"),
        ("pods/p1/pvc-nodata", "VolumeDataMissing"),
        ("pods/p1/secret", "ConfigurationVolume"),
        ("pods/p1/share", "eligible"),
        ("pv/pvc-bare", "VolumeNotMounted"),
        ("pv/pvc-good", "eligible"),
        ("pv/pvc-good", "AlreadyListed"),
        ("pv/pvc-none", "VolumeNotMounted"),
        ("pv/pvc-swapped", "VolumeDataMismatch"),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(n, r)| ((*n).to_owned(), *r))
        .collect();
    assert_eq!(listing(&found), expected);
    let of = |name: &str| {
        found
            .iter()
            .find(|c| c.facts.name.as_str() == name)
            .unwrap()
    };
    let good = of("pv/pvc-good");
    assert_eq!(good.facts.volume_handle, "d.io/h-pvc-good");
    assert_eq!(good.facts.filesystem, "xfs");
    assert!(good.path.ends_with("pvc-good/mount") && good.path.starts_with(&real));
    assert_eq!(of("pods/p1/share").facts.volume_handle, "nas:/export");
    assert_eq!(of("pods/p1/pvc-block").facts.plugin, "kubernetes.io/csi");
    assert_eq!(of("pods/p1/inline").facts.volume_handle, "d.io/h-inline");
}

#[test]
fn a_namespace_that_hears_no_mounts_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let pods = directory.path().canonicalize().unwrap();
    fs::create_dir_all(pods.join("p/volumes/kubernetes.io~nfs/x")).unwrap();
    let detail = |line: &str| {
        let mounts = parse_mountinfo(line.as_bytes());
        let found = discovered(&pods, &mounts, MemoryVolumes::Exclude);
        found[0].eligible.clone().unwrap_err().detail
    };
    assert!(detail("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n").contains("HostToContainer"));
    assert!(!detail("1 0 8:1 / / rw master:1 - ext4 /dev/sda1 rw\n").contains("HostToContainer"));
}

#[test]
fn a_pods_directory_that_is_not_there_takes_nothing_from_named_volumes() {
    let directory = tempfile::tempdir().unwrap();
    let settings = VolumeSettings {
        kubelet_pods: Some(directory.path().join("none")),
        explicit: vec![
            format!("web={}", directory.path().display())
                .parse()
                .unwrap(),
        ],
        ..VolumeSettings::default()
    };
    let found = discover(&settings, None).unwrap();
    let names: Vec<&str> = found.iter().map(|v| v.facts.name.as_str()).collect();
    assert_eq!(names, ["kubelet-pods", "web"]);
    let missing = found[0].eligible.clone().unwrap_err();
    assert_eq!(missing.reason, IneligibleReason::PathMissing);
    assert!(
        missing.detail.contains("No such file"),
        "{}",
        missing.detail
    );
    assert_eq!(found[1].eligible, Ok(()));
}

#[test]
fn explicit_volumes_are_resolved_once_and_checked() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().canonicalize().unwrap();
    fs::create_dir(top.join("data")).unwrap();
    fs::write(top.join("file"), b"").unwrap();
    symlink("data", top.join("link")).unwrap();
    let volume = |name: &str, path: &Path| ExplicitVolume {
        name: name.parse().unwrap(),
        path: path.to_owned(),
    };
    let settings = VolumeSettings {
        explicit: vec![
            volume("a", &top.join("data")),
            volume("b", &top.join("link")),
            volume("c", &top.join("none")),
            volume("d", &top.join("file")),
            volume("e", Path::new("/proc")),
            volume("a", &top),
        ],
        ..VolumeSettings::default()
    };
    let found = discover(&settings, None).unwrap();
    let reasons: Vec<&str> = listing(&found).iter().map(|(_, reason)| *reason).collect();
    let expected = [
        "eligible",
        "AlreadyListed",
        "eligible",
        "PathMissing",
        "NotADirectory",
        "VirtualFilesystem",
    ];
    assert_eq!(reasons, expected);
    assert_eq!(found[2].path, top.join("data"));
    assert!(found[2].note.as_ref().unwrap().contains("symlink"));
    assert_eq!(
        found[2].facts.source_identity,
        top.join("data").display().to_string()
    );
    assert_eq!(
        "web=/srv/web".parse::<ExplicitVolume>().unwrap(),
        volume("web", Path::new("/srv/web"))
    );
    for bad in ["web", "=x", "web=", "a b=/x"] {
        assert!(bad.parse::<ExplicitVolume>().is_err(), "{bad}");
    }
}

/// A FIFO would never open, and with it the agent would see no volume at all.
#[test]
fn what_stands_beside_a_mount_is_read_only_where_it_is_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let pods = directory.path().canonicalize().unwrap();
    let place = |name: &str| {
        let path = pods.join("p1/volumes/kubernetes.io~csi").join(name);
        fs::create_dir_all(&path).unwrap();
        path.join("vol_data.json")
    };
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place("pvc-fifo"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let elsewhere = pods.join("elsewhere");
    fs::write(&elsewhere, r#"{"specVolID":"pvc-link"}"#).unwrap();
    symlink(&elsewhere, place("pvc-link")).unwrap();
    let (sent, found) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let found = kubelet::discover(&VolumeSettings::default(), &pods, &[]).unwrap();
        let _ = sent.send(found);
    });
    let found = found.recv_timeout(std::time::Duration::from_secs(10));
    let found = found.expect("discovery ends");
    assert_eq!(found.len(), 2);
    for candidate in found {
        let why = candidate.candidate.eligible.unwrap_err();
        assert_eq!(why.reason, IneligibleReason::VolumeDataMissing, "{why:?}");
    }
}
