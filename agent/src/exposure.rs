//! How far volumes are ahead of their newest snapshots, as their journals say: for the coordinator and for
//! metrics. Ages, so that nobody's clock but the one that counts them matters.

use crate::journal::{Journals, Standing};
use holdfast_format::volume::VolumeFacts;
use holdfast_proto::v1::VolumeState;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Two ages of one moment are told apart by no more than this.
const SAME: Duration = Duration::from_secs(1);

/// The words of a state's journal.
pub const MODES: [&str; 4] = ["trusted", "seeding", "walk", "off"];

/// Volumes of this node that may be backed up, and their journals. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Exposures {
    journals: Option<Journals>,
    volumes: Arc<Mutex<Vec<VolumeFacts>>>,
}

impl Exposures {
    /// No volumes yet.
    pub fn new(journals: Option<Journals>) -> Self {
        Self {
            journals,
            volumes: Arc::default(),
        }
    }

    /// The volumes that may be backed up now.
    pub fn set_volumes(&self, volumes: Vec<VolumeFacts>) {
        *self.volumes() = volumes;
    }

    /// The state of each of them now.
    pub fn states(&self) -> Vec<(VolumeFacts, VolumeState)> {
        let standing = self.journals.as_ref().map(Journals::standing);
        let standing: HashMap<String, Standing> = standing.into_iter().flatten().collect();
        let volumes = self.volumes().clone();
        volumes
            .into_iter()
            .map(|facts| {
                let name = facts.name.as_str();
                let state = match (standing.get(name), &self.journals) {
                    (Some(standing), _) => state_of(name, standing),
                    // Its policy does not want one.
                    (None, Some(journals)) if journals.has_let_go_of(name) => {
                        state(name, "off", "")
                    }
                    // Its first run starts one.
                    (None, Some(_)) => state(name, "walk", "FirstRun"),
                    (None, None) => state(name, "off", ""),
                };
                (facts, state)
            })
            .collect()
    }

    fn volumes(&self) -> MutexGuard<'_, Vec<VolumeFacts>> {
        // Replaced as a whole.
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn state(volume: &str, journal: &str, reason: &str) -> VolumeState {
    VolumeState {
        volume: volume.to_owned(),
        journal: journal.to_owned(),
        reason: reason.to_owned(),
        ..VolumeState::default()
    }
}

fn state_of(volume: &str, standing: &Standing) -> VolumeState {
    let age = |age: Option<Duration>| age.map_or(0, |age| nanos(age).max(1));
    VolumeState {
        exposed_ns: age(standing.exposed),
        exposed_files: match standing.exposed {
            Some(_) => standing.names,
            None => 0,
        },
        exposed_bytes: match standing.exposed {
            Some(_) => standing.bytes,
            None => 0,
        },
        quiet_ns: age(standing.quiet),
        watched_directories: standing.watched,
        ..state(volume, standing.mode, standing.reason)
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What the coordinator was told last.
#[derive(Debug, Default)]
pub struct Told(HashMap<String, (VolumeState, Instant)>);

impl Told {
    /// Those of these states that say more than that time has passed; from now on they are told.
    pub fn news(&mut self, states: Vec<VolumeState>, now: Instant) -> Vec<VolumeState> {
        self.0
            .retain(|volume, _| states.iter().any(|state| state.volume == *volume));
        let mut news = Vec::new();
        for state in states {
            let known = self.0.get(&state.volume);
            if known.is_some_and(|(told, at)| is_same(told, &state, now.duration_since(*at))) {
                continue;
            }
            self.0.insert(state.volume.clone(), (state.clone(), now));
            news.push(state);
        }
        news
    }
}

/// Whether `told`, so long ago, says the same as `now`.
fn is_same(told: &VolumeState, now: &VolumeState, ago: Duration) -> bool {
    let same_age = |told: u64, now: u64| match (told, now) {
        (0, 0) => true,
        (0, _) | (_, 0) => false,
        _ => told.saturating_add(nanos(ago)).abs_diff(now) < nanos(SAME),
    };
    let ageless = |state: &VolumeState| VolumeState {
        exposed_ns: 0,
        quiet_ns: 0,
        ..state.clone()
    };
    ageless(told) == ageless(now)
        && same_age(told.exposed_ns, now.exposed_ns)
        && same_age(told.quiet_ns, now.quiet_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(exposed: Option<u64>, quiet: Option<u64>) -> Standing {
        Standing {
            mode: "trusted",
            exposed: exposed.map(Duration::from_secs),
            quiet: quiet.map(Duration::from_secs),
            names: 7,
            watched: 3,
            ..Standing::default()
        }
    }

    #[test]
    fn what_only_grew_older_is_not_told_again() {
        let mut told = Told::default();
        let start = Instant::now();
        let mut news = |after, exposed, quiet| {
            let states = vec![state_of("web", &standing(exposed, quiet))];
            told.news(states, start + Duration::from_secs(after)).len()
        };
        assert_eq!(news(0, Some(10), Some(2)), 1);
        assert_eq!(news(5, Some(15), Some(7)), 0);
        // A change; a run that was accepted; the next change.
        assert_eq!(news(8, Some(18), Some(1)), 1);
        assert_eq!(news(9, None, Some(2)), 1);
        assert_eq!(news(10, None, Some(3)), 0);
        assert_eq!(news(11, Some(0), Some(0)), 1);
    }

    #[test]
    fn a_volume_that_went_and_came_is_told_again() {
        let mut told = Told::default();
        let now = Instant::now();
        let web = || vec![state_of("web", &standing(None, None))];
        assert_eq!(told.news(web(), now).len(), 1);
        assert_eq!(told.news(Vec::new(), now).len(), 0);
        assert_eq!(told.news(web(), now).len(), 1);
    }

    #[test]
    fn volumes_without_a_journal_say_so() {
        let exposures = Exposures::new(None);
        exposures.set_volumes(vec![VolumeFacts::named("web".parse().unwrap())]);
        let states = exposures.states();
        assert_eq!(states[0].1, state("web", "off", ""));
        assert!(MODES.contains(&states[0].1.journal.as_str()));
    }

    #[test]
    fn a_volume_whose_policy_wants_no_journal_says_so() {
        let journals = Journals::start(crate::settings::JournalSource::Inotify).unwrap();
        let exposures = Exposures::new(Some(journals.clone()));
        exposures.set_volumes(vec![VolumeFacts::named("web".parse().unwrap())]);
        assert_eq!(exposures.states()[0].1, state("web", "walk", "FirstRun"));
        journals.let_go_of("web");
        assert_eq!(exposures.states()[0].1, state("web", "off", ""));
        // Another volume under the name is not meant.
        journals.retain(&std::collections::HashSet::new());
        assert_eq!(exposures.states()[0].1, state("web", "walk", "FirstRun"));
    }

    #[test]
    fn nothing_exposed_is_no_age_and_no_files() {
        let state = state_of("web", &standing(None, Some(0)));
        assert_eq!((state.exposed_ns, state.exposed_files), (0, 0));
        assert_eq!((state.quiet_ns, state.watched_directories), (1, 3));
    }
}
