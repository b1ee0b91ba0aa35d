//! `kubectl holdfast doctor`: what would fail, why it matters, and how to mend it. It changes nothing, but writes
//! an object of the store once more as it is. It ends with 1 where something fails.

use crate::args::{Format, Global};
use crate::cluster::Cluster;
use crate::cluster::doctor::{State, gather, judge};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{document, wrapped};
use serde_json::Value;

/// Nodes of one finding that are named; with -o wide all are.
const NAMED: usize = 8;

/// Looks, and prints.
pub async fn run(global: &Global, cluster: &Cluster) -> Outcome<()> {
    let found = judge(&gather(global, cluster).await);
    let bad = found.iter().filter(|one| one.state == State::Bad).count();
    match global.output {
        Format::Json | Format::Yaml => {
            let found = found.iter().map(|one| one.as_document());
            document(global.output, &Value::Array(found.collect()))?;
        }
        Format::Name => {
            let bad = found.iter().filter(|one| one.state == State::Bad);
            bad.for_each(|one| println!("{}", one.check));
        }
        Format::Table | Format::Wide => {
            let named = match global.output {
                Format::Wide => usize::MAX,
                _ => NAMED,
            };
            for one in &found {
                let heading = format!("{:<5} {}: ", one.state.word(), one.check);
                println!("{}", indented(&heading, &one.said(named)));
                if one.state != State::Good {
                    println!("{}", indented("      why: ", one.why));
                    println!("{}", indented("      mend: ", &one.mend));
                }
            }
        }
    }
    match bad {
        0 => Ok(()),
        _ if !matches!(global.output, Format::Table | Format::Wide) => {
            Err(Failure::with(Exit::Failed, ""))
        }
        1 => Err(Failure::failed("1 of these fails")),
        count => Err(Failure::failed(format!("{count} of these fail"))),
    }
}

/// The same for a bundle.
pub async fn findings(global: &Global, cluster: &Cluster) -> Vec<Value> {
    let found = judge(&gather(global, cluster).await);
    found.iter().map(|one| one.as_document()).collect()
}

fn indented(heading: &str, said: &str) -> String {
    wrapped(heading, said, 80)
}
