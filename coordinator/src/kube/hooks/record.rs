//! A post-hook that has to run, as the catalog keeps it: everything that is needed to run it, whatever has become
//! of its policy and of the coordinator that sent the pre-hook.

use crate::policy::hooks::Step;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An unfinished post-hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// The run.
    pub job: String,
    /// Its volume.
    pub volume: String,
    /// The hook's name.
    pub hook: String,
    /// Its pod's namespace.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// The pod's uid: another pod under this name was never frozen.
    pub uid: String,
    /// The pod's address.
    pub ip: String,
    /// The container of the post-hook.
    pub container: String,
    /// The post-hook.
    pub post: Step,
    /// The random word of the run in the container; `None`: there is no watchdog.
    pub token: Option<String>,
    /// When the watchdog runs the post-hook, counted from the pre-hook.
    pub unfreeze_after: Duration,
    /// Of a container in which no directory can be written: the watchdog.
    #[serde(default)]
    pub watch: String,
    /// And the pre-hook.
    #[serde(default)]
    pub run: String,
}

impl Unfinished {
    /// What is locked for it: two runs never freeze one pod at the same time.
    pub fn keys(&self) -> [String; 2] {
        [volume_key(&self.volume), pod_key(&self.uid)]
    }
}

/// The lock of a volume's hooks.
pub fn volume_key(volume: &str) -> String {
    format!("volume {volume}")
}

/// The lock of a pod's.
pub fn pod_key(uid: &str) -> String {
    format!("pod {uid}")
}
