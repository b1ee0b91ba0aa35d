//! `holdfast diff A B`: what was added (+), removed (-) and changed (M: content, m: metadata).

use super::ls::Items;
use super::{admin, select};
use crate::args::{Diff, Format, Global};
use crate::connect::{self, Access};
use crate::failure::{Failure, Outcome, reason_of};
use crate::gaps::Gaps;
use crate::output;
use holdfast_format::id::SnapshotId;
use holdfast_format::path::{RelPath, escape};
use holdfast_proto::v1;
use serde_json::json;
use std::io::Write;
use tonic::transport::Channel;

/// Lists the differences in key order; it costs what differs.
pub async fn run(global: &Global, options: Diff) -> Outcome<()> {
    let connected = connect::open(global, Access::Read).await?;
    let (first, from, left) = select(&connected.channel, &options.from).await?;
    let (_, to, right) = select(&connected.channel, &options.to).await?;
    let path = common(left.path, right.path)?;
    let request = v1::DiffRequest {
        from: from.as_bytes().to_vec().into(),
        to: to.as_bytes().to_vec().into(),
        path: path.as_bytes().to_vec().into(),
    };
    let mut stream = admin(&connected.channel).diff(request).await?.into_inner();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut items = Items::new(global.output);
    let mut differs = false;
    while let Some(reply) = stream.message().await? {
        for item in &reply.items {
            differs = true;
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
    // No difference is a result only where there is something to compare.
    if !differs
        && !is_there(&connected.channel, &from, &path).await?
        && !is_there(&connected.channel, &to, &path).await?
    {
        return Err(Gaps::new(&first, &path).missing(&path));
    }
    items.finish(&mut out)?;
    out.flush()?;
    drop(out);
    connected.close().await;
    Ok(())
}

/// The path that is compared: the one that was typed, on either side.
fn common(from: RelPath, to: RelPath) -> Outcome<RelPath> {
    match (from.is_root(), to.is_root()) {
        (_, true) => Ok(from),
        (true, false) => Ok(to),
        (false, false) if from == to => Ok(from),
        (false, false) => Err(Failure::usage(format!(
            "one path is compared in both snapshots, not {from} with {to}: type it once"
        ))),
    }
}

async fn is_there(channel: &Channel, snapshot: &SnapshotId, path: &RelPath) -> Outcome<bool> {
    if path.is_root() {
        return Ok(true);
    }
    let request = v1::ListRequest {
        snapshot: snapshot.as_bytes().to_vec().into(),
        path: path.as_bytes().to_vec().into(),
        recursive: false,
    };
    let first = match admin(channel).list(request).await {
        Ok(stream) => stream.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    };
    match first {
        Err(status) if reason_of(&status) == "PathNotFound" => Ok(false),
        listed => Ok(listed.map(|()| true)?),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_on_either_side_holds_for_both() {
        let path = |text: &str| RelPath::new(text).unwrap();
        for (from, to, both) in [
            ("", "", ""),
            ("a", "", "a"),
            ("", "a", "a"),
            ("a", "a", "a"),
        ] {
            assert_eq!(common(path(from), path(to)).unwrap(), path(both));
        }
        assert!(common(path("a"), path("b")).is_err());
    }
}
