//! Does nothing until it is asked to stop: what a pod runs whose only purpose is that a volume is mounted for it.

use holdfast_runtime::exit::Exit;
use holdfast_runtime::shutdown;
use std::io;

/// The word on the command line.
pub const WORD: &str = "hold";

/// Waits for SIGTERM or SIGINT. Needs no settings, no files and no rights.
pub fn hold() -> io::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (stopper, stopping) = shutdown::channel();
        tokio::select! {
            waited = stopper.on_signals() => waited?,
            _ = stopping.requested() => {}
        }
        Ok(Exit::Done)
    })
}
