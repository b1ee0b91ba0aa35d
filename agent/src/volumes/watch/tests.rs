use super::*;
use crate::volumes::ExplicitVolume;
use notify::event::{CreateKind, DataChange, Flag, MetadataKind, ModifyKind, RemoveKind};
use std::fs;
use std::process::Command;

/// A host with a pods directory, and what watches it.
struct Host {
    directory: tempfile::TempDir,
    watch: VolumeWatch,
    hints: Hints,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("kubelet/pods")).unwrap();
        let settings = VolumeSettings {
            kubelet_pods: Some(directory.path().join("kubelet/pods")),
            explicit: vec![ExplicitVolume {
                name: "data".parse().unwrap(),
                path: directory.path().join("srv/deep/data"),
            }],
            ..VolumeSettings::default()
        };
        let (mut watch, mut hints) = watch(settings);
        // What others mount meanwhile would pass for what is tested.
        hints.mounts = None;
        watch.set();
        Self {
            directory,
            watch,
            hints,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A hint comes; then everything that is there now is watched.
    async fn hinted(&mut self) {
        let came = tokio::time::timeout(Duration::from_secs(20), self.hints.changed()).await;
        came.unwrap_or_else(|_| panic!("no hint; watched: {:?}", self.watch.watched.keys()));
        self.watch.set();
    }
}

const VOLUME: &str = "kubelet/pods/0a/volumes/kubernetes.io~csi/pv";

#[tokio::test]
async fn every_level_that_appears_is_watched() {
    let mut host = Host::new();
    for name in [
        "kubelet/pods/0a",
        "kubelet/pods/0a/volumes",
        "kubelet/pods/0a/volumes/kubernetes.io~csi",
        VOLUME,
        "srv",
        "srv/deep",
        "srv/deep/data",
    ] {
        fs::create_dir(host.path(name)).unwrap();
        host.hinted().await;
    }
    fs::write(host.path(VOLUME).join("vol_data.json"), b"{}").unwrap();
    host.hinted().await;
    fs::create_dir(host.path(VOLUME).join("mount")).unwrap();
    host.hinted().await;
    fs::remove_dir_all(host.path("kubelet/pods/0a")).unwrap();
    host.hinted().await;
    fs::remove_dir(host.path("srv/deep/data")).unwrap();
    host.hinted().await;
    assert!(!host.watch.watched.contains_key(&host.path(VOLUME)));
}

#[tokio::test]
async fn a_pods_directory_that_is_made_again_is_watched_again() {
    let mut host = Host::new();
    for remade_at_once in [true, false] {
        fs::remove_dir_all(host.path("kubelet/pods")).unwrap();
        if !remade_at_once {
            host.hinted().await;
        }
        fs::create_dir(host.path("kubelet/pods")).unwrap();
        host.hinted().await;
        fs::create_dir(host.path("kubelet/pods/0a")).unwrap();
        host.hinted().await;
    }
    fs::remove_dir_all(host.path("kubelet")).unwrap();
    host.hinted().await;
    fs::create_dir_all(host.path("kubelet/pods/0a")).unwrap();
    host.hinted().await;
    fs::create_dir(host.path("kubelet/pods/0a/volumes")).unwrap();
    host.hinted().await;
}

#[tokio::test]
async fn nothing_in_a_volume_is_watched_and_no_link_followed() {
    let mut host = Host::new();
    let pod = host.path("kubelet/pods/0a");
    for name in [
        "volumes/kubernetes.io~empty-dir/tmp/in/side",
        "volumes/kubernetes.io~csi/pv/mount/in",
        "volumes/kubernetes.io~csi/pv.deleting~1/mount",
        "containers/web",
    ] {
        fs::create_dir_all(pod.join(name)).unwrap();
    }
    std::os::unix::fs::symlink("/etc", pod.join("volumes/kubernetes.io~link")).unwrap();
    std::os::unix::fs::symlink("/etc", host.path("kubelet/pods/link")).unwrap();
    host.watch.set();
    let below = |path: &&PathBuf| path.starts_with(host.path("kubelet/pods"));
    let watched: Vec<_> = host.watch.watched.keys().filter(below).collect();
    let expected: Vec<_> = [
        "",
        "0a",
        "0a/volumes",
        "0a/volumes/kubernetes.io~csi",
        "0a/volumes/kubernetes.io~csi/pv",
        "0a/volumes/kubernetes.io~empty-dir",
    ]
    .iter()
    .map(|name| match *name {
        "" => host.path("kubelet/pods"),
        name => host.path("kubelet/pods").join(name),
    })
    .collect();
    assert_eq!(watched, expected.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn after_a_loss_of_events_everything_is_watched_anew() {
    let mut host = Host::new();
    let rescan = || Event::new(EventKind::Other).set_flag(Flag::Rescan);
    let errors = || notify::Error::generic("broken");
    for event in [Ok(rescan()), Err(errors())] {
        host.watch.shared.take(event);
        let came = tokio::time::timeout(Duration::from_secs(20), host.hints.changed()).await;
        came.unwrap();
        // As if the watcher had forgotten: only what is watched anew tells anything.
        if let Some(watcher) = &mut host.watch.watcher {
            for path in host.watch.watched.keys() {
                watcher.unwatch(path).unwrap();
            }
        }
        host.watch.set();
        fs::create_dir(host.path("kubelet/pods/0a")).unwrap();
        host.hinted().await;
        fs::remove_dir(host.path("kubelet/pods/0a")).unwrap();
        host.hinted().await;
    }
}

#[test]
fn our_own_looks_are_no_reason_to_look() {
    let data = [OsString::from("data")].into();
    let wanted = Wanted::from([
        (PathBuf::from("/pods"), None),
        (PathBuf::from("/pods/0a"), None),
        (PathBuf::from("/srv"), Some(data)),
    ]);
    use AccessKind::{Close, Open, Read};
    use AccessMode::{Any, Read as Reading, Write as Writing};
    for (kind, path, reason) in [
        (EventKind::Access(Open(Any)), "/pods/0a", false),
        (EventKind::Access(Read), "/pods", false),
        (EventKind::Access(Close(Reading)), "/pods/0a", false),
        (EventKind::Access(Close(Writing)), "/pods/0a/file", true),
        (EventKind::Create(CreateKind::Folder), "/pods/0b", true),
        (EventKind::Remove(RemoveKind::Folder), "/pods", true),
        (
            EventKind::Modify(ModifyKind::Data(DataChange::Any)),
            "/srv/other",
            false,
        ),
        (
            EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)),
            "/srv/data",
            true,
        ),
        (EventKind::Remove(RemoveKind::Folder), "/srv", true),
        (EventKind::Other, "/elsewhere", true),
        (EventKind::Any, "/srv/other", false),
    ] {
        let event = Event::new(kind).add_path(path.into());
        assert_eq!(matters(&event, &wanted), reason, "{event:?}");
    }
    assert!(matters(&Event::new(EventKind::Any), &wanted));
}

#[tokio::test]
async fn a_mount_is_a_reason_to_look() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut host = Host::new();
    host.hints.mounts = Some(MountThread::start(host.watch.shared.clone()).unwrap());
    let place = host.path("elsewhere");
    fs::create_dir(&place).unwrap();
    let none = None::<&str>;
    mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    host.hinted().await;
    umount2(&place, MntFlags::MNT_DETACH).unwrap();
    host.hinted().await;
}

/// Runs this test in a user namespace with these limits.
fn with_limits(test: &str, instances: u32, watches: u32) {
    let script = format!(
        "echo {instances} > /proc/sys/user/max_inotify_instances && \
         echo {watches} > /proc/sys/user/max_inotify_watches && exec \"$@\""
    );
    let program = std::env::current_exe().unwrap();
    let child = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", &script, "sh"])
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env("HOLDFAST_TEST_LIMITS", watches.to_string())
        .output();
    let Ok(output) = child else {
        return eprintln!("there is no unshare here");
    };
    let told = String::from_utf8_lossy(&output.stderr);
    if told.contains("unshare:") || told.contains("Permission denied") {
        return eprintln!("no user namespace here: {told}");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{told}");
}

#[test]
fn where_watches_are_used_up_what_is_watched_is_told_and_nothing_fails() {
    const NAME: &str = "volumes::watch::tests::where_watches_are_used_up_what_is_watched_is_told_and_nothing_fails";
    let Ok(watches) = std::env::var("HOLDFAST_TEST_LIMITS") else {
        with_limits(NAME, 0, 0);
        return with_limits(NAME, 10, 3);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut host = Host::new();
        for pod in ["0a", "0b", "0c"] {
            fs::create_dir_all(host.path("kubelet/pods").join(pod).join("volumes")).unwrap();
        }
        host.watch.set();
        assert!(host.watch.warned);
        let some = watches != "0";
        assert_eq!(host.watch.watcher.is_some(), some);
        assert_eq!(host.watch.watched.len(), if some { 3 } else { 0 });
        if some {
            // The first ones are those furthest up.
            fs::remove_dir_all(host.path("kubelet")).unwrap();
            host.hinted().await;
            assert!(!host.watch.warned, "there is room again");
        }
    });
}
