//! The machine's memory while tools are measured: a guest's kernel does not give freed pages back to its
//! host, so that the tool that runs first does not pay for all that follow.
//!
//! A page that the host has taken back costs a fault in the hypervisor when it is next written, many
//! times what a copy costs: the first restore of 4 GiB took three times as long as the second.

use std::fs;
use std::path::Path;

/// Below this order (pages, as a power of two) free memory is not reported; above the largest there is.
const NEVER: &str = "11";
const ORDER: &str = "/sys/module/page_reporting/parameters/page_reporting_order";

/// Ends with the kernel's setting as it was.
pub struct Resident {
    before: Option<String>,
}

impl Resident {
    /// Stops the reporting of free pages where the kernel has it and we may, and has every free page
    /// in the machine touched once.
    pub fn hold() -> Self {
        let Ok(before) = fs::read_to_string(ORDER) else {
            return Self { before: None };
        };
        if fs::write(ORDER, NEVER).is_err() {
            eprintln!("free memory goes back to the host: the first tool of a row pays for it");
            return Self { before: None };
        }
        touch();
        Self {
            before: Some(before),
        }
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = fs::write(Path::new(ORDER), before.trim());
        }
    }
}

/// Writes to most of what is free, so that it stays with this machine.
fn touch() {
    let free = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = free
        .lines()
        .find_map(|line| line.strip_prefix("MemFree:"))
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse::<usize>().ok())
        .unwrap_or(0);
    drop(std::hint::black_box(vec![1u8; free * 1024 / 10 * 9]));
}
