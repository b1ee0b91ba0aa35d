//! What a restricted thread can and cannot do, whoever runs the tests: root is restricted too.

use super::{Landlock, Plan, confine, restrict};
use crate::beneath::Root;
use crate::settings::AgentSettings;
use crate::sys::landlock;
use holdfast_runtime::settings::Settings;
use std::fs::{self, File};
use std::io::ErrorKind::PermissionDenied;
use std::path::Path;

fn settings(text: &str) -> AgentSettings {
    let text = format!("coordinator: {{url: 'http://a'}}\n{text}");
    let mut settings = Settings::from_text("agent.yaml", &text, []);
    let read = AgentSettings::read(&mut settings);
    settings.finish().unwrap();
    read
}

/// A restriction is for ever: on a thread of its own.
fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(work).join().unwrap()
}

fn is_denied<T>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == PermissionDenied)
}

#[test]
fn volumes_are_read_only_and_what_is_outside_is_closed() {
    if landlock::abi() < 2 {
        eprintln!("this kernel has no Landlock: not tried");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().canonicalize().unwrap().join(name);
    for name in ["volume/sub", "state", "target", "outside", "tls"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    for name in [
        "volume/f",
        "volume/sub/f",
        "state/f",
        "outside/secret",
        "tls/ca.crt",
    ] {
        fs::write(at(name), name).unwrap();
    }
    let text = format!(
        "coordinator: {{url: 'https://a', tls_ca: '{0}/tls/ca.crt'}}\nstate: {{dir: '{0}/state'}}\n\
         volumes: {{host_roots: ['{0}/volume']}}\nrestore: {{below: ['{0}/target', '{0}/gone']}}\n\
         agent: {{landlock: required}}\n",
        at("").display().to_string().trim_end_matches('/')
    );
    let mut read = Settings::from_text("agent.yaml", &text, []);
    let settings = AgentSettings::read(&mut read);
    read.finish().unwrap();
    let (volume, state, target, outside, tls) = (
        at("volume"),
        at("state"),
        at("target"),
        at("outside"),
        at("tls"),
    );
    on_a_thread(move || {
        let confined = confine(&settings).unwrap();
        assert!(confined.abi >= 2, "{confined:?}");
        // Volumes: read and listed, through descriptors too, and not written, renamed, linked or removed.
        assert_eq!(fs::read(volume.join("sub/f")).unwrap(), b"volume/sub/f");
        assert_eq!(fs::read_dir(&volume).unwrap().count(), 2);
        let root = Root::open(&volume).unwrap();
        drop(root);
        let inside = File::open(volume.join("f")).unwrap();
        assert!(is_denied(File::create(volume.join("new"))));
        assert!(is_denied(
            File::options().write(true).open(volume.join("f"))
        ));
        assert!(is_denied(fs::remove_file(volume.join("f"))));
        assert!(is_denied(fs::rename(volume.join("f"), volume.join("g"))));
        assert!(is_denied(fs::create_dir(volume.join("d"))));
        drop(inside);
        // Outside.
        assert!(is_denied(File::open(outside.join("secret"))));
        assert!(is_denied(fs::read_dir(&outside)));
        assert!(is_denied(File::open("/etc/passwd")));
        assert!(is_denied(File::create(outside.join("new"))));
        assert!(is_denied(fs::copy(volume.join("f"), outside.join("f"))));
        // Its own: everything, also over directories and by temporary files without names.
        fs::create_dir(state.join("a")).unwrap();
        fs::rename(state.join("f"), state.join("a/f")).unwrap();
        fs::hard_link(state.join("a/f"), state.join("g")).unwrap();
        File::options()
            .write(true)
            .open(state.join("g"))
            .unwrap()
            .set_len(1)
            .unwrap();
        crate::temporary::file_in(&state.join("tmp")).unwrap();
        fs::write(target.join("restored"), "r").unwrap();
        // What runs need of the system.
        assert!(crate::mount::mounts().is_ok());
        assert!(fs::read_dir("/proc/self/fd").is_ok());
        assert!(fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").is_ok());
        assert!(fs::read(tls.join("ca.crt")).is_ok());
        let hosts = Path::new("/etc/hosts");
        assert!(!hosts.exists() || fs::read(hosts).is_ok());
        // And those that it starts.
        let secret = outside.join("secret");
        on_a_thread(move || assert!(is_denied(File::open(secret))));
    });
    assert!(
        File::open(at("outside/secret")).is_ok(),
        "another thread is as before"
    );
}

#[test]
fn what_is_mounted_later_belongs_to_its_directory() {
    if landlock::abi() < 2 || !rustix::process::geteuid().is_root() {
        eprintln!("needs Landlock and root: not tried");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let pods = home.path().canonicalize().unwrap();
    on_a_thread(move || {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        const NONE: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
        fs::create_dir(pods.join("late")).unwrap();
        // Another thread mounts what this one reads: who is restricted cannot mount.
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let (done, ready) = std::sync::mpsc::channel::<()>();
        let late = pods.join("late");
        let mounting = std::thread::spawn({
            let late = late.clone();
            move || {
                gone.recv().unwrap();
                mount(Some("tmpfs"), &late, Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
                fs::write(late.join("f"), "mounted").unwrap();
                done.send(()).unwrap();
            }
        });
        let plan = Plan {
            read: Some(vec![pods.clone()]),
            ..Plan::default()
        };
        restrict(&plan, landlock::abi()).unwrap();
        go.send(()).unwrap();
        ready.recv().unwrap();
        assert_eq!(fs::read(late.join("f")).unwrap(), b"mounted");
        assert!(is_denied(fs::write(late.join("g"), "")));
        mounting.join().unwrap();
    });
}

#[test]
fn what_leaves_nothing_to_be_restricted_is_told_and_refused_where_required() {
    let free = settings("agent: {landlock: auto}\n");
    let confined = confine(&free).unwrap();
    assert_eq!(confined.abi, 0);
    assert!(
        confined.detail.contains("restore.below"),
        "{}",
        confined.detail
    );
    let required = settings("agent: {landlock: required}\n");
    let error = confine(&required).unwrap_err().to_string();
    assert!(
        error.contains("required") && error.contains("restore.below"),
        "{error}"
    );
    let off = settings("agent: {landlock: 'off'}\nrestore: {below: [/var/empty]}\n");
    assert_eq!(off.landlock, Landlock::Off);
    assert_eq!(confine(&off).unwrap().abi, 0);
}

#[test]
fn volumes_that_may_be_elsewhere_leave_reading_free() {
    let home = tempfile::tempdir().unwrap();
    let real = home.path().canonicalize().unwrap();
    std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
    for (volume, is_free) in [("", false), ("/link", true), ("/gone", true)] {
        let text = format!("volumes: {{host_roots: ['{}{volume}']}}\n", real.display());
        let plan = Plan::of(&settings(&text));
        assert_eq!(plan.read.is_none(), is_free, "{volume}: {plan:?}");
    }
    let named = format!("volumes: {{paths: ['v={}']}}\n", real.display());
    assert_eq!(Plan::of(&settings(&named)).read, None);
}
