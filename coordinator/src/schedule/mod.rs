//! Work for agents: who is connected, what was asked of them, how it goes. In memory only; what must
//! survive a restart is a snapshot, never a job.

mod hub;

pub use hub::{AGENT_GRACE, Connection, Hub, RETURN_GRACE, What};
