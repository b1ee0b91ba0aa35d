//! The program `holdfast-agent`: settings, then `run`. The image has it under this name in the one binary `holdfast`.

use crate::confine::{Confined, confine};
use crate::hold;
use crate::settings::AgentSettings;
use holdfast_runtime::exit::Exit;
use holdfast_runtime::program::{Program, Start};
use std::process::ExitCode;

const PROGRAM: Program = Program {
    name: "holdfast-agent",
    version: env!("CARGO_PKG_VERSION"),
    usage: "usage: holdfast-agent [--config FILE] [--print-settings] [--version]\n       holdfast-agent hold",
    default_file: "/etc/holdfast/agent.yaml",
    words: &[],
};

/// Runs it with the words of this process.
pub fn main() -> ExitCode {
    if std::env::args_os().skip(1).eq([hold::WORD]) {
        return match hold::hold() {
            Ok(exit) => exit.into(),
            Err(error) => {
                eprintln!("holdfast-agent: {error}");
                Exit::Failed.into()
            }
        };
    }
    let ended: anyhow::Result<_> = PROGRAM.run(
        |settings, _| AgentSettings::read(settings),
        |agent| &agent.log,
        |agent| Ok(confine(agent)?),
        |start: Start<AgentSettings, Confined>| async move {
            let mut settings = start.settings;
            settings.serve.confined = start.prepared;
            crate::run(settings, start.stopper, start.shutdown).await?;
            Ok(Exit::Done)
        },
    );
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("holdfast-agent: {error:#}");
            Exit::Failed.into()
        }
    }
}
