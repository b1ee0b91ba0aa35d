//! Work for agents: who is connected, what was asked of them, how it goes. In memory only; what must
//! survive a restart is a snapshot, never a job.

mod brackets;
mod continuous;
mod counts;
mod hook_counts;
mod hub;
mod rules;
mod states;
mod trigger;

pub use brackets::{Gate, Held};
pub use continuous::{ContinuousRule, VolumePattern};
#[cfg(test)]
pub use counts::JobCounts;
pub use counts::LABELLED_VOLUMES;
pub use hook_counts::{HookCounts, HookEnd};
pub use hub::{AGENT_GRACE, Connection, Hub, RETURN_GRACE, What};
pub use rules::Rules;
pub use states::{JOURNAL_WORDS, TRUSTED};
pub use trigger::start as start_continuous;
