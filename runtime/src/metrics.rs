//! Prometheus families of one process, with labels whose values are bounded.
//!
//! A family is asked for by name; asking again gives the same one. A label takes its values from a
//! closed set of `&'static str`, or goes through a [`LabelCap`], which gives `other` to every value
//! after the first so many: what tenants choose cannot grow the memory of the process or its scraper.
//! What has to be asked for is asked when somebody scrapes ([`Metrics::on_scrape`]).

mod document;
mod table;

pub use document::check_document;
pub use table::GaugeTable;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// Buckets for durations in seconds: 1 ms to 300 s.
pub const SECONDS: &[f64] = &[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 60.0, 300.0];

/// Buckets for work that takes seconds or hours: 1 s to a day.
pub const LONG_SECONDS: &[f64] = &[
    1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0,
];

struct Family {
    made: Box<dyn Any + Send>,
    kind: &'static str,
    help: String,
    labels: Vec<String>,
}

type Refresh = dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// The families of a process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    families: Arc<Mutex<BTreeMap<String, Family>>>,
    refresh: Arc<OnceLock<Box<Refresh>>>,
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
            refresh: Arc::default(),
        }
    }

    /// What sets gauges before they are printed. The first that is given stays.
    pub fn on_scrape<F>(&self, refresh: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let _ = self.refresh.set(Box::new(move || Box::pin(refresh())));
    }

    /// Sets what is set when somebody scrapes.
    pub async fn refresh(&self) {
        if let Some(refresh) = self.refresh.get() {
            refresh().await;
        }
    }

    /// Prints a family that was made elsewhere.
    ///
    /// # Panics
    /// As every family: where the name is taken.
    pub fn adopt<C: Collector + Clone + Send + 'static>(&self, family: &C) {
        let name = match family.desc().first() {
            Some(desc) => desc.fq_name.clone(),
            None => return,
        };
        let kind = match std::any::type_name::<C>() {
            name if name.contains("Histogram") => "histogram",
            name if name.contains("Counter") => "counter",
            _ => "gauge",
        };
        let _ = self.family(&name, kind, || Ok(family.clone()));
    }

    /// Says which build this process is: `holdfast_build_info{component,version}` is 1.
    pub fn set_build(&self, component: &'static str, version: &'static str) {
        let help = "1; the component and its version are labels.";
        let family = self.gauges("holdfast_build_info", help, &["component", "version"]);
        family.with_label_values(&[component, version]).set(1);
    }

    /// A count that only grows.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.family(name, "counter", || {
            IntCounter::with_opts(Opts::new(name, help))
        })
    }

    /// Counts that only grow, by labels.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.family(name, "counter", || {
            IntCounterVec::new(Opts::new(name, help), labels)
        })
    }

    /// A whole number that goes both ways.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.family(name, "gauge", || IntGauge::with_opts(Opts::new(name, help)))
    }

    /// Whole numbers that go both ways, by labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.family(name, "gauge", || {
            IntGaugeVec::new(Opts::new(name, help), labels)
        })
    }

    /// A number that goes both ways.
    pub fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.family(name, "gauge", || Gauge::with_opts(Opts::new(name, help)))
    }

    /// Numbers that go both ways, by labels.
    pub fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.family(name, "gauge", || {
            GaugeVec::new(Opts::new(name, help), labels)
        })
    }

    /// Numbers by labels that are replaced together.
    pub fn table(&self, name: &str, help: &str, labels: &[&str]) -> GaugeTable {
        self.family(name, "gauge", || GaugeTable::new(name, help, labels))
    }

    /// A distribution; buckets ascending.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.family(name, "histogram", || {
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
        self.family(name, "histogram", || {
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
    fn family<C>(
        &self,
        name: &str,
        kind: &'static str,
        make: impl FnOnce() -> prometheus::Result<C>,
    ) -> C
    where
        C: Collector + Clone + Send + 'static,
    {
        let mut families = self.families();
        if let Some(known) = families.get(name) {
            return match known.made.downcast_ref::<C>() {
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
        let (help, labels) = match family.desc().first() {
            Some(desc) => (desc.help.clone(), desc.variable_labels.clone()),
            None => Default::default(),
        };
        let known = Family {
            made: Box::new(family.clone()),
            kind,
            help,
            labels,
        };
        families.insert(name.to_owned(), known);
        family
    }

    fn families(&self) -> MutexGuard<'_, BTreeMap<String, Family>> {
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

    /// Makes room: of the sets that have labels of their own, only these go on having them.
    pub fn keep(&self, is_there: impl Fn(&[String]) -> bool) {
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        seen.retain(|values| is_there(values));
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

/// The values of `namespace` and `persistentvolumeclaim` for a volume. Outside of a cluster the second is the
/// volume's name.
pub fn volume_labels<'a>(namespace: &'a str, claim: &'a str, name: &'a str) -> [&'a str; 2] {
    match namespace.is_empty() && claim.is_empty() {
        true => ["", name],
        false => [namespace, claim],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_set_at_a_scrape_and_what_is_adopted_is_printed() {
        let metrics = Metrics::new();
        let made = IntCounter::new("holdfast_made_total", "Made elsewhere.").unwrap();
        metrics.adopt(&made);
        let gauge = metrics.gauge("holdfast_asked", "Asked for.");
        metrics.on_scrape(move || {
            let gauge = gauge.clone();
            async move { gauge.inc() }
        });
        made.inc();
        metrics.refresh().await;
        metrics.set_build("test", "1.2.3");
        let text = metrics.encode().unwrap();
        for line in [
            "holdfast_made_total 1",
            "holdfast_asked 1",
            "holdfast_build_info{component=\"test\",version=\"1.2.3\"} 1",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn a_table_is_replaced_as_a_whole_and_may_be_empty() {
        let metrics = Metrics::new();
        let table = metrics.table("holdfast_rows", "Rows.", &["a", "b"]);
        assert_eq!(metrics.encode().unwrap(), "");
        table.set([(["x", "y"], 1.5), (["x", "z"], 2.0)]);
        table.set([(["p", "q"], 3.0)]);
        let text = metrics.encode().unwrap();
        assert!(
            text.ends_with("holdfast_rows{a=\"p\",b=\"q\"} 3\n"),
            "{text}"
        );
        table.set::<&str, 2>([]);
        assert_eq!(metrics.encode().unwrap(), "");
    }

    #[test]
    fn a_volume_outside_of_a_cluster_has_its_name() {
        assert_eq!(volume_labels("", "", "data"), ["", "data"]);
        assert_eq!(volume_labels("shop", "", "shop/db-0/x"), ["shop", ""]);
        assert_eq!(volume_labels("shop", "db", "shop/db"), ["shop", "db"]);
    }

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
        cap.keep(|values| values[0] != "a");
        assert_eq!(cap.values(&["c", "z"]), ["c", "z"]);
        assert_eq!(cap.values(&["a", "x"]), ["other", "other"]);
    }
}
