//! What one agent said last of its volumes: how far each is ahead of its newest snapshot. Ages go on counting
//! here from the moment they arrived, by a clock that never steps, so that clocks that differ do not matter.

use holdfast_format::signals::is_walk_reason;
use holdfast_proto::v1::VolumeState;
use std::collections::HashMap;
use std::time::Duration;

/// The words of `VolumeState.journal`. One that is not known stands for no journal.
pub const JOURNAL_WORDS: [&str; 4] = [TRUSTED, "seeding", "walk", "off"];
/// The journal has seen every change since the newest snapshot.
pub const TRUSTED: &str = "trusted";

/// States by the volume's name.
#[derive(Default)]
pub struct States(HashMap<String, Known>);

struct Known {
    state: VolumeState,
    at: Duration,
}

impl States {
    /// Takes the states of listed volumes in, at this moment of the coordinator's clock.
    pub fn take(
        &mut self,
        states: Vec<VolumeState>,
        is_listed: impl Fn(&str) -> bool,
        now: Duration,
    ) {
        for mut state in states {
            if !is_listed(&state.volume) {
                continue;
            }
            if !JOURNAL_WORDS.contains(&state.journal.as_str()) {
                state.journal = "off".into();
            }
            if !is_walk_reason(&state.reason) {
                state.reason.clear();
            }
            let name = state.volume.clone();
            self.0.insert(name, Known { state, at: now });
        }
    }

    /// Forgets volumes that are not listed any more.
    pub fn keep(&mut self, is_listed: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| is_listed(name));
    }

    /// A volume's state with its ages as they are now, and when it arrived.
    pub fn at(&self, volume: &str, now: Duration) -> Option<(VolumeState, Duration)> {
        let known = self.0.get(volume)?;
        let since = now.saturating_sub(known.at);
        let since = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let mut state = known.state.clone();
        if state.exposed_ns > 0 {
            state.exposed_ns = state.exposed_ns.saturating_add(since);
        }
        if state.exposed_ns > 0 || state.quiet_ns > 0 {
            state.quiet_ns = state.quiet_ns.saturating_add(since);
        }
        Some((state, known.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn state(volume: &str, exposed_ns: u64) -> VolumeState {
        VolumeState {
            volume: volume.into(),
            journal: TRUSTED.into(),
            exposed_ns,
            ..VolumeState::default()
        }
    }

    #[test]
    fn ages_go_on_counting_and_nothing_stays_nothing() {
        let mut states = States::default();
        let all = |_: &str| true;
        let at = Duration::from_secs(100);
        states.take(vec![state("web", 3 * SECOND), state("db", 0)], all, at);
        let later = Duration::from_secs(107);
        let (web, arrived) = states.at("web", later).unwrap();
        assert_eq!((web.exposed_ns, web.quiet_ns), (10 * SECOND, 7 * SECOND));
        assert_eq!(arrived, at);
        assert_eq!(states.at("db", later).unwrap().0, state("db", 0));
        assert_eq!(states.at("other", later), None);
        // An agent's largest number stays it.
        states.take(vec![state("web", u64::MAX)], all, at);
        assert_eq!(states.at("web", later).unwrap().0.exposed_ns, u64::MAX);
    }

    #[test]
    fn only_listed_volumes_and_known_words_are_kept() {
        let mut states = States::default();
        let mut strange = state("web", 1);
        strange.journal = "sometimes".into();
        strange.reason = "two words".into();
        states.take(
            vec![strange, state("other", 1)],
            |name| name == "web",
            Duration::ZERO,
        );
        let (web, _) = states.at("web", Duration::ZERO).unwrap();
        assert_eq!((web.journal.as_str(), web.reason.as_str()), ("off", ""));
        assert_eq!(states.at("other", Duration::ZERO), None);
        states.keep(|_| false);
        assert_eq!(states.at("web", Duration::ZERO), None);
    }
}
