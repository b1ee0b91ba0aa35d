//! `holdfast diff A B`: what was added (+), removed (-) and changed (M: content, m: metadata).

use super::ls::Items;
use super::{admin, select};
use crate::args::{Diff, Format, Global};
use crate::connect::{self, Access};
use crate::failure::Outcome;
use crate::output;
use holdfast_format::path::escape;
use holdfast_proto::v1;
use serde_json::json;
use std::io::Write;

/// Lists the differences in key order; it costs what differs.
pub async fn run(global: &Global, options: Diff) -> Outcome<()> {
    let connected = connect::open(global, Access::Read).await?;
    let (_, from, selection) = select(&connected.channel, &options.from).await?;
    let (_, to, _) = select(&connected.channel, &options.to).await?;
    let request = v1::DiffRequest {
        from: from.as_bytes().to_vec().into(),
        to: to.as_bytes().to_vec().into(),
        path: selection.path.as_bytes().to_vec().into(),
    };
    let mut stream = admin(&connected.channel).diff(request).await?.into_inner();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut items = Items::new(global.output);
    while let Some(reply) = stream.message().await? {
        for item in &reply.items {
            let path = item
                .to
                .as_ref()
                .or(item.from.as_ref())
                .map(|e| e.path.clone())
                .unwrap_or_default();
            match global.output {
                Format::Json | Format::Yaml => {
                    let side = |e: &Option<v1::Entry>| e.as_ref().map(output::entry);
                    items.push(&mut out, &json!({"change": word(item), "from": side(&item.from), "to": side(&item.to)}))?;
                }
                Format::Name => {
                    out.write_all(&path)?;
                    out.write_all(b"\n")?;
                }
                Format::Table | Format::Wide => {
                    let shown = if path.is_empty() {
                        ".".into()
                    } else {
                        escape(&path)
                    };
                    writeln!(out, "{} {shown}", letter(item))?;
                }
            }
        }
    }
    items.finish(&mut out)?;
    out.flush()?;
    drop(out);
    connected.close().await;
    Ok(())
}

fn content_differs(from: &v1::Entry, to: &v1::Entry) -> bool {
    (from.kind, from.size, &from.target, from.rdev, &from.content)
        != (to.kind, to.size, &to.target, to.rdev, &to.content)
}

fn word(item: &v1::DiffItem) -> &'static str {
    match (&item.from, &item.to) {
        (None, _) => "added",
        (_, None) => "removed",
        (Some(from), Some(to)) if content_differs(from, to) => "content",
        _ => "metadata",
    }
}

fn letter(item: &v1::DiffItem) -> char {
    match word(item) {
        "added" => '+',
        "removed" => '-',
        "content" => 'M',
        _ => 'm',
    }
}
