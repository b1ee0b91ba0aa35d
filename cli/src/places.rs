//! Where key, state and socket of this user lie, and what is read there. Nothing is opened here but files.

use crate::args::Global;
use crate::failure::{Exit, Failure, Outcome};
use holdfast_format::id::RepositoryId;
use std::path::{Path, PathBuf};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Refuses to put a key or state into `/` for want of a home.
pub fn check_home(global: &Global) -> Outcome<()> {
    let unset = |variable| std::env::var_os(variable).is_none_or(|value| value.is_empty());
    let homeless = unset("HOME") && !is_root();
    let keyless =
        global.key_file.is_none() && global.passphrase_file.is_none() && unset("XDG_CONFIG_HOME");
    let stateless = global.state_dir.is_none() && unset("XDG_STATE_HOME");
    if homeless && (keyless || stateless) {
        return Err(Failure::usage(
            "HOME is not set: give --key-file and --state-dir",
        ));
    }
    Ok(())
}

fn home(variable: &str, below_home: &str) -> PathBuf {
    let fallback =
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(below_home);
    std::env::var_os(variable)
        .filter(|v| !v.is_empty())
        .map_or_else(fallback, PathBuf::from)
}

/// The key file: the one that was named, else the one of this repository in its usual place.
pub fn key_file(global: &Global, id: RepositoryId) -> PathBuf {
    let usual = || {
        let keys = if is_root() {
            "/etc/holdfast".into()
        } else {
            home("XDG_CONFIG_HOME", ".config").join("holdfast")
        };
        keys.join("keys").join(format!("{id}.key"))
    };
    global.key_file.clone().unwrap_or_else(usual)
}

/// Where catalog, index and caches of a repository lie.
pub fn state_of(global: &Global, id: RepositoryId) -> PathBuf {
    let usual = || {
        if is_root() {
            "/var/lib/holdfast".into()
        } else {
            home("XDG_STATE_HOME", ".local/state").join("holdfast")
        }
    };
    global
        .state_dir
        .clone()
        .unwrap_or_else(usual)
        .join("repos")
        .join(id.to_string())
}

/// The socket that `holdfast up` listens on.
pub fn default_socket() -> Option<PathBuf> {
    if is_root() {
        return Some("/run/holdfast/holdfast.sock".into());
    }
    std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("holdfast.sock"))
}

/// Makes a directory that only its owner may read.
pub fn private_dir(path: &Path) -> Outcome<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| Failure::failed(format!("cannot make {}: {e}", path.display())))
}

/// The first line of a passphrase file.
pub fn read_passphrase(file: &Path) -> Outcome<String> {
    let text = std::fs::read_to_string(file).map_err(|e| {
        Failure::with(
            Exit::WrongKey,
            format!("cannot read passphrase file {}: {e}", file.display()),
        )
    })?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(Failure::usage(format!(
            "passphrase file {} is empty",
            file.display()
        ))),
    }
}

/// Two repositories with one key would both be lost with it; the file says whose it is.
pub fn refuse_key_of_another(path: &Path) -> Outcome<()> {
    const OWNER: &str = "# Key of Holdfast repository ";
    let text = std::fs::read_to_string(path).unwrap_or_default();
    match text.lines().find_map(|line| line.strip_prefix(OWNER)) {
        Some(id) => Err(Failure::with(
            Exit::Refused,
            format!(
                "{} is the key of repository {}: choose another file",
                path.display(),
                id.trim_end_matches('.')
            ),
        )),
        None => Ok(()),
    }
}
