//! What an agent says of itself: its clock and kernel, where volumes and changes come from, what it has taken away
//! from itself, and what keeps it from its work.

use crate::journal;
use crate::settings::ServeSettings;
use crate::sys;
use crate::volumes::Troubles;
use holdfast_proto::v1 as proto;

/// As it is now.
pub fn now(settings: &ServeSettings, troubles: &Troubles) -> proto::AgentCondition {
    let (journal, journal_detail) = journal::available(settings.journal);
    let limits = journal::kernel_limits().into_iter();
    proto::AgentCondition {
        journal: journal.to_owned(),
        journal_detail,
        landlock: settings.confined.abi,
        landlock_detail: settings.confined.detail.clone(),
        limits: limits
            .map(|(name, value)| proto::KernelLimit {
                name: name.to_owned(),
                value,
            })
            .collect(),
        troubles: troubles
            .iter()
            .map(|(reason, detail)| proto::Trouble {
                reason: (*reason).to_owned(),
                detail: detail.clone(),
            })
            .collect(),
        now_ns: sys::realtime_ns(),
        kernel: kernel_release(),
        kubelet_pods: settings
            .volumes
            .kubelet_pods
            .as_ref()
            .map(|pods| pods.display().to_string())
            .unwrap_or_default(),
    }
}

/// Empty where it cannot be read.
fn kernel_release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}
