//! Between runs, on a thread of its own at a low priority: reads again what is due of each volume.

use crate::cancel::Cancel;
use crate::journal::Journals;
use crate::metrics::AgentMetrics;
use crate::priority::Priority;
use crate::progress::Progress;
use crate::rolling::{PassOptions, Rolling};
use crate::settings::ServeSettings;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(500);

/// Works until `cancel`. A volume that cannot be read now is read later.
pub(super) fn start(
    rolling: Rolling,
    journals: Option<Journals>,
    settings: &ServeSettings,
    metrics: AgentMetrics,
    cancel: Cancel,
) {
    let backup = settings.backup.clone();
    let work = move || {
        if let Err(errno) = Priority::Low.apply() {
            tracing::debug!(%errno, "could not lower a thread's priority");
        }
        let mut next = Instant::now() + rolling.every();
        while !cancel.is_cancelled() {
            if Instant::now() < next {
                sleep(LOOK.min(rolling.every()));
                continue;
            }
            next = Instant::now() + rolling.every();
            for volume in rolling.volumes() {
                let options = PassOptions {
                    boot_id: backup.boot_id.clone(),
                    node: backup.node.clone(),
                    rate: backup.read_rate.clone(),
                    now_ns: backup.clock.now_ns(),
                    most: None,
                    journals: journals.clone(),
                    progress: Progress::new(),
                    cancel: cancel.clone(),
                };
                match rolling.pass(&volume, &options) {
                    Ok(findings) => {
                        tracing::debug!(
                            volume,
                            files = findings.files,
                            bytes = findings.bytes,
                            "read again"
                        );
                        metrics.read_again(&findings);
                    }
                    Err(_) if cancel.is_cancelled() => return,
                    Err(error) => tracing::warn!(volume, %error, "not read again, later"),
                }
            }
        }
    };
    let thread = thread::Builder::new().name("reread".to_owned()).spawn(work);
    if let Err(error) = thread {
        tracing::error!(%error, "files are not read again");
    }
}
