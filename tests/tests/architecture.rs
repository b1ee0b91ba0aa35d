//! The rules of the house: which crate may see which, one folder per third-party seam, file sizes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_path_buf()
}

/// Names in a crate's `[dependencies]` (not its dev- or build-dependencies).
fn dependencies(krate: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(krate).join("Cargo.toml")).expect("a manifest");
    let section = text.split("[dependencies]").nth(1).expect("dependencies");
    let section = section.split("\n[").next().unwrap_or_default();
    let names = section
        .lines()
        .filter_map(|l| l.split(['.', ' ', '=']).next());
    names
        .filter(|n| !n.is_empty() && !n.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn files(of: &str) -> BTreeMap<String, String> {
    let mut paths = Vec::new();
    sources(&root().join(of), &mut paths);
    let name = |p: &Path| {
        p.strip_prefix(root())
            .expect("below the root")
            .to_string_lossy()
            .into_owned()
    };
    paths
        .iter()
        .map(|p| (name(p), std::fs::read_to_string(p).expect("a source file")))
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let allowed: [(&str, &[&str]); 6] = [
        ("proto", &[]),
        ("format", &["holdfast-proto"]),
        ("runtime", &[]),
        (
            "agent",
            &["holdfast-proto", "holdfast-format", "holdfast-runtime"],
        ),
        (
            "coordinator",
            &["holdfast-proto", "holdfast-format", "holdfast-runtime"],
        ),
        (
            "cli",
            &[
                "holdfast-proto",
                "holdfast-format",
                "holdfast-runtime",
                "holdfast-agent",
                "holdfast-coordinator",
            ],
        ),
    ];
    for (krate, allowed) in allowed {
        for dependency in dependencies(krate)
            .iter()
            .filter(|d| d.starts_with("holdfast-"))
        {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{krate} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn the_format_is_pure() {
    for forbidden in [
        "tokio",
        "object_store",
        "sqlx",
        "rustix",
        "nix",
        "libc",
        "getrandom",
        "rand",
        "tempfile",
    ] {
        assert!(
            !dependencies("format").iter().any(|d| d == forbidden),
            "format must not depend on {forbidden}"
        );
    }
    for (name, text) in files("format/src") {
        let test = name.contains("tests") || name.ends_with("fuzz.rs");
        for forbidden in [
            "std::fs",
            "std::time::SystemTime",
            "Instant::now",
            "std::net",
            "async fn",
        ] {
            assert!(test || !text.contains(forbidden), "{name} uses {forbidden}");
        }
    }
}

#[test]
fn only_connect_sees_agent_and_coordinator() {
    for (name, text) in files("cli/src") {
        let both = text.contains("holdfast_agent") && text.contains("holdfast_coordinator");
        // `main` hands over to either program, by the name that it was called by.
        let may = ["cli/src/connect.rs", "cli/src/main.rs"].contains(&&name[..]);
        assert!(
            !both || may,
            "{name} sees agent and coordinator; only connect.rs may"
        );
    }
}

#[test]
fn one_folder_per_seam() {
    let seams: [(&str, &str, &[&str]); 8] = [
        (
            "object_store::",
            "coordinator/src",
            &["coordinator/src/repo"],
        ),
        ("sqlx::", "coordinator/src", &["coordinator/src/catalog"]),
        ("tonic::", "coordinator/src/repo", &[]),
        ("tonic::", "coordinator/src/catalog", &[]),
        ("redb::", "agent/src", &["agent/src/index"]),
        ("use notify::", "agent/src", &["agent/src/volumes/watch"]),
        (
            "tempfile::tempfile",
            "agent/src",
            &["agent/src/temporary.rs"],
        ),
        ("fastcdc::", "format/src", &["format/src/chunker"]),
    ];
    for (seam, within, rooms) in seams {
        for (name, text) in files(within) {
            let room = rooms.iter().any(|r| name.starts_with(r));
            assert!(
                room || !text.contains(seam),
                "{name} names {seam}; only {rooms:?} may"
            );
        }
    }
}

#[test]
fn unsafe_code_is_in_one_file() {
    for krate in [
        "proto",
        "format",
        "runtime",
        "agent",
        "coordinator",
        "cli",
        "tests",
    ] {
        for (name, text) in files(&format!("{krate}/src")) {
            let allowed = name == "agent/src/sys.rs";
            let found = text.lines().any(|l| {
                l.trim_start().starts_with("unsafe ")
                    || l.contains(" unsafe {")
                    || l.contains("allow(unsafe_code)")
            });
            assert!(allowed || !found, "{name} has unsafe code");
        }
    }
}

#[test]
fn files_are_rooms() {
    for krate in ["format", "runtime", "agent", "coordinator", "cli", "tests"] {
        for (name, text) in files(krate) {
            let lines = text.lines().count();
            assert!(lines <= 600, "{name} has {lines} lines: more than one room");
            let test = name.contains("/tests");
            assert!(
                test || text.starts_with("//!"),
                "{name} does not say on its first line what it guarantees"
            );
        }
    }
}
