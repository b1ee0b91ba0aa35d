//! The start of a process that serves: its command line, its settings with all errors at once, logs, then
//! the work, with one request to stop. What the command line may say beside that is a list of words.

use crate::exit::Exit;
use crate::logging::{self, LogSettings, LoggingError};
use crate::settings::Settings;
use crate::shutdown::{self, Shutdown, Stopper};
use crate::tls;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A program, as its command line knows it.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// One line: how it is called.
    pub usage: &'static str,
    /// Its settings, where none are named and this file exists.
    pub default_file: &'static str,
    /// Words and options without a value that it knows beside `--config FILE`, `--print-settings`,
    /// `--version` and `--help`.
    pub words: &'static [&'static str],
}

/// What the command line said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Given {
    file: Option<PathBuf>,
    print: bool,
    words: Vec<&'static str>,
}

impl Given {
    /// Whether this word was given.
    pub fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    /// The last that was given of these words, if one was.
    pub fn last_of(&self, words: &[&str]) -> Option<&'static str> {
        self.words
            .iter()
            .rev()
            .copied()
            .find(|word| words.contains(word))
    }
}

/// What the work of a process begins with.
pub struct Start<S, P = ()> {
    /// Its settings.
    pub settings: S,
    /// What was prepared.
    pub prepared: P,
    /// What the command line said.
    pub given: Given,
    /// Asks everything to stop.
    pub stopper: Stopper,
    /// Is asked to stop.
    pub shutdown: Shutdown,
}

enum Line {
    Run(Given),
    /// To be printed, and that is all.
    Tell(String),
    Wrong,
}

impl Program {
    fn parse(&self, arguments: impl IntoIterator<Item = OsString>) -> Line {
        let mut given = Given::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--config") => match arguments.next() {
                    Some(file) => given.file = Some(file.into()),
                    None => return Line::Wrong,
                },
                Some("--print-settings") => given.print = true,
                Some("--version") => return Line::Tell(format!("{} {}", self.name, self.version)),
                Some("--help" | "-h") => return Line::Tell(self.usage.into()),
                Some(word) => match self.words.iter().find(|known| **known == word) {
                    Some(known) => given.words.push(known),
                    None => return Line::Wrong,
                },
                None => return Line::Wrong,
            }
        }
        Line::Run(given)
    }

    /// Runs the program. `read` asks the settings for every key; `log` says where logs go; `prepare` is called
    /// before there is any other thread of ours; `work` is run on a runtime of many threads, of which those that
    /// hang at its end are left behind.
    pub fn run<S, P, F, E>(
        &self,
        read: impl FnOnce(&mut Settings, &Given) -> S,
        log: impl FnOnce(&S) -> &LogSettings,
        prepare: impl FnOnce(&S) -> Result<P, E>,
        work: impl FnOnce(Start<S, P>) -> F,
    ) -> Result<Exit, E>
    where
        F: Future<Output = Result<Exit, E>>,
        E: From<LoggingError> + From<std::io::Error>,
    {
        let given = match self.parse(std::env::args_os().skip(1)) {
            Line::Run(given) => given,
            Line::Tell(text) => {
                println!("{text}");
                return Ok(Exit::Done);
            }
            Line::Wrong => {
                eprintln!("{}", self.usage);
                return Ok(Exit::Usage);
            }
        };
        let default = Path::new(self.default_file);
        let file = given
            .file
            .as_deref()
            .or(default.exists().then_some(default));
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let mut settings = Settings::read(file, environment);
        let read = read(&mut settings, &given);
        let effective = match settings.finish() {
            Ok(effective) => effective,
            Err(errors) => {
                eprintln!("{}: {errors}", self.name);
                return Ok(Exit::Usage);
            }
        };
        if given.print {
            println!("{effective}");
            return Ok(Exit::Done);
        }
        logging::start(log(&read))?;
        tls::install_provider();
        tracing::info!(version = self.version, settings = %effective, "starting");
        let prepared = prepare(&read)?;
        let (stopper, shutdown) = shutdown::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let exit = runtime.block_on(work(Start {
            settings: read,
            prepared,
            given,
            stopper,
            shutdown,
        }))?;
        // What hangs in a store or a dead filesystem must not hold up the end.
        runtime.shutdown_background();
        Ok(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: Program = Program {
        name: "holdfast-test",
        version: "1.2.3",
        usage: "usage: holdfast-test",
        default_file: "/nowhere",
        words: &["serve", "rebuild", "--take-over"],
    };

    fn parse(line: &str) -> Line {
        PROGRAM.parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn known_words_are_taken_in_their_order() {
        let Line::Run(given) = parse("serve --config /a --take-over rebuild --print-settings")
        else {
            panic!("it is right");
        };
        assert_eq!(given.file.as_deref(), Some(Path::new("/a")));
        assert!(given.print && given.has("--take-over") && !given.has("--other"));
        assert_eq!(given.last_of(&["serve", "rebuild"]), Some("rebuild"));
        let Line::Run(given) = parse("") else {
            panic!("it is right");
        };
        assert_eq!(given, Given::default());
        assert_eq!(given.last_of(&["serve", "rebuild"]), None);
    }

    #[test]
    fn what_is_unknown_or_lacks_its_value_is_wrong() {
        for line in ["--config", "server", "--Take-over", "--print-settings x"] {
            assert!(matches!(parse(line), Line::Wrong), "{line}");
        }
        use std::os::unix::ffi::OsStringExt;
        let bytes = OsString::from_vec(vec![0xff]);
        assert!(matches!(PROGRAM.parse([bytes]), Line::Wrong));
        assert!(matches!(parse("--version"), Line::Tell(text) if text == "holdfast-test 1.2.3"));
        assert!(matches!(parse("serve -h"), Line::Tell(text) if text == PROGRAM.usage));
    }
}
