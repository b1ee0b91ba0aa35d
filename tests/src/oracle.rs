//! Whether two trees are the same, by rsync and by a dumper in Python: neither knows our code.

use std::path::Path;
use std::process::Command;

/// Fails with the differences where the trees are not the same in content, kind, owner, mode, times,
/// links, xattrs, ACLs.
///
/// # Panics
/// Where they differ, or an oracle cannot be run.
pub fn assert_same(source: &Path, restored: &Path) {
    let dumps = [dump(source, false), dump(restored, false)];
    if dumps[0] != dumps[1] {
        let differ: Vec<String> = diff(&dumps[0], &dumps[1]);
        panic!(
            "the dumper sees differences between {} and {}:\n{}",
            source.display(),
            restored.display(),
            differ.join("\n")
        );
    }
    let rsync = rsync(source, restored);
    assert!(
        rsync.is_empty(),
        "rsync would change {}:\n{rsync}",
        restored.display()
    );
}

fn diff(a: &str, b: &str) -> Vec<String> {
    let (a, b): (Vec<_>, Vec<_>) = (a.lines().collect(), b.lines().collect());
    let gone = a
        .iter()
        .filter(|l| !b.contains(l))
        .map(|l| format!("- {l}"));
    let new = b
        .iter()
        .filter(|l| !a.contains(l))
        .map(|l| format!("+ {l}"));
    gone.chain(new).take(40).collect()
}

/// One line per path; see `oracle/dump.py`.
pub fn dump(root: &Path, skip_xattrs: bool) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/dump.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(root);
    if skip_xattrs {
        command.arg("--skip-xattrs");
    }
    let out = command.output().expect("python3 starts");
    assert!(
        out.status.success(),
        "the dumper failed: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("the dumper prints ASCII")
}

/// What rsync would do to make `restored` equal to `source`, by content; empty where nothing.
pub fn rsync(source: &Path, restored: &Path) -> String {
    let slash = |path: &Path| format!("{}/", path.display());
    let out = Command::new("rsync")
        .args(["-nacHAX", "--delete", "--itemize-changes"])
        .args([slash(source), slash(restored)])
        .output()
        .expect("rsync starts");
    // Paths longer than PATH_MAX are beyond rsync: the dumper has compared them.
    let errors = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.success()
            || errors.contains("File name too long")
            || errors.contains("overflows max-path"),
        "rsync failed: {errors}"
    );
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter(|l| !l.trim().is_empty() && !l.starts_with("IO error encountered"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Disk blocks (512 bytes) that a file takes.
pub fn blocks(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map_or(0, |meta| meta.blocks())
}
