//! Which of the options and variables count. An option on the command line wins over the variable of
//! what it excludes, an empty variable is as unset, and an option that would be ignored is refused.

use crate::args::{Cli, Command};
use crate::failure::{Failure, Outcome};
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};

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
struct Typed {
    repo: bool,
    coordinator: bool,
    key_file: bool,
    passphrase_file: bool,
    state_dir: bool,
    /// `--ca-file` or `--client-cert`.
    trust: bool,
}

/// What was typed and exported, settled; the outer error is clap's.
pub fn parse() -> Result<Outcome<Cli>, clap::Error> {
    let mut command = Cli::command();
    for (option, variable) in WITH_VARIABLE {
        if std::env::var_os(variable).is_some_and(|value| value.is_empty()) {
            let unset = clap::builder::Resettable::Reset;
            command = command.mut_arg(option, |arg| arg.env(unset));
        }
    }
    let matches = command.try_get_matches()?;
    let typed = |option: &str| matches.value_source(option) == Some(ValueSource::CommandLine);
    let typed = Typed {
        repo: typed("repo"),
        coordinator: typed("coordinator"),
        key_file: typed("key_file"),
        passphrase_file: typed("passphrase_file"),
        state_dir: typed("state_dir"),
        trust: typed("ca_file") || typed("client_cert"),
    };
    Ok(settle(Cli::from_arg_matches(&matches)?, typed))
}

fn settle(mut cli: Cli, typed: Typed) -> Outcome<Cli> {
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

    fn settled(line: &str, typed: Typed) -> Outcome<Cli> {
        let words = std::iter::once("holdfast").chain(line.split_whitespace());
        settle(Cli::try_parse_from(words).unwrap(), typed)
    }

    #[test]
    fn an_option_wins_over_the_variable_of_what_it_excludes() {
        let line = "snapshots --repo r --coordinator http://c --key-file k --passphrase-file p";
        let repo = Typed {
            repo: true,
            key_file: true,
            ..Typed::default()
        };
        let global = settled(line, repo).unwrap().global;
        assert!(global.coordinator.is_none() && global.passphrase_file.is_none());
        let coordinator = Typed {
            coordinator: true,
            ..Typed::default()
        };
        assert!(settled(line, coordinator).unwrap().global.repo.is_none());
        let passphrase = Typed {
            repo: true,
            passphrase_file: true,
            ..Typed::default()
        };
        assert!(settled(line, passphrase).unwrap().global.key_file.is_none());
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let none = Typed::default();
        let all = Typed {
            repo: true,
            coordinator: true,
            key_file: true,
            passphrase_file: true,
            state_dir: true,
            trust: false,
        };
        let trust = Typed {
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
