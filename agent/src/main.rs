//! `holdfast-agent`: settings, then `run`.

use anyhow::Context;
use holdfast_agent::settings::AgentSettings;
use holdfast_runtime::settings::Settings;
use holdfast_runtime::{exit::Exit, logging, shutdown, tls};
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: holdfast-agent [--config FILE] [--print-settings] [--version]";
const DEFAULT_FILE: &str = "/etc/holdfast/agent.yaml";

fn main() -> ExitCode {
    match start() {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("holdfast-agent: {error:#}");
            Exit::Failed.into()
        }
    }
}

fn start() -> anyhow::Result<Exit> {
    let mut file = Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists());
    let mut print = false;
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--config") => file = Some(arguments.next().context(USAGE)?.into()),
            Some("--print-settings") => print = true,
            Some("--version") => {
                println!("holdfast-agent {}", env!("CARGO_PKG_VERSION"));
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
    let agent = AgentSettings::read(&mut settings);
    let effective = match settings.finish() {
        Ok(effective) => effective,
        Err(errors) => {
            eprintln!("holdfast-agent: {errors}");
            return Ok(Exit::Usage);
        }
    };
    if print {
        println!("{effective}");
        return Ok(Exit::Done);
    }
    logging::start(&agent.log)?;
    tls::install_provider();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), settings = %effective, "starting");
    let (stopper, shutdown) = shutdown::channel();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(holdfast_agent::run(agent, stopper, shutdown))?;
    // Threads that hang in a dead filesystem must not hold up the end.
    runtime.shutdown_background();
    Ok(Exit::Done)
}
