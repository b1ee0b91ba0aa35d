//! Gauges by labels that are replaced as a whole: a scrape sees the rows of one moment, never half of them, and
//! what is gone leaves no row.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};
use std::sync::{Arc, Mutex};

/// The gauges of one family. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GaugeTable {
    desc: Desc,
    rows: Arc<Mutex<Vec<Metric>>>,
}

impl GaugeTable {
    pub(super) fn new(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Self> {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), labels, Default::default())?;
        Ok(Self {
            desc,
            rows: Arc::default(),
        })
    }

    /// These are all there are. Values of labels in the order of the family's; each set once.
    pub fn set<V: AsRef<str>, const N: usize>(
        &self,
        rows: impl IntoIterator<Item = ([V; N], f64)>,
    ) {
        let rows = rows
            .into_iter()
            .map(|(values, value)| self.metric(&values, value));
        let rows = rows.collect();
        *self
            .rows
            .lock()
            .unwrap_or_else(|poison| poison.into_inner()) = rows;
    }

    fn metric(&self, values: &[impl AsRef<str>], value: f64) -> Metric {
        let pairs = self.desc.variable_labels.iter().zip(values);
        let pairs = pairs.map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value(value.as_ref().to_owned());
            pair
        });
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(pairs.collect());
        metric.set_gauge(gauge);
        metric
    }
}

impl Collector for GaugeTable {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let rows = self
            .rows
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(rows.clone());
        vec![family]
    }
}
