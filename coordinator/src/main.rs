//! `holdfast-coordinator`: settings, then `serve` (the default) or `rebuild`.

use anyhow::Context;
use holdfast_coordinator::server::{exit_of, rebuild, serve};
use holdfast_coordinator::settings::ServerSettings;
use holdfast_runtime::settings::Settings;
use holdfast_runtime::{exit::Exit, logging, shutdown, tls};
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: holdfast-coordinator [serve | rebuild] [--config FILE] [--insecure-listen] \
                     [--take-over] [--print-settings] [--version]";
const DEFAULT_FILE: &str = "/etc/holdfast/coordinator.yaml";

fn main() -> ExitCode {
    match start() {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("holdfast-coordinator: {error:#}");
            exit_of(&error).into()
        }
    }
}

fn start() -> anyhow::Result<Exit> {
    let mut file = Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists());
    let (mut print, mut rebuilding, mut insecure, mut take_over) = (false, false, false, false);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("serve") => rebuilding = false,
            Some("rebuild") => rebuilding = true,
            Some("--config") => file = Some(arguments.next().context(USAGE)?.into()),
            Some("--insecure-listen") => insecure = true,
            Some("--take-over") => take_over = true,
            Some("--print-settings") => print = true,
            Some("--version") => {
                println!("holdfast-coordinator {}", env!("CARGO_PKG_VERSION"));
                return Ok(Exit::Done);
            }
            Some("--help" | "-h") => {
                println!("{USAGE}");
                return Ok(Exit::Done);
            }
            _ => {
                eprintln!("{USAGE}");
                return Ok(Exit::Usage);
            }
        }
    }
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut settings = Settings::read(file.as_deref(), environment);
    let mut server = ServerSettings::read(&mut settings, insecure);
    server.take_over |= take_over;
    let effective = match settings.finish() {
        Ok(effective) => effective,
        Err(errors) => {
            eprintln!("holdfast-coordinator: {errors}");
            return Ok(Exit::Usage);
        }
    };
    if print {
        println!("{effective}");
        return Ok(Exit::Done);
    }
    logging::start(&server.log)?;
    tls::install_provider();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), settings = %effective, "starting");
    let (stopper, shutdown) = shutdown::channel();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let exit = match rebuilding {
        true => runtime.block_on(rebuild(server))?,
        false => runtime.block_on(serve(server, stopper, shutdown))?,
    };
    // What hangs in a store must not hold up the end.
    runtime.shutdown_background();
    Ok(exit)
}
