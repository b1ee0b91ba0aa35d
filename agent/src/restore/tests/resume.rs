//! A restore that was killed anywhere is finished by running it again.

use super::*;

/// Temporary files that are left, anywhere below.
pub fn temporary_names(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in oracle::dump(dir).into_keys() {
        let name = String::from_utf8_lossy(&path).into_owned();
        if name.contains(".holdfast-restore-") && name.matches('-').count() > 2 {
            found.push(name);
        }
    }
    found
}

fn markers(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    names
        .filter(|n| n.to_string_lossy().starts_with(".holdfast-restore-"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_restore_goes_on_where_it_stopped() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(source.path());
    let fake = Fake::of(source.path());
    // The first run ends when the third frame has come.
    *fake.breaks.lock().unwrap() = (3, 1000);
    let cancel = Cancel::new();
    let later = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(250)).await;
        later.cancel();
    });
    let options = RestoreOptions::default();
    let channel = fake.serve().await;
    let aborted = restore(
        channel,
        ID,
        RelPath::root(),
        at(target.path()),
        &options,
        Progress::new(),
        cancel,
    );
    assert!(aborted.await.is_err());
    assert_eq!(markers(target.path()), 1);
    let held = fs::read(target.path().join("small")).unwrap();
    assert_eq!(held, noise(1, 700));

    *fake.breaks.lock().unwrap() = (0, 0);
    fake.asked.lock().unwrap().clear();
    let other = SnapshotId::from_bytes([8; 32]);
    let channel = fake.serve().await;
    let refused = restore(
        channel,
        other,
        RelPath::root(),
        at(target.path()),
        &options,
        Progress::new(),
        Cancel::new(),
    );
    let error = refused.await.unwrap_err();
    assert_eq!(error.reason(), "TargetNotEmpty");
    assert!(error.to_string().contains(&ID.to_string()), "{error}");

    let report = run_well(&fake, target.path(), options).await;
    assert!(report.resumed);
    assert!(report.count(Action::Keep) > 0);
    oracle::assert_same(source.path(), target.path());
    assert_eq!(markers(target.path()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kill_leaves_is_never_taken_for_whole() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(source.path());
    let fake = Fake::of(source.path());
    run_well(&fake, target.path(), RestoreOptions::default()).await;
    // As a kill between any two calls could have left it: half a file under its own name with its
    // own size and time, temporary files of the dead run, unsettled directories, and the marker.
    let path = RelPath::root();
    let names = marker::Names::new(None, [3; 16]);
    let root = Root::open(target.path()).unwrap();
    marker::put(&root.top().unwrap(), &names, &ID, &path).unwrap();
    let half = target.path().join("d/200");
    let mut bytes = fs::read(&half).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0);
    fs::write(&half, &bytes).unwrap();
    age(&half, 1_500_000_200, 123_456_789);
    fs::write(target.path().join("d/201"), b"").unwrap();
    let left = names.temporary();
    fs::write(
        target.path().join("d/e").join(OsStr::from_bytes(&left)),
        b"part",
    )
    .unwrap();
    fs::write(
        target.path().join(OsStr::from_bytes(&names.temporary())),
        b"part",
    )
    .unwrap();
    fs::set_permissions(target.path().join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_file(target.path().join("d/e/many again")).unwrap();
    let report = run_well(&fake, target.path(), RestoreOptions::default()).await;
    assert!(report.resumed);
    assert_eq!(report.count(Action::Replace), 2);
    oracle::assert_same(source.path(), target.path());
    assert_eq!(
        (markers(target.path()), temporary_names(target.path()).len()),
        (0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_of_the_snapshot_itself_is_an_ordinary_file() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let name = ".holdfast-restore-0123456789abcdef~";
    fs::write(
        source.path().join(name),
        b"holdfast restore 1\nsnapshot 00\n",
    )
    .unwrap();
    let fake = Fake::of(source.path());
    run_well(&fake, target.path(), RestoreOptions::default()).await;
    oracle::assert_same(source.path(), target.path());
}

/// A small tree in which every kind of call is made a few times.
fn little(dir: &Path) {
    for n in 0..4u64 {
        let below = dir.join(format!("d{n}"));
        fs::create_dir(&below).unwrap();
        put(&below.join("small"), &noise(n, 900));
        put(&below.join("chunk"), &noise(10 + n, 9_000));
        put(&below.join("chunks"), &noise(20 + n, 60_000));
        symlink("small", below.join("link")).unwrap();
        fs::hard_link(below.join("chunks"), below.join("zz")).unwrap();
        age(&below.join("small"), 1_000_000 + n as i64, 5);
        age(&below, 2_000_000 + n as i64, 7);
    }
    put(&dir.join("large"), &noise(30, 1_500_000));
    age(dir, 3_000_000, 9);
}

/// Not a test of its own: the process that `killed_at_any_call` kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by killed_at_any_call"]
async fn child() {
    let place = |name| std::path::PathBuf::from(std::env::var_os(name).unwrap());
    let fake = Fake::of(&place("HOLDFAST_TEST_SOURCE"));
    let target = place("HOLDFAST_TEST_TARGET");
    run_well(&fake, &target, RestoreOptions::default()).await;
}

#[test]
fn killed_at_any_call_and_run_again_it_is_whole() {
    if std::process::Command::new("strace")
        .arg("-V")
        .output()
        .is_err()
    {
        return; // Nothing to kill with.
    }
    let source = tempfile::tempdir().unwrap();
    little(source.path());
    let mut interrupted = 0;
    for calls in [
        "openat2",
        "pwrite64,utimensat",
        "mkdirat,renameat2,linkat,unlinkat",
        "fchmod,fchown",
    ] {
        for nth in [1, 2, 3, 4, 6, 9, 14] {
            let target = tempfile::tempdir().unwrap();
            let child = |inject: Option<String>| {
                let mut command = match inject {
                    None => std::process::Command::new(std::env::current_exe().unwrap()),
                    Some(inject) => {
                        let mut strace = std::process::Command::new("strace");
                        strace.args(["-f", "-qqq", "-o", "/dev/null", "-e", &inject]);
                        strace.arg(std::env::current_exe().unwrap());
                        strace
                    }
                };
                command
                    .args(["--exact", "restore::tests::resume::child", "--ignored"])
                    .env("HOLDFAST_TEST_SOURCE", source.path())
                    .env("HOLDFAST_TEST_TARGET", target.path())
                    .output()
                    .unwrap()
            };
            let first = child(Some(format!("inject={calls}:signal=SIGKILL:when={nth}")));
            if first.status.success() {
                continue; // It makes fewer such calls on every thread.
            }
            // Without a marker it had not begun, or had just finished.
            let empty = fs::read_dir(target.path()).unwrap().next().is_none();
            if empty || markers(target.path()) > 0 {
                interrupted += usize::from(!empty);
                let again = child(None);
                let output = String::from_utf8_lossy(&again.stdout).into_owned();
                assert!(again.status.success(), "{calls} {nth}: {output}");
            }
            oracle::assert_same(source.path(), target.path());
            assert_eq!(markers(target.path()), 0, "{calls} {nth}");
        }
    }
    assert!(
        interrupted >= 10,
        "only {interrupted} kills after the marker"
    );
}
