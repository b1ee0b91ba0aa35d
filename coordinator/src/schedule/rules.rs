//! Which rule of continuous protection holds for a volume: the one that a policy of the cluster gives it, else
//! the first of the settings that names it.

use crate::schedule::continuous::ContinuousRule;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The rules. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    configured: Arc<Vec<ContinuousRule>>,
    of_policies: Arc<Mutex<HashMap<String, ContinuousRule>>>,
}

impl Rules {
    /// Those of the settings.
    pub fn new(configured: Vec<ContinuousRule>) -> Self {
        Self {
            configured: configured.into(),
            of_policies: Arc::default(),
        }
    }

    /// Those of policies, by volume, in place of those before.
    pub fn set_of_policies(&self, rules: HashMap<String, ContinuousRule>) {
        *self.of_policies() = rules;
    }

    /// The rule that holds for a volume.
    pub fn of(&self, volume: &str) -> Option<ContinuousRule> {
        if let Some(rule) = self.of_policies().get(volume) {
            return Some(rule.clone());
        }
        let mut configured = self.configured.iter();
        configured
            .find(|rule| rule.volumes.matches(volume))
            .cloned()
    }

    fn of_policies(&self) -> MutexGuard<'_, HashMap<String, ContinuousRule>> {
        // It is replaced as a whole.
        self.of_policies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
