//! Prometheus families of one process, with labels whose values are bounded.
//!
//! A family is asked for by name; asking again gives the same one. A label takes its values from a
//! closed set of `&'static str`, or goes through a [`LabelCap`], which gives `other` to every value
//! after the first so many: what tenants choose cannot grow the memory of the process or its scraper.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

/// Buckets for durations in seconds: 1 ms to 300 s.
pub const SECONDS: &[f64] = &[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 60.0, 300.0];

/// The families of a process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    families: Arc<Mutex<BTreeMap<String, Box<dyn Any + Send>>>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.families().keys()).finish()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// No families yet.
    pub fn new() -> Self {
        Self {
            registry: Registry::new(),
            families: Arc::default(),
        }
    }

    /// A count that only grows.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.family(name, || IntCounter::with_opts(Opts::new(name, help)))
    }

    /// Counts that only grow, by labels.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.family(name, || IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// A whole number that goes both ways.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.family(name, || IntGauge::with_opts(Opts::new(name, help)))
    }

    /// Whole numbers that go both ways, by labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.family(name, || IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// A number that goes both ways.
    pub fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.family(name, || Gauge::with_opts(Opts::new(name, help)))
    }

    /// Numbers that go both ways, by labels.
    pub fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.family(name, || GaugeVec::new(Opts::new(name, help), labels))
    }

    /// A distribution; buckets ascending.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.family(name, || {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
        })
    }

    /// Distributions by labels; buckets ascending.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> HistogramVec {
        self.family(name, || {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            HistogramVec::new(options, labels)
        })
    }

    /// Prometheus text format.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    /// # Panics
    /// Where the name breaks Prometheus's rules or is used for two kinds: names are constants of the
    /// program, so the first test that touches the family finds it.
    fn family<C>(&self, name: &str, make: impl FnOnce() -> prometheus::Result<C>) -> C
    where
        C: Collector + Clone + Send + 'static,
    {
        let mut families = self.families();
        if let Some(known) = families.get(name) {
            return match known.downcast_ref::<C>() {
                Some(family) => family.clone(),
                None => panic!("metric {name} is of another kind"),
            };
        }
        let family = match make() {
            Ok(family) => family,
            Err(error) => panic!("metric {name}: {error}"),
        };
        if let Err(error) = self.registry.register(Box::new(family.clone())) {
            panic!("metric {name}: {error}");
        }
        families.insert(name.to_owned(), Box::new(family.clone()));
        family
    }

    fn families(&self) -> MutexGuard<'_, BTreeMap<String, Box<dyn Any + Send>>> {
        self.families
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }
}

/// Lets the first so many sets of label values pass, and gives `other` to the rest.
#[derive(Debug)]
pub struct LabelCap {
    cap: usize,
    seen: Mutex<HashSet<Vec<String>>>,
}

impl LabelCap {
    /// Lets `cap` sets of values pass.
    pub fn new(cap: usize) -> Self {
        Self {
            cap,
            seen: Mutex::default(),
        }
    }

    /// The values to use for these, cut to 253 bytes each.
    pub fn values(&self, values: &[&str]) -> Vec<String> {
        let cut = |value: &&str| {
            let mut end = value.len().min(253);
            while !value.is_char_boundary(end) {
                end -= 1;
            }
            value[..end].to_owned()
        };
        let wanted: Vec<String> = values.iter().map(cut).collect();
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        if seen.contains(&wanted) {
            return wanted;
        }
        if seen.len() < self.cap {
            seen.insert(wanted.clone());
            return wanted;
        }
        vec!["other".to_owned(); values.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_made_once_and_printed() {
        let metrics = Metrics::new();
        for _ in 0..2 {
            metrics
                .counters("holdfast_store_requests_total", "Requests.", &["operation"])
                .with_label_values(&["put"])
                .inc();
        }
        let text = metrics.encode().unwrap();
        assert!(text.contains("holdfast_store_requests_total{operation=\"put\"} 2"));
    }

    #[test]
    fn labels_are_capped() {
        let cap = LabelCap::new(2);
        assert_eq!(cap.values(&["a", "x"]), ["a", "x"]);
        assert_eq!(cap.values(&["b", "y"]), ["b", "y"]);
        assert_eq!(cap.values(&["c", "z"]), ["other", "other"]);
        assert_eq!(cap.values(&["a", "x"]), ["a", "x"]);
        assert_eq!(cap.values(&["a", "x"])[0].len(), 1);
        assert!(LabelCap::new(1).values(&[&"ä".repeat(200)])[0].len() <= 253);
    }
}
