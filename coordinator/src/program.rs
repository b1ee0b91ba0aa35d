//! The program `holdfast-coordinator`: settings, then `serve` (the default) or `rebuild`. The image has it under this name
//! in the one binary `holdfast`.

use crate::server::{exit_of, rebuild, serve};
use crate::settings::ServerSettings;
use holdfast_runtime::program::{Program, Start};
use std::process::ExitCode;

const PROGRAM: Program = Program {
    name: "holdfast-coordinator",
    version: env!("CARGO_PKG_VERSION"),
    usage: "usage: holdfast-coordinator [serve | rebuild] [--config FILE] [--insecure-listen] \
            [--take-over] [--print-settings] [--version]",
    default_file: "/etc/holdfast/coordinator.yaml",
    words: &["serve", "rebuild", "--insecure-listen", "--take-over"],
};

/// Runs it with the words of this process.
pub fn main() -> ExitCode {
    let ended: anyhow::Result<_> = PROGRAM.run(
        |settings, given| {
            let mut server = ServerSettings::read(settings, given.has("--insecure-listen"));
            server.take_over |= given.has("--take-over");
            server
        },
        |server| &server.log,
        |_| Ok(()),
        |start: Start<ServerSettings>| async move {
            match start.given.last_of(&["serve", "rebuild"]) {
                Some("rebuild") => rebuild(start.settings).await,
                _ => serve(start.settings, start.stopper, start.shutdown).await,
            }
        },
    );
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("holdfast-coordinator: {error:#}");
            exit_of(&error).into()
        }
    }
}
