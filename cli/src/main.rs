//! `holdfast`: what an operator types. Wiring only. Called `holdfast-agent` or `holdfast-coordinator`, it is that program:
//! an image needs their common parts once.

mod args;
mod cluster;
mod commands;
mod connect;
mod content;
mod create;
mod failure;
mod gaps;
mod output;
mod places;
mod precedence;
mod progress;
mod reach;
mod selector;
mod signals;
mod suspicion;
mod tar;

use clap::error::ErrorKind;
use failure::{Exit, Failure};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let called = words.first().map(Path::new).and_then(Path::file_name);
    match called.and_then(|name| name.to_str()) {
        Some("holdfast-agent") => return holdfast_agent::program::main(),
        Some("holdfast-coordinator") => return holdfast_coordinator::program::main(),
        _ => {}
    }
    let program = precedence::program(&words);
    let typed = match precedence::parse(words) {
        Ok(typed) => typed,
        Err(error) => {
            let _ = error.print();
            let asked = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            return if asked { Exit::Done } else { Exit::Usage }.into();
        }
    };
    holdfast_runtime::tls::install_provider();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("holdfast: cannot start: {error}");
            return Exit::Failed.into();
        }
    };
    let end = typed.and_then(|typed| runtime.block_on(commands::run(typed)));
    // A blocking read that hangs (a dead NFS server) must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match end {
        Ok(()) => Exit::Done.into(),
        Err(failure) if is_closed_pipe(&failure) => Exit::Done.into(),
        Err(failure) => {
            if !failure.message.is_empty() {
                // Commands are named as this one was called.
                let message = failure
                    .message
                    .replace("`holdfast ", &format!("`{program} "));
                eprintln!("holdfast: {message}");
            }
            failure.exit.into()
        }
    }
}

/// `holdfast ls … | head` is no failure.
fn is_closed_pipe(failure: &Failure) -> bool {
    failure.exit == Exit::Failed && failure.message.contains("Broken pipe")
}
