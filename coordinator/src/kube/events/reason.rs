//! Why an event is told: a closed list of words that stay as they are, since people and alerts go by them.

/// Whether something is as it should be.
const NORMAL: &str = "Normal";
/// Or not.
const WARNING: &str = "Warning";

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $kind:ident,)*) => {
        /// Why an event is told.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name),* }

        impl Reason {
            /// The stable word for it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }

            /// `Normal` or `Warning`.
            pub fn kind(self) -> &'static str {
                match self { $(Self::$name => $kind),* }
            }
        }
    };
}

reasons! {
    /// A run of a volume was started.
    BackupStarted NORMAL,
    /// It has made a snapshot.
    BackupCompleted NORMAL,
    /// It has made a snapshot, but some files could not be read.
    BackupPartial WARNING,
    /// It has made none.
    BackupFailed WARNING,
    /// It was stopped.
    BackupCancelled NORMAL,
    /// It has failed too often, and is left until it is due again.
    BackupGivenUp WARNING,
    /// It takes longer than its policy allows, and is stopped.
    DeadlineExceeded WARNING,
    /// It could not be started in time.
    MissedStartingDeadline WARNING,
    /// Snapshots were to go with their Backup, and must stay.
    SnapshotsKept WARNING,
    /// Snapshots were to go with their Backup, and cannot be forgotten now.
    RepositoryUnreachable WARNING,
    /// A restore has chosen its snapshot and begins.
    RestoreStarted NORMAL,
    /// All of it is there.
    RestoreCompleted NORMAL,
    /// Some paths are not.
    RestorePartial WARNING,
    /// It did not come to its end.
    RestoreFailed WARNING,
    /// It did not, and the claim is as it was before.
    RestoreRolledBack WARNING,
    /// It was stopped.
    RestoreCancelled NORMAL,
    /// A policy is not understood and protects nothing.
    PolicyInvalid WARNING,
    /// A pre-hook failed.
    HookFailed WARNING,
    /// A hook is not understood.
    HookInvalid WARNING,
    /// A pre-hook was not run: the image has no shell for its watchdog.
    HookNeedsShell WARNING,
    /// A pre-hook was not run: its watchdog could not be started.
    HookNoWatchdog WARNING,
    /// A hook was not run: the coordinator may not run commands in containers.
    HookNotAllowed WARNING,
    /// A pre-hook was not run: its post-hook could not be remembered.
    HookNotRemembered WARNING,
    /// A hook was not run: its pod is not ready.
    HookSkipped WARNING,
    /// It is not known whether there are hooks.
    HooksUnknown WARNING,
    /// A post-hook was run before the run had ended.
    HookEndedEarly WARNING,
    /// A post-hook failed, and is tried again.
    HookPostFailed WARNING,
    /// A post-hook could not be run yet.
    HookPostPending WARNING,
    /// A post-hook had been run by the watchdog in the container.
    HookWatchdogFired WARNING,
    /// A post-hook was not run: its pod is gone.
    HookPodGone WARNING,
    /// A post-hook was run at last.
    HookPostDone NORMAL,
    /// A post-hook has failed too often.
    HookGivenUp WARNING,
}
