//! `holdfast doctor [DIR…]`: what would fail here, and how to fix it. Changes nothing.

use crate::args::{Doctor, Format, Global};
use crate::connect;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::Table;
use holdfast_coordinator::declared::load;
use holdfast_coordinator::repo::{Repository, Store, StoreOptions, StoreUrl};
use holdfast_format::path::escape;
use rustix::fs::Access;
use serde_json::json;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// One thing that was looked at.
struct Finding {
    what: String,
    state: State,
    advice: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    /// Works, but not as well as it could.
    Note,
    /// Would fail.
    Bad,
}

/// Looks, prints, and ends with 1 where something would fail.
pub async fn run(global: &Global, options: Doctor) -> Outcome<()> {
    let mut found = vec![kernel(), capabilities()];
    if let Some(url) = &global.repo {
        found.extend(repository(global, url).await);
    }
    if let Some(url) = &global.coordinator {
        found.extend(coordinator(global, url).await);
    }
    found.extend(options.policies.iter().map(|path| policies(path)));
    if global.repo.is_none() && global.coordinator.is_none() {
        found.push(Finding::new(
            "repository",
            State::Note,
            "none named: give --repo or --coordinator to have it looked at too",
        ));
    }
    found.extend(options.paths.iter().map(|path| directory(path)));
    let bad = found.iter().filter(|f| f.state == State::Bad).count();
    let mut table = Table::new(&["CHECK", "STATE", "DETAIL"], 3);
    for f in found {
        let state = match f.state {
            State::Good => "ok",
            State::Note => "note",
            State::Bad => "FAILS",
        };
        let document = json!({"check": f.what, "state": state, "advice": f.advice});
        table.push(
            vec![f.what.clone(), state.into(), f.advice],
            f.what,
            document,
        );
    }
    table.print(global.output, "")?;
    match bad {
        0 => Ok(()),
        _ if global.output != Format::Table => Err(Failure::with(Exit::Failed, "")),
        count => Err(Failure::failed(format!("{count} of these would fail"))),
    }
}

impl Finding {
    fn new(what: impl Into<String>, state: State, advice: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            state,
            advice: advice.into(),
        }
    }
}

fn kernel() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match is_new_enough(&release) {
        true => Finding::new("kernel", State::Good, release.trim()),
        false => Finding::new(
            "kernel",
            State::Bad,
            format!("Linux 5.10 or later is needed; this is {}", release.trim()),
        ),
    }
}

/// Whether a kernel of this release, as `uname -r` prints it, has what agents need.
pub fn is_new_enough(release: &str) -> bool {
    let parts = release.split(|c: char| !c.is_ascii_digit());
    let numbers: Vec<u32> = parts.take(2).filter_map(|part| part.parse().ok()).collect();
    matches!(numbers[..], [major, minor] if (major, minor) >= (5, 10))
}

/// CAP_DAC_READ_SEARCH (2) and CAP_LEASE (28) of capabilities(7), as `/proc/self/status` shows them.
fn capabilities() -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .unwrap_or("0");
    let bits = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
    let missing: Vec<&str> = [(2, "CAP_DAC_READ_SEARCH"), (28, "CAP_LEASE")]
        .into_iter()
        .filter(|(bit, _)| bits >> bit & 1 == 0)
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        Finding::new(
            "capabilities",
            State::Good,
            "may read every file, and see who writes to it",
        )
    } else {
        let advice = format!(
            "without {}: files of others that you may not read become problems, and files of others count as busy (read again each time)",
            missing.join(" and ")
        );
        Finding::new("capabilities", State::Note, advice)
    }
}

async fn repository(global: &Global, url: &str) -> Vec<Finding> {
    let bad = |what: &str, failure: Failure| Finding::new(what, State::Bad, failure.message);
    let store = match Store::open(url, &StoreOptions::default()) {
        Ok(store) => store,
        Err(error) => return vec![bad("store", connect::failure(error.into()))],
    };
    let config = match Repository::find(&store).await {
        Ok(config) => config,
        Err(error) => return vec![bad("store", connect::failure(error.into()))],
    };
    let holds = format!("{} holds repository {}", store.url_redacted(), config.id);
    let mut found = vec![match StoreUrl::parse(url) {
        Ok(StoreUrl::Directory(dir)) if rustix::fs::access(&dir, Access::WRITE_OK).is_err() => {
            let advice = format!("{holds}, and cannot be written to: a backup would fail");
            Finding::new("store", State::Bad, advice)
        }
        _ => Finding::new("store", State::Good, holds),
    }];
    found.push(match connect::read_key(global, &store, &config).await {
        Err(failure) => bad("key", failure),
        Ok(key) => match Repository::open(store, key).await {
            Err(error) => bad("key", connect::failure(error.into())),
            Ok(_) => Finding::new("key", State::Good, "opens the repository"),
        },
    });
    let state = connect::state_of(global, config.id);
    found.push(if state.join("catalog.db").exists() || !state.exists() {
        writable("state", &state)
    } else {
        Finding::new(
            "state",
            State::Note,
            format!(
                "no catalog in {}: the next command builds it from the store",
                state.display()
            ),
        )
    });
    found
}

fn writable(what: &str, dir: &Path) -> Finding {
    let there = dir.ancestors().find(|d| d.exists()).unwrap_or(dir);
    match rustix::fs::access(there, Access::WRITE_OK) {
        Ok(()) => Finding::new(what, State::Good, dir.display().to_string()),
        Err(error) => Finding::new(
            what,
            State::Bad,
            format!(
                "{} cannot be written to ({error}): choose another with --state-dir",
                there.display()
            ),
        ),
    }
}

/// Policies of files, before anything goes by them.
fn policies(path: &Path) -> Finding {
    let what = format!("policies {}", escape(path.as_os_str().as_bytes()));
    match load(path) {
        Ok(loaded) => {
            let names = loaded.names();
            match names.is_empty() {
                true => Finding::new(what, State::Note, "there are none"),
                false => Finding::new(what, State::Good, names.join(", ")),
            }
        }
        Err(mistakes) => Finding::new(what, State::Bad, mistakes.0.join("; ")),
    }
}

async fn coordinator(global: &Global, url: &str) -> Vec<Finding> {
    let global = Global {
        repo: None,
        coordinator: Some(url.to_owned()),
        quiet: true,
        ..global.clone()
    };
    let asked = async {
        let connected = connect::open(&global, connect::Access::Read).await?;
        let status = super::admin(&connected.channel)
            .status(holdfast_proto::v1::StatusRequest {})
            .await?;
        Ok::<_, Failure>(status.into_inner())
    };
    match asked.await {
        Ok(status) => {
            let agents = match status.agents.len() {
                1 => format!("version {}, 1 agent", status.version),
                count => format!("version {}, {count} agents", status.version),
            };
            let mut found = vec![Finding::new("coordinator", State::Good, agents)];
            found.extend(status.policy_files.map(policy_files));
            found.extend(status.agent_infos.iter().map(agent));
            found
        }
        Err(failure) => vec![Finding::new("coordinator", State::Bad, failure.message)],
    }
}

/// How an agent says that it is itself.
fn agent(info: &holdfast_proto::v1::AgentInfo) -> Finding {
    let what = format!("agent on {}", info.node);
    let condition = info.condition.clone().unwrap_or_default();
    let troubles = condition.troubles.iter();
    let troubles: Vec<String> = troubles
        .map(|one| format!("{} ({})", one.detail, one.reason))
        .collect();
    if !troubles.is_empty() {
        return Finding::new(what, State::Bad, troubles.join("; "));
    }
    let said = super::status::said_of(info);
    let is_well = super::status::is_clock_right(info) && condition.journal_detail.is_empty();
    let detail = match &condition.journal_detail[..] {
        "" => said,
        why => format!("{said}; changes come from no better source, as of {why}"),
    };
    match is_well {
        true => Finding::new(what, State::Good, detail),
        false => Finding::new(what, State::Note, detail),
    }
}

fn policy_files(files: holdfast_proto::v1::PolicyFiles) -> Finding {
    let what = "coordinator's policies";
    match files.mistakes.is_empty() {
        true => Finding::new(
            what,
            State::Good,
            format!("{} of {}", files.policies, files.path),
        ),
        false => Finding::new(
            what,
            State::Bad,
            format!(
                "{} is not in force, but what it said before: {}",
                files.path,
                files.mistakes.join("; ")
            ),
        ),
    }
}

fn directory(path: &Path) -> Finding {
    let what = escape(path.as_os_str().as_bytes());
    let filesystem = |path: &Path| rustix::fs::statfs(path).map(|s| s.f_type as u64);
    match std::fs::read_dir(path) {
        Err(error) => Finding::new(what, State::Bad, format!("cannot be listed: {error}")),
        Ok(mut entries) => match (filesystem(path), entries.next()) {
            // ext4, xfs, btrfs: statfs(2)
            (Ok(0xef53 | 0x5846_5342 | 0x9123_683e), _) => {
                Finding::new(what, State::Good, "can be read; its stamps are trusted")
            }
            (Ok(kind), _) => Finding::new(
                what,
                State::Note,
                format!(
                    "can be read; filesystem {kind:#x} is not one whose stamps are trusted: files are read again more often"
                ),
            ),
            (Err(error), _) => {
                Finding::new(what, State::Bad, format!("cannot be examined: {error}"))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        for (release, expected) in [
            ("6.1.0-13-amd64", true),
            ("5.10.0", true),
            ("6.18+", true),
            ("5.9.16", false),
            ("4.18.0-553.el8.x86_64", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(release), expected, "{release}");
        }
    }
}
