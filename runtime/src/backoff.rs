//! How long to wait before the next try: grows to a ceiling, spread by jitter so that many waiters
//! do not come back at once. Pure but for the seed.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// First wait, ceiling, and growth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffPolicy {
    /// Ceiling of the first wait.
    pub initial: Duration,
    /// Ceiling of every wait.
    pub max: Duration,
    /// Growth of the ceiling per try, at least 1.
    pub factor: f64,
}

impl Default for BackoffPolicy {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(200),
            max: Duration::from_secs(30),
            factor: 2.0,
        }
    }
}

/// The waits of one operation. Each lies between half of its ceiling and its ceiling.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: BackoffPolicy,
    ceiling: Duration,
    state: u64,
}

impl Backoff {
    /// Waits with a seed of the process's own.
    pub fn new(policy: BackoffPolicy) -> Self {
        Self::seeded(policy, RandomState::new().hash_one(0_u8))
    }

    /// Waits that a test can repeat.
    pub fn seeded(policy: BackoffPolicy, seed: u64) -> Self {
        Self {
            policy,
            ceiling: policy.initial.min(policy.max),
            state: seed | 1,
        }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        // xorshift64*: spread, not secrecy.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let random = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        let fraction = random as f64 / (1_u64 << 53) as f64;
        let wait = self.ceiling.mul_f64(0.5 + fraction / 2.0);
        self.ceiling = self
            .ceiling
            .mul_f64(self.policy.factor.max(1.0))
            .min(self.policy.max);
        wait
    }

    /// Starts again from the first wait, after a success.
    pub fn reset(&mut self) {
        self.ceiling = self.policy.initial.min(self.policy.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_ceiling_and_spread() {
        let policy = BackoffPolicy {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(1),
            factor: 2.0,
        };
        for seed in 0..100 {
            let mut backoff = Backoff::seeded(policy, seed);
            for ceiling in [100, 200, 400, 800, 1000, 1000, 1000] {
                let wait = backoff.next_wait().as_millis();
                assert!((ceiling / 2..=ceiling).contains(&wait), "{wait} {ceiling}");
            }
            backoff.reset();
            assert!(backoff.next_wait() <= policy.initial);
        }
        let first = |seed| Backoff::seeded(policy, seed).next_wait();
        assert!((0..100).any(|seed| first(seed) != first(seed + 100)));
    }
}
