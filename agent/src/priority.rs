//! Threads that read volumes step back behind the tenants' own work.

use crate::sys;
use rustix::io::Errno;
use rustix::process::setpriority_process;

/// How far a thread steps back. CPU and disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// Not at all.
    Normal,
    /// Nice 10, batch scheduling, the lowest level of best-effort IO.
    #[default]
    Low,
    /// The same, and IO only when nobody else wants any: may never come to an end.
    Idle,
}

impl Priority {
    /// Gives the calling thread this priority. What the system refuses stays as it was; the first
    /// refusal is returned, for a log line.
    pub fn apply(self) -> Result<(), Errno> {
        let (class, level) = match self {
            Self::Normal => return Ok(()),
            Self::Low => (2, 7),
            Self::Idle => (3, 0),
        };
        // Under Linux the niceness of "this process" is the calling thread's own.
        let nice = setpriority_process(None, 10);
        let batch = sys::schedule_as_batch();
        let io = sys::set_io_priority(class, level);
        nice.and(batch).and(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpriority_process;

    #[test]
    fn only_the_calling_thread_steps_back() {
        let before = getpriority_process(None).unwrap();
        let inside = std::thread::spawn(|| {
            Priority::Low.apply().unwrap();
            getpriority_process(None).unwrap()
        });
        assert_eq!(inside.join().unwrap(), 10);
        assert_eq!(getpriority_process(None).unwrap(), before);
        assert!(
            std::thread::spawn(|| Priority::Idle.apply())
                .join()
                .unwrap()
                .is_ok()
        );
    }
}
