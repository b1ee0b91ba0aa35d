//! Results on standard output, in the format that was asked for. Names are escaped for people and
//! exact for programs: where bytes are not UTF-8, JSON has a second field `…_base64`.

use crate::args::Format;
use crate::failure::{Failure, Outcome};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::DateTime;
use holdfast_format::id::hex;
use holdfast_format::path::escape;
use holdfast_proto::v1;
use serde_json::{Map, Value, json};
use std::io::{IsTerminal, Write};

/// A table whose rows are also documents.
pub struct Table {
    headings: &'static [&'static str],
    wide_from: usize,
    rows: Vec<Row>,
}

struct Row {
    cells: Vec<String>,
    name: String,
    document: Value,
}

impl Table {
    /// A table with these headings; those from `wide_from` on are shown by `-o wide` only.
    pub fn new(headings: &'static [&'static str], wide_from: usize) -> Self {
        Self {
            headings,
            wide_from,
            rows: Vec::new(),
        }
    }

    /// One more row: its cells, what `-o name` prints of it, and what json and yaml print of it.
    pub fn push(&mut self, cells: Vec<String>, name: impl Into<String>, document: Value) {
        self.rows.push(Row {
            cells,
            name: name.into(),
            document,
        });
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Prints it; `empty` is what a person reads (on standard error) where there is no row.
    pub fn print(self, format: Format, empty: &str) -> Outcome<()> {
        let mut out = std::io::stdout().lock();
        match format {
            Format::Json | Format::Yaml => {
                return document(
                    format,
                    &Value::Array(self.rows.into_iter().map(|r| r.document).collect()),
                );
            }
            Format::Name => self
                .rows
                .iter()
                .try_for_each(|row| writeln!(out, "{}", row.name))?,
            Format::Table | Format::Wide => {
                if self.rows.is_empty() {
                    eprintln!("{empty}");
                    return Ok(());
                }
                let columns = if format == Format::Wide {
                    self.headings.len()
                } else {
                    self.wide_from
                };
                let mut widths: Vec<usize> =
                    self.headings[..columns].iter().map(|h| h.len()).collect();
                for row in &self.rows {
                    for (width, cell) in widths.iter_mut().zip(&row.cells) {
                        *width = (*width).max(cell.chars().count());
                    }
                }
                let headings: Vec<String> = self.headings.iter().map(|h| (*h).to_owned()).collect();
                let bold =
                    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                let line = line_of(&headings, &widths);
                if bold {
                    writeln!(out, "\x1b[1m{line}\x1b[0m")?;
                } else {
                    writeln!(out, "{line}")?;
                }
                for row in &self.rows {
                    writeln!(out, "{}", line_of(&row.cells, &widths))?;
                }
            }
        }
        Ok(())
    }
}

fn line_of(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
    }
    line.trim_end().to_owned()
}

/// A heading and a text after it, in lines of at most `width` columns; what follows the first is indented like
/// it. A word that is longer stands on a line of its own, whole.
pub fn wrapped(heading: &str, text: &str, width: usize) -> String {
    let indent = heading.chars().count().min(width / 4);
    let (mut out, mut column) = (heading.to_owned(), heading.chars().count());
    let mut is_first = true;
    for word in text.split_whitespace() {
        let count = word.chars().count();
        if !is_first && column + 1 + count > width {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if !is_first {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += count;
        is_first = false;
    }
    out.trim_end().to_owned()
}

/// A text on one line, cut where it is longer.
pub fn fit(text: &str, width: usize) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.chars().count() <= width {
        true => text,
        false => text
            .chars()
            .take(width.saturating_sub(1))
            .chain(['…'])
            .collect(),
    }
}

/// Prints one document as json or yaml.
pub fn document(format: Format, value: &Value) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    if format == Format::Yaml {
        let text = serde_norway::to_string(value)
            .map_err(|e| Failure::because("cannot print yaml", &e))?;
        out.write_all(text.as_bytes())?;
    } else {
        let text = serde_json::to_string_pretty(value)
            .map_err(|e| Failure::because("cannot print json", &e))?;
        writeln!(out, "{text}")?;
    }
    Ok(())
}

/// Puts a byte string into a document: as text, and where it is not UTF-8 exactly beside it.
pub fn put_bytes(into: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            into.insert(key.into(), text.into());
        }
        Err(_) => {
            into.insert(key.into(), escape(bytes).into());
            into.insert(format!("{key}_base64"), BASE64.encode(bytes).into());
        }
    }
}

/// Bytes for people: `1.2 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A time for people and programs: RFC 3339 UTC, whole seconds.
pub fn time(ns: i64) -> String {
    DateTime::from_timestamp_nanos(ns)
        .format("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// A snapshot as a document.
pub fn snapshot(info: &v1::SnapshotInfo) -> Value {
    let facts = info.facts.clone().unwrap_or_default();
    json!({
        "id": hex(&info.id),
        "volume": facts.name,
        "volume_id": hex(&info.volume),
        "sequence": info.sequence,
        "started": time(info.started_ns),
        "received": time(info.received_ns),
        "parent": if info.parent.is_empty() { Value::Null } else { hex(&info.parent).into() },
        "root": hex(&info.root),
        "node": facts.node,
        "source": facts.source,
        "namespace": facts.namespace,
        "persistentvolumeclaim": facts.persistentvolumeclaim,
        "filesystem": facts.filesystem,
        "problems": info.problems,
        "first_problems": info.first_problems.iter().map(problem).collect::<Vec<_>>(),
        "stats": stats(&info.stats.unwrap_or_default()),
        "score": info.signals.as_ref().map(|_| info.score),
        "reasons": info.reasons,
        "suspicious": info.suspicious,
        "acknowledged": info.acknowledged.as_ref().map(|a| json!({"at": time(a.time_ns), "by": a.actor})),
        "signals": info.signals.as_ref().map(signals),
    })
}

/// A problem as a document.
pub fn problem(problem: &v1::Problem) -> Value {
    let mut map = Map::new();
    put_bytes(&mut map, "path", &problem.path);
    map.insert("reason".into(), problem.reason.clone().into());
    map.insert("detail".into(), problem.detail.clone().into());
    map.insert("errno".into(), problem.errno.into());
    map.insert("carried_over".into(), problem.carried_over.into());
    Value::Object(map)
}

/// Counters as a document.
pub fn stats(s: &v1::Stats) -> Value {
    json!({
        "files": s.files, "directories": s.directories, "others": s.others, "content_bytes": s.content_bytes,
        "files_read": s.files_read, "read_bytes": s.read_bytes, "entries_changed": s.entries_changed,
        "new_chunks": s.new_chunks, "new_chunk_bytes": s.new_chunk_bytes, "stored_bytes": s.stored_bytes,
        "reread_unchanged_bytes": s.reread_unchanged_bytes, "problems": s.problems, "wire_bytes": s.wire_bytes,
    })
}

/// How a snapshot differs from the one before, as a document.
fn signals(s: &v1::Signals) -> Value {
    json!({
        "mode": s.mode, "walk_reason": s.reason,
        "added_files": s.added_files, "removed_files": s.removed_files, "rewritten_files": s.rewritten_files,
        "renamed_files": s.renamed_files, "parent_files": s.parent_files, "parent_bytes": s.parent_bytes,
        "removed_bytes": s.removed_bytes, "rewritten_plain_bytes": s.rewritten_plain_bytes,
        "rewritten_packed_bytes": s.rewritten_packed_bytes, "parent_entries": s.parent_entries,
        "entries": s.entries, "removed_entries": s.removed_entries,
        "baseline_plain_bytes": s.baseline_plain_bytes, "baseline_packed_bytes": s.baseline_packed_bytes,
    })
}

/// An age for people: `95s`, `12m`, `3h`, `4d`.
pub fn age(ns: u64) -> String {
    let seconds = ns.div_ceil(1_000_000_000);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The letter `ls -l` shows for a kind.
pub fn kind_letter(kind: i32) -> char {
    match v1::Kind::try_from(kind) {
        Ok(v1::Kind::File) => '-',
        Ok(v1::Kind::Directory) => 'd',
        Ok(v1::Kind::Symlink) => 'l',
        Ok(v1::Kind::Fifo) => 'p',
        Ok(v1::Kind::Socket) => 's',
        Ok(v1::Kind::CharDevice) => 'c',
        Ok(v1::Kind::BlockDevice) => 'b',
        _ => '?',
    }
}

/// Kind and permissions as `ls -l` shows them.
pub fn mode(kind: i32, mode: u32) -> String {
    let mut text = String::from(kind_letter(kind));
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift & 7;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// An entry as a document.
pub fn entry(entry: &v1::Entry) -> Value {
    let mut map = Map::new();
    put_bytes(&mut map, "path", &entry.path);
    let kind = match v1::Kind::try_from(entry.kind) {
        Ok(v1::Kind::File) => "file",
        Ok(v1::Kind::Directory) => "directory",
        Ok(v1::Kind::Symlink) => "symlink",
        Ok(v1::Kind::Fifo) => "fifo",
        Ok(v1::Kind::Socket) => "socket",
        Ok(v1::Kind::CharDevice) => "char-device",
        Ok(v1::Kind::BlockDevice) => "block-device",
        _ => "unknown",
    };
    map.insert("kind".into(), kind.into());
    map.insert("mode".into(), format!("{:04o}", entry.mode).into());
    map.insert("uid".into(), entry.uid.into());
    map.insert("gid".into(), entry.gid.into());
    map.insert(
        "mtime".into(),
        DateTime::from_timestamp_nanos(entry.mtime_ns)
            .to_rfc3339()
            .into(),
    );
    map.insert("size".into(), entry.size.into());
    if !entry.target.is_empty() {
        put_bytes(&mut map, "target", &entry.target);
    }
    if !entry.hardlink.is_empty() {
        put_bytes(&mut map, "hardlink", &entry.hardlink);
    }
    if entry.rdev != 0 {
        map.insert("rdev".into(), entry.rdev.into());
    }
    if !entry.xattrs.is_empty() {
        map.insert(
            "xattrs".into(),
            entry
                .xattrs
                .iter()
                .map(|x| Value::from(escape(&x.name)))
                .collect(),
        );
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_these() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1 << 20), "1.0 MiB");
        assert_eq!(bytes((1 << 30) - 1), "1.0 GiB");
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        let ages = [0, 1, 119, 120, 7_199, 7_200, 172_800];
        let ages = ages.map(|seconds| age(seconds * 1_000_000_000));
        assert_eq!(ages, ["0s", "1s", "119s", "2m", "119m", "2h", "2d"]);
        assert_eq!(mode(1, 0o4755), "-rwsr-xr-x");
        assert_eq!(mode(2, 0o1777), "drwxrwxrwt");
        assert_eq!(mode(1, 0o2644), "-rw-r-Sr--");
    }

    #[test]
    fn texts_fit_their_lines() {
        assert_eq!(wrapped("a: ", "one two three", 10), "a: one two\n  three");
        assert_eq!(wrapped("a: ", "", 10), "a:");
        assert_eq!(wrapped("", "a-very-long-word x", 8), "a-very-long-word\nx");
        assert_eq!(fit("one\n two  three", 20), "one two three");
        assert_eq!(fit("one two three", 7), "one tw…");
    }

    #[test]
    fn bytes_that_are_not_text_are_exact() {
        let mut map = Map::new();
        put_bytes(&mut map, "path", b"a\xff");
        assert_eq!(map["path"], "a\\xff");
        assert_eq!(map["path_base64"], "Yf8=");
    }
}
