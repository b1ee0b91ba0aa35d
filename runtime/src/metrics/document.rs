//! The families of a process as a table for people, and the check that the one in the tree is this one.

use super::Metrics;
use std::fmt::Write;
use std::path::Path;

/// Set, the check writes the table instead.
const WRITE: &str = "HOLDFAST_WRITE_METRICS";

impl Metrics {
    /// One row for each family, by name.
    pub fn table_of_families(&self) -> String {
        let mut out = "| family | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
        for (name, family) in self.families().iter() {
            let labels: Vec<String> = family.labels.iter().map(|l| format!("`{l}`")).collect();
            let (kind, labels) = (family.kind, labels.join(", "));
            let _ = writeln!(out, "| `{name}` | {kind} | {labels} | {} |", family.help);
        }
        out
    }
}

/// That a document has this table between the marks of a process; what is to be done where it has not.
pub fn check_document(file: &Path, process: &str, metrics: &Metrics) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let (begin, end) = (
        format!("<!-- {process} -->\n"),
        format!("<!-- end of {process} -->\n"),
    );
    let parts = text.split_once(&begin).and_then(|(before, rest)| {
        let (found, after) = rest.split_once(&end)?;
        Some((before, found, after))
    });
    let (before, found, after) = parts.ok_or(format!("{begin} or {end} is missing"))?;
    let wanted = metrics.table_of_families();
    if std::env::var_os(WRITE).is_some() {
        let text = format!("{before}{begin}{wanted}{end}{after}");
        return std::fs::write(file, text).map_err(|error| error.to_string());
    }
    match found == wanted {
        true => Ok(()),
        false => Err(format!(
            "{} differs; write it with {WRITE}=1",
            file.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_its_row_also_without_a_value() {
        let metrics = Metrics::new();
        metrics.table("holdfast_x", "What x is.", &["a", "b"]);
        metrics.histogram("holdfast_a_seconds", "Time.", &[1.0]);
        metrics.counters("holdfast_b_total", "Counts.", &["kind"]);
        assert_eq!(
            metrics.table_of_families(),
            "| family | type | labels | meaning |\n|---|---|---|---|\n\
             | `holdfast_a_seconds` | histogram |  | Time. |\n\
             | `holdfast_b_total` | counter | `kind` | Counts. |\n\
             | `holdfast_x` | gauge | `a`, `b` | What x is. |\n"
        );
    }
}
