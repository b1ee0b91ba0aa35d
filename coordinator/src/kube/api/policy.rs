//! What a policy says. One type serves both kinds of policies and the policies of a file.

use super::common::{duration, quantity};
use super::hooks::HookSpec;
use super::selection::Selection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which volumes are protected, when, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.schedule) != has(self.exposure)",
    "message": "exactly one of schedule and exposure must be given",
}, {
    "rule": "!has(self.startingDeadline) || has(self.schedule)",
    "message": "startingDeadline needs a schedule",
}]))]
pub struct PolicySpec {
    /// Which volumes the policy protects. Without it: every claim in its reach.
    #[serde(default)]
    pub selection: Selection,
    /// Runs at fixed times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleSpec>,
    /// Runs when changes have been unprotected for too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure: Option<ExposureSpec>,
    // Here `retention`, `verification`, `drills` and `replication` will be, when engines serve them.
    /// When runs may start; one that is due outside waits for the next window. None: always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub windows: Vec<WindowSpec>,
    /// Of several policies of a kind that match a volume, the one with the highest priority protects it; and
    /// its runs leave the queue first.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// A run that has not ended so long after it started is cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub deadline: Option<String>,
    /// A scheduled run that could not be started for so long is left out, and the next one waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub starting_deadline: Option<String>,
    /// Claims that no pod uses. `Skip`: they are not backed up. `Mount`: when one is due, a pod that does nothing
    /// mounts it, read-only and in the claim's namespace, and goes when the run has ended. Claims without a volume
    /// and those of mode ReadWriteOncePod are never mounted.
    #[serde(default)]
    pub unmounted_claims: UnmountedClaims,
    /// Which files of a volume are backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesSpec>,
    /// How a run learns what has changed in a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change_detection: Option<ChangeDetectionSpec>,
    /// What is done before and after every run of a volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub hooks: Vec<HookSpec>,
    /// How much at once, and how fast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
    /// How many ended runs of the schedule that went well are kept as Backups, in each namespace. Usually 3.
    /// Snapshots are not meant: they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub successful_runs_history_limit: Option<i32>,
    /// And how many of the others. Usually 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub failed_runs_history_limit: Option<i32>,
    /// No runs start as long as it is true. The policy's volumes stay the policy's.
    #[serde(default)]
    pub suspend: bool,
}

/// Fixed times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleSpec {
    /// Minute, hour, day of month, month and day of week, as in crontab(5); or `@hourly`, `@daily`, `@weekly`,
    /// `@monthly`, `@yearly`.
    #[schemars(length(min = 1, max = 256))]
    pub cron: String,
    /// The time zone of `cron`, by its IANA name such as `Europe/Berlin`. A time that a change of the clock
    /// leaves out is the moment of the change; one that it repeats is the first of the two.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
    /// Runs are spread over so much time after the scheduled one, each volume always by the same part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub jitter: Option<String>,
}

/// How far a volume may be ahead of its newest snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExposureSpec {
    /// The age of the oldest unprotected change that makes a volume due; 5s or more. A volume whose changes
    /// cannot be watched is due when its newest snapshot is as old.
    #[schemars(schema_with = "duration")]
    pub max_age: String,
    /// The sum of changed bytes that makes it due earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity")]
    pub max_bytes: Option<String>,
    /// A due volume is backed up when it has not changed for so long, or at twice `maxAge`. Usually 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub quiet: Option<String>,
    /// Runs start at least so far apart. Usually 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration")]
    pub min_interval: Option<String>,
}

/// A time in which runs may start: opened by `cron`, or on `days` at `start`, for a duration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.cron) != has(self.start)",
    "message": "exactly one of cron and start must be given",
}, {
    "rule": "!has(self.days) || has(self.start)",
    "message": "days needs a start",
}]))]
pub struct WindowSpec {
    /// When it opens, as in `schedule.cron`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub cron: Option<String>,
    /// The days on which it opens. None: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub days: Vec<Day>,
    /// The time of day at which it opens, such as `22:00`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5), regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub start: Option<String>,
    /// How long it stays open, at most 7d.
    #[schemars(schema_with = "duration")]
    pub duration: String,
    /// The time zone of `cron` and `start`, by its IANA name.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// What becomes of claims that no pod uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UnmountedClaims {
    /// They are not backed up.
    #[default]
    Skip,
    /// A pod of ours mounts them for their runs.
    Mount,
}

/// Globs with the syntax of gitignore, relative to the volume's root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilesSpec {
    /// Only files that match one of these, or lie in a directory that does. None: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 1024)))]
    pub include: Vec<String>,
    /// Files and directories that are left out, whatever `include` says. `!glob` takes a later match back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 1024)))]
    pub exclude: Vec<String>,
}

/// How a run learns what has changed. Whatever is chosen, a snapshot is the same; only its cost differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeDetectionSpec {
    /// `Auto`: the kernel tells what changed while that is proven to be complete, else every file is looked at.
    /// `Walk`: every file is looked at, and read if it looks changed. `Read`: every file is read.
    #[serde(default)]
    pub mode: DetectionMode,
    /// Files that are open for writing. `Settle`: their data is flushed first, and what looks unchanged is
    /// believed. `Reread`: every run reads them. None: as the node's agent is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_files: Option<BusyFiles>,
}

/// How changes are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DetectionMode {
    /// By the journal while it is trusted, else by a walk.
    #[default]
    Auto,
    /// By a walk.
    Walk,
    /// By reading every file.
    Read,
}

/// What is believed of files that are open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BusyFiles {
    /// What looks unchanged once their data is flushed.
    Settle,
    /// Nothing: every run reads them.
    Reread,
}

/// How much at once, and how fast.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// Bytes a second that a run may read from its volume, such as `50Mi`. The node's own limit holds as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity")]
    pub read_rate: Option<String>,
    /// Bytes a second that a run may send, such as `20Mi`. The node's own limit holds as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity")]
    pub send_rate: Option<String>,
    /// Runs of this policy on one node at a time. The node's own limit holds as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_concurrent_per_node: Option<i32>,
}

/// The time zone of a schedule that names none.
pub fn utc() -> String {
    "UTC".to_owned()
}
