//! Which of the options and variables count. An option on the command line wins over the variable of
//! what it excludes, an empty variable is as unset, and an option that would be ignored is refused.

use crate::args::{Cli, ClusterCli, Command};
use crate::failure::{Failure, Outcome};
use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::path::Path;

/// Options that have a variable.
const WITH_VARIABLE: [(&str, &str); 7] = [
    ("repo", "HOLDFAST_REPO"),
    ("coordinator", "HOLDFAST_COORDINATOR"),
    ("key_file", "HOLDFAST_KEY_FILE"),
    ("passphrase_file", "HOLDFAST_PASSPHRASE_FILE"),
    ("state_dir", "HOLDFAST_STATE_DIR"),
    ("ca_file", "HOLDFAST_CA_FILE"),
    ("client_cert", "HOLDFAST_CLIENT_CERT"),
];

/// Which options stand on the command line.
#[derive(Debug, Clone, Copy, Default)]
struct Given {
    repo: bool,
    coordinator: bool,
    key_file: bool,
    passphrase_file: bool,
    state_dir: bool,
    /// `--ca-file` or `--client-cert`.
    trust: bool,
}

/// What was typed.
pub enum Typed {
    /// A verb that works on a repository, or through a coordinator.
    Here(Cli),
    /// A verb that works on a cluster, and what the program is called as.
    InCluster(ClusterCli, &'static str),
}

/// Called by this name, as kubectl does, it works on the cluster.
const PLUGIN: &str = "kubectl-holdfast";
/// Options that mean the cluster, whatever the program is called.
const OF_CLUSTER: [&str; 6] = [
    "--cluster",
    "--kubeconfig",
    "--context",
    "--namespace",
    "--all-namespaces",
    "--holdfast-namespace",
];
/// Their short ones.
const OF_CLUSTER_SHORT: [&str; 2] = ["-n", "-A"];
/// Options of a repository or a coordinator, which mean nothing in a cluster.
const NOT_OF_CLUSTER: [&str; 6] = [
    "repo",
    "coordinator",
    "key_file",
    "passphrase_file",
    "state_dir",
    "take_over",
];

/// What the program is called as: by kubectl, for a cluster, or for a repository.
pub fn program(words: &[OsString]) -> &'static str {
    let called = words.first().map(Path::new).and_then(Path::file_name);
    if called.is_some_and(|name| name == PLUGIN) {
        return "kubectl holdfast";
    }
    let of_cluster = |word: &OsString| {
        let word = word.to_string_lossy();
        let name = word.split('=').next().unwrap_or_default();
        let is_short = OF_CLUSTER_SHORT.iter().any(|short| word.starts_with(short));
        OF_CLUSTER.contains(&name) || (is_short && !word.starts_with("--"))
    };
    let options = words.iter().skip(1).take_while(|word| *word != "--");
    match options.into_iter().any(of_cluster) {
        true => "holdfast --cluster",
        false => "holdfast",
    }
}

/// What was typed and exported, settled; the outer error is clap's.
pub fn parse(words: Vec<OsString>) -> Result<Outcome<Typed>, clap::Error> {
    match program(&words) {
        "holdfast" => Ok(parse_here(words)?.map(Typed::Here)),
        program => Ok(parse_in_cluster(words, program)?.map(|cli| Typed::InCluster(cli, program))),
    }
}

/// An empty variable is as unset.
fn without_empty(mut command: clap::Command) -> clap::Command {
    for (option, variable) in WITH_VARIABLE {
        if std::env::var_os(variable).is_some_and(|value| value.is_empty()) {
            command = command.mut_arg(option, |arg| arg.env(Resettable::Reset));
        }
    }
    command
}

fn parse_in_cluster(
    words: Vec<OsString>,
    program: &'static str,
) -> Result<Outcome<ClusterCli>, clap::Error> {
    let mut command = without_empty(ClusterCli::command()).bin_name(program);
    for option in NOT_OF_CLUSTER {
        command = command.mut_arg(option, |arg| arg.hide(true).env(Resettable::Reset));
    }
    if program == "kubectl holdfast" {
        command = command.mut_arg("cluster", |arg| arg.hide(true));
    }
    let matches = command.try_get_matches_from(words)?;
    let typed = |option: &&&str| matches.value_source(option) == Some(ValueSource::CommandLine);
    if let Some(option) = NOT_OF_CLUSTER.iter().find(typed) {
        let option = option.replace('_', "-");
        return Ok(Err(Failure::usage(format!(
            "--{option} does not go with the cluster, whose coordinator is found by itself"
        ))));
    }
    Ok(Ok(ClusterCli::from_arg_matches(&matches)?))
}

fn parse_here(words: Vec<OsString>) -> Result<Outcome<Cli>, clap::Error> {
    let matches = without_empty(Cli::command()).try_get_matches_from(words)?;
    let typed = |option: &str| matches.value_source(option) == Some(ValueSource::CommandLine);
    let typed = Given {
        repo: typed("repo"),
        coordinator: typed("coordinator"),
        key_file: typed("key_file"),
        passphrase_file: typed("passphrase_file"),
        state_dir: typed("state_dir"),
        trust: typed("ca_file") || typed("client_cert"),
    };
    Ok(settle(Cli::from_arg_matches(&matches)?, typed))
}

fn settle(mut cli: Cli, typed: Given) -> Outcome<Cli> {
    let global = &mut cli.global;
    if let Some(verb) = of_repositories(&cli.command) {
        if typed.coordinator {
            return Err(Failure::usage(format!(
                "`{verb}` works on a repository, not through a coordinator: give --repo URL"
            )));
        }
        global.coordinator = None;
    }
    let is_https = |url: &String| url.starts_with("https:");
    if typed.trust && !global.coordinator.as_ref().is_some_and(is_https) {
        return Err(Failure::usage(
            "--ca-file and --client-cert go with --coordinator https://HOST:PORT",
        ));
    }
    if !matches!(cli.command, Command::Doctor(_)) {
        prefer(
            (&mut global.repo, typed.repo),
            (&mut global.coordinator, typed.coordinator),
        );
        if let (Some(url), None) = (&global.coordinator, &global.repo) {
            let ignored = [
                (typed.key_file, "--key-file"),
                (typed.passphrase_file, "--passphrase-file"),
                (typed.state_dir, "--state-dir"),
                (global.take_over, "--take-over"),
            ];
            if let Some((_, option)) = ignored.into_iter().find(|(given, _)| *given) {
                return Err(Failure::usage(format!(
                    "{option} goes with --repo: the coordinator at {url} has its own"
                )));
            }
            return Ok(cli);
        }
    }
    // `init` writes the key to the one and lets the other open it too.
    if !matches!(cli.command, Command::Init(_)) {
        prefer(
            (&mut global.key_file, typed.key_file),
            (&mut global.passphrase_file, typed.passphrase_file),
        );
        if global.key_file.is_some() && global.passphrase_file.is_some() {
            return Err(Failure::usage(
                "both --key-file and --passphrase-file are given (or set in the environment): choose one",
            ));
        }
    }
    Ok(cli)
}

/// The verb, where it works on a repository itself.
fn of_repositories(command: &Command) -> Option<&'static str> {
    match command {
        Command::Init(_) => Some("init"),
        Command::Up(_) => Some("up"),
        Command::Key(_) => Some("key"),
        Command::Rebuild => Some("rebuild"),
        _ => None,
    }
}

/// Where only one of two was typed, the other, which comes from a variable, does not count.
fn prefer<A, B>(one: (&mut Option<A>, bool), other: (&mut Option<B>, bool)) {
    match (one.1, other.1) {
        (true, false) => *other.0 = None,
        (false, true) => *one.0 = None,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn settled(line: &str, typed: Given) -> Outcome<Cli> {
        let words = std::iter::once("holdfast").chain(line.split_whitespace());
        settle(Cli::try_parse_from(words).unwrap(), typed)
    }

    #[test]
    fn an_option_wins_over_the_variable_of_what_it_excludes() {
        let line = "snapshots --repo r --coordinator http://c --key-file k --passphrase-file p";
        let repo = Given {
            repo: true,
            key_file: true,
            ..Given::default()
        };
        let global = settled(line, repo).unwrap().global;
        assert!(global.coordinator.is_none() && global.passphrase_file.is_none());
        let coordinator = Given {
            coordinator: true,
            ..Given::default()
        };
        assert!(settled(line, coordinator).unwrap().global.repo.is_none());
        let passphrase = Given {
            repo: true,
            passphrase_file: true,
            ..Given::default()
        };
        assert!(settled(line, passphrase).unwrap().global.key_file.is_none());
    }

    #[test]
    fn the_cluster_is_meant_by_name_or_by_an_option() {
        let called = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            program(&words)
        };
        for (line, expected) in [
            ("/usr/bin/kubectl-holdfast status", "kubectl holdfast"),
            ("kubectl-holdfast", "kubectl holdfast"),
            ("holdfast status", "holdfast"),
            ("holdfast --cluster status", "holdfast --cluster"),
            ("holdfast status --context=a", "holdfast --cluster"),
            ("holdfast status -n shop", "holdfast --cluster"),
            ("holdfast status -nshop", "holdfast --cluster"),
            ("holdfast volumes -A", "holdfast --cluster"),
            ("holdfast backup --name x -- --cluster", "holdfast"),
        ] {
            assert_eq!(called(line), expected, "{line}");
        }
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let refused = parse(words("kubectl-holdfast status --repo x")).unwrap();
        let message = refused
            .err()
            .map(|failure| failure.message)
            .unwrap_or_default();
        assert!(message.contains("--repo does not go"), "{message}");
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let none = Given::default();
        let all = Given {
            repo: true,
            coordinator: true,
            key_file: true,
            passphrase_file: true,
            state_dir: true,
            trust: false,
        };
        let trust = Given {
            trust: true,
            ..none
        };
        for (line, typed) in [
            ("snapshots --repo r --key-file k --passphrase-file p", none),
            ("snapshots --repo r --key-file k --passphrase-file p", all),
            ("snapshots --coordinator c --key-file k", all),
            ("snapshots --coordinator c --take-over", none),
            ("snapshots --coordinator c --state-dir s", all),
            ("init --coordinator c", all),
            ("snapshots --repo r --ca-file f", trust),
            ("snapshots --coordinator http://c --ca-file f", trust),
            ("key list --repo r --coordinator c", all),
        ] {
            let refused = settled(line, typed).unwrap_err();
            assert_eq!(refused.exit, crate::failure::Exit::Usage, "{line}");
        }
        let only_variable = settled("key list --repo r --coordinator c", none).unwrap();
        assert!(only_variable.global.coordinator.is_none());
        settled("snapshots --coordinator c --key-file k --state-dir s", none).unwrap();
        settled("snapshots --coordinator https://c --ca-file f", trust).unwrap();
        settled("snapshots --repo r --ca-file f", none).unwrap();
        let init = settled("init --repo r --key-file k --passphrase-file p", none).unwrap();
        assert!(init.global.key_file.is_some() && init.global.passphrase_file.is_some());
    }
}
