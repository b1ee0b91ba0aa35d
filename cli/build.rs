//! Lists the definitions of the chart, so that `doctor` knows all of them.

use std::fmt::Write;
use std::path::Path;

fn main() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart/crds");
    println!("cargo::rerun-if-changed={}", dir.display());
    let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    let mut text = String::from("&[\n");
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|end| end == "yaml"))
    {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let plural = name.split('.').next().unwrap_or_default();
        let _ = writeln!(
            text,
            "({plural:?}, include_str!({:?})),",
            file.display().to_string()
        );
    }
    text.push(']');
    let out = std::env::var_os("OUT_DIR").unwrap_or_default();
    if let Err(error) = std::fs::write(Path::new(&out).join("definitions.rs"), text) {
        println!("cargo::error=cannot list the definitions: {error}");
    }
}
