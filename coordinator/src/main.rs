//! `holdfast-coordinator`: settings, then `serve` (the default) or `rebuild`.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast_coordinator::program::main()
}
