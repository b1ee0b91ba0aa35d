//! Which rule of continuous protection holds for a volume: what its policy says, which may be that there is none,
//! else the first of the settings that names it.

use crate::schedule::continuous::ContinuousRule;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The rules. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    configured: Arc<Vec<ContinuousRule>>,
    of_policies: Arc<Mutex<OfPolicies>>,
}

/// The rule of each volume that is a policy's; `None`: that has no bound of exposure.
type OfPolicies = HashMap<String, Option<ContinuousRule>>;

impl Rules {
    /// Those of the settings.
    pub fn new(configured: Vec<ContinuousRule>) -> Self {
        Self {
            configured: configured.into(),
            of_policies: Arc::default(),
        }
    }

    /// Those of policies, by volume, in place of those before. A volume with `None` has no rule.
    pub fn set_of_policies(&self, rules: OfPolicies) {
        *self.of_policies() = rules;
    }

    /// The rule that holds for a volume.
    pub fn of(&self, volume: &str) -> Option<ContinuousRule> {
        if let Some(rule) = self.of_policies().get(volume) {
            return rule.clone();
        }
        let mut configured = self.configured.iter();
        configured
            .find(|rule| rule.volumes.matches(volume))
            .cloned()
    }

    fn of_policies(&self) -> MutexGuard<'_, OfPolicies> {
        // It is replaced as a whole.
        self.of_policies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_policys_volume_goes_by_its_policy_alone() {
        let rule = |age| ContinuousRule::new("*".parse().unwrap(), Duration::from_secs(age));
        let rules = Rules::new(vec![rule(60)]);
        let bound = rule(5);
        let of_policies = [("a".to_owned(), Some(bound)), ("b".to_owned(), None)];
        rules.set_of_policies(of_policies.into());
        let age = |volume| rules.of(volume).map(|rule| rule.max_age.as_secs());
        assert_eq!((age("a"), age("b"), age("c")), (Some(5), None, Some(60)));
        rules.set_of_policies(HashMap::new());
        assert_eq!(age("b"), Some(60));
    }
}
