//! How far served volumes are ahead of their newest snapshots, as agents say.

use super::VOLUME;
use crate::Coordinator;
use crate::schedule::{JOURNAL_WORDS, LABELLED_VOLUMES, TRUSTED};
use holdfast_runtime::metrics::{GaugeTable, LabelCap, Metrics, volume_labels};
use std::collections::{BTreeMap, HashSet};

/// Families of exposure.
pub(super) struct Exposure {
    seconds: GaugeTable,
    bytes: GaugeTable,
    journal: GaugeTable,
    cap: LabelCap,
}

/// Volumes of the same labels: the oldest change, the sum of bytes, and how many have which journal.
#[derive(Default)]
struct Sum {
    exposed: Option<(u64, u64)>,
    journals: [u32; JOURNAL_WORDS.len()],
}

impl Exposure {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            seconds: metrics.table(
                "holdfast_volume_exposed_seconds",
                "Age of the oldest change of a served volume that is in no snapshot, as a trusted journal knows.",
                &VOLUME,
            ),
            bytes: metrics.table(
                "holdfast_volume_exposed_bytes",
                "Bytes of a served volume that changed since its newest snapshot, about, as a trusted journal knows.",
                &VOLUME,
            ),
            journal: metrics.table(
                "holdfast_volume_journal",
                "Served volumes by what their journal is worth: trusted, seeding, walk or off.",
                &["namespace", "persistentvolumeclaim", "mode"],
            ),
            cap: LabelCap::new(LABELLED_VOLUMES),
        }
    }

    /// What is not served any more, or not watched, has no number.
    pub(super) fn update(&self, coordinator: &Coordinator) {
        let served = coordinator.hub().served(coordinator.clock().elapsed());
        let labels = |facts: &holdfast_proto::v1::VolumeFacts| {
            volume_labels(&facts.namespace, &facts.persistentvolumeclaim, &facts.name)
                .map(str::to_owned)
        };
        let there: HashSet<[String; 2]> = served.iter().map(|s| labels(&s.facts)).collect();
        self.cap.keep(|values| {
            <[String; 2]>::try_from(values.to_vec()).is_ok_and(|values| there.contains(&values))
        });
        let mut sums: BTreeMap<Vec<String>, Sum> = BTreeMap::new();
        for served in served {
            let Some((state, _)) = served.state else {
                continue;
            };
            let [namespace, claim] = labels(&served.facts);
            let labels = self.cap.values(&[&namespace, &claim]);
            let sum = sums.entry(labels).or_default();
            if state.journal == TRUSTED {
                let (age, bytes) = sum.exposed.unwrap_or_default();
                let bytes = bytes.saturating_add(state.exposed_bytes);
                sum.exposed = Some((age.max(state.exposed_ns), bytes));
            }
            let word = JOURNAL_WORDS.iter().position(|word| *word == state.journal);
            sum.journals[word.unwrap_or(JOURNAL_WORDS.len() - 1)] += 1;
        }
        let exposed = sums
            .iter()
            .filter_map(|(labels, sum)| Some(([&labels[0], &labels[1]], sum.exposed?)));
        self.seconds.set(
            exposed
                .clone()
                .map(|(labels, (age, _))| (labels, age as f64 / 1e9)),
        );
        self.bytes
            .set(exposed.map(|(labels, (_, bytes))| (labels, bytes as f64)));
        self.journal.set(sums.iter().flat_map(|(labels, sum)| {
            let words = JOURNAL_WORDS.iter().zip(sum.journals);
            words.map(move |(word, count)| ([&labels[0][..], &labels[1], word], f64::from(count)))
        }));
    }
}
