//! `holdfast-agent`: settings, then `run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast_agent::program::main()
}
