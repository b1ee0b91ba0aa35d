//! `holdfast ls SNAPSHOT[:/PATH]`: what a snapshot holds.

use super::{admin, select};
use crate::args::{Format, Global, Ls};
use crate::connect::{self, Access};
use crate::failure::{Failure, Outcome};
use crate::gaps::Gaps;
use crate::output::{self, mode, time};
use holdfast_format::path::escape;
use holdfast_proto::v1;
use std::io::Write;

/// Lists it, streaming: memory does not grow with the listing.
pub async fn run(global: &Global, options: Ls) -> Outcome<()> {
    let connected = connect::open(global, Access::Read).await?;
    let (info, id, selection) = select(&connected.channel, &options.snapshot).await?;
    let gaps = Gaps::new(&info, &selection.path);
    let absent = |status| gaps.explain(&selection.path, status);
    let request = v1::ListRequest {
        snapshot: id.as_bytes().to_vec().into(),
        path: selection.path.as_bytes().to_vec().into(),
        recursive: options.recursive,
    };
    let listed = admin(&connected.channel).list(request).await;
    let mut stream = listed.map_err(absent)?.into_inner();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut items = Items::new(global.output);
    while let Some(reply) = stream.message().await.map_err(absent)? {
        for entry in &reply.entries {
            match global.output {
                Format::Json | Format::Yaml => items.push(&mut out, &output::entry(entry))?,
                Format::Name => {
                    out.write_all(&entry.path)?;
                    out.write_all(b"\n")?;
                }
                Format::Table | Format::Wide => writeln!(out, "{}", line(entry))?,
            }
        }
    }
    items.finish(&mut out)?;
    out.flush()?;
    drop(out);
    if !global.quiet {
        gaps.tell();
    }
    connected.close().await;
    Ok(())
}

/// An entry as `ls -l` would show it.
pub fn line(entry: &v1::Entry) -> String {
    let mut text = format!(
        "{} {:>5} {:>5} {:>12} {} {}",
        mode(entry.kind, entry.mode),
        entry.uid,
        entry.gid,
        entry.size,
        time(entry.mtime_ns),
        if entry.path.is_empty() {
            ".".to_owned()
        } else {
            escape(&entry.path)
        }
    );
    if !entry.target.is_empty() {
        text.push_str(&format!(" -> {}", escape(&entry.target)));
    }
    if !entry.hardlink.is_empty() {
        text.push_str(&format!(" => {}", escape(&entry.hardlink)));
    }
    text
}

/// A long json or yaml list, written as it comes.
pub struct Items {
    format: Format,
    count: usize,
}

impl Items {
    /// An empty list.
    pub fn new(format: Format) -> Self {
        Self { format, count: 0 }
    }

    /// One more item.
    pub fn push(&mut self, out: &mut impl Write, item: &serde_json::Value) -> Outcome<()> {
        let broken = |e: &dyn std::error::Error| Failure::because("cannot print", e);
        if self.format == Format::Yaml {
            let list = serde_json::Value::Array(vec![item.clone()]);
            out.write_all(
                serde_norway::to_string(&list)
                    .map_err(|e| broken(&e))?
                    .as_bytes(),
            )?;
        } else {
            out.write_all(if self.count == 0 { b"[\n" } else { b",\n" })?;
            out.write_all(&serde_json::to_vec(item).map_err(|e| broken(&e))?)?;
        }
        self.count += 1;
        Ok(())
    }

    /// The end of the list.
    pub fn finish(&self, out: &mut impl Write) -> Outcome<()> {
        match (self.format, self.count) {
            (Format::Json | Format::Yaml, 0) => writeln!(out, "[]")?,
            (Format::Json, _) => writeln!(out, "\n]")?,
            _ => {}
        }
        Ok(())
    }
}
