//! Room for watches: the kernel's limits are raised while they are needed, and as they were afterwards.

use std::fs;
use std::io;

/// Marks of fanotify, watches of inotify.
const LIMITS: [&str; 2] = [
    "/proc/sys/fs/fanotify/max_user_marks",
    "/proc/sys/fs/inotify/max_user_watches",
];

/// Ends with the limits as they were.
pub struct Watches(Vec<(&'static str, String)>);

impl Watches {
    /// An agent, which takes three quarters of what there is, can watch so many directories. An error where
    /// the limits are lower and cannot be raised.
    pub fn of(directories: usize) -> io::Result<Self> {
        let needed = directories * 2;
        let mut raised = Self(Vec::new());
        for path in LIMITS {
            let before = fs::read_to_string(path)?.trim().to_owned();
            if before.parse().is_ok_and(|limit: usize| limit >= needed) {
                continue;
            }
            fs::write(path, needed.to_string()).map_err(|error| {
                io::Error::other(format!("{path} is {before}, {needed} are needed: {error}"))
            })?;
            raised.0.push((path, before));
        }
        Ok(raised)
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        for (path, before) in &self.0 {
            let _ = fs::write(path, before);
        }
    }
}
