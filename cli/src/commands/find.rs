//! `holdfast find PATTERN`: the history of paths over snapshots.

use super::admin;
use super::ls::{Items, line};
use crate::args::{Find, Format, Global};
use crate::connect::{self, Access};
use crate::failure::{Failure, Outcome, chain};
use crate::output::{self, time};
use holdfast_agent::rules::Rules;
use holdfast_format::id::hex;
use holdfast_proto::v1;
use std::io::Write;

/// Lists every state of every path that matches, by snapshot.
pub async fn run(global: &Global, options: Find) -> Outcome<()> {
    let pattern = [options.pattern.clone()];
    Rules::new(&pattern, &[]).map_err(|e| Failure::usage(chain(&e)))?;
    let connected = connect::open(global, Access::Read).await?;
    let request = v1::FindRequest {
        volume: options.volume.unwrap_or_default(),
        pattern: options.pattern.into_bytes().into(),
    };
    let mut stream = admin(&connected.channel).find(request).await?.into_inner();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut items = Items::new(global.output);
    let mut heading = String::new();
    let mut found = false;
    while let Some(reply) = stream.message().await? {
        if let Some(info) = &reply.info {
            let volume = info.facts.clone().unwrap_or_default().name;
            heading = format!(
                "{}  {volume}  {}",
                &hex(&info.id)[..12.min(info.id.len() * 2)],
                time(info.received_ns)
            );
        }
        for entry in &reply.entries {
            found = true;
            match global.output {
                Format::Json | Format::Yaml => {
                    let mut document = output::entry(entry);
                    document["snapshot"] = hex(&reply.snapshot).into();
                    items.push(&mut out, &document)?;
                }
                Format::Name => {
                    write!(out, "{}:/", &hex(&reply.snapshot)[..12])?;
                    out.write_all(&entry.path)?;
                    out.write_all(b"\n")?;
                }
                Format::Table | Format::Wide => {
                    if !heading.is_empty() {
                        writeln!(out, "{}", std::mem::take(&mut heading))?;
                    }
                    writeln!(out, "  {}", line(entry))?;
                }
            }
        }
    }
    items.finish(&mut out)?;
    out.flush()?;
    drop(out);
    if !found && !global.quiet {
        eprintln!("nothing matches in any snapshot");
    }
    connected.close().await;
    Ok(())
}
