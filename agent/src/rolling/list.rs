//! Lists the files of a window from an index, unless a run wants the index.

use super::window::Window;
use super::{Known, PassOptions};
use crate::beneath::Root;
use crate::index::{Index, Record};
use holdfast_format::entry::Kind;
use holdfast_format::path::RelPath;
use holdfast_format::stamp::{Host, Verdict, unchanged};
use std::ops::{ControlFlow, Range};

/// Files of a window, about, and bytes.
const MOST_FILES: f64 = 20_000.0;
const MOST_BYTES: f64 = (4_u64 << 30) as f64;
/// A window is at least this share of a period.
const LEAST: f64 = 1e-4;
/// Bytes of one list.
const LIST_BYTES: usize = 32 << 20;

/// What is due, and how to judge it.
pub(super) struct Listed {
    pub(super) known: Known,
    pub(super) host: Host,
    pub(super) f_type: u64,
    pub(super) files: Vec<(RelPath, Record)>,
}

/// What has its place in the window that begins with this time, and where the window ends. `None`: a run wants
/// the index, or the volume is another than the index knows.
pub(super) fn due(
    index: &Index,
    known: Known,
    time: Range<i64>,
    options: &PassOptions,
    period_ns: i64,
    give_way: &dyn Fn() -> bool,
) -> crate::Result<Option<(i64, Listed)>> {
    let Some(meta) = index.meta().filter(|meta| meta.snapshot == known.snapshot) else {
        return Ok(None);
    };
    let Ok(root) = Root::open(&known.path) else {
        return Ok(None); // Discovery says why.
    };
    let host = match meta.boot_id == options.boot_id && meta.node == options.node {
        true => Host::SameBoot,
        false => Host::BootedSince,
    };
    let share = (MOST_FILES / meta.totals.files.max(1) as f64)
        .min(MOST_BYTES / meta.totals.content_bytes.max(1) as f64)
        .max(LEAST);
    let mut window = Window::next(time.start, time.end, period_ns, share);
    let mut lookup = index.lookup()?;
    let mut files = Vec::new();
    loop {
        files.clear();
        let mut bytes = 0;
        let mut key = Vec::new();
        let ended = lookup.each(|directory, name, record| {
            if give_way() {
                return ControlFlow::Break(());
            }
            if !is_believed(record, host) {
                return ControlFlow::Continue(());
            }
            key.clear();
            key.extend_from_slice(directory);
            key.extend_from_slice(name);
            if window.holds(&key)
                && let Ok(path) = RelPath::from_key(&key)
            {
                bytes += key.len() + size_of::<(RelPath, Record)>();
                files.push((path, *record));
            }
            ControlFlow::Continue(())
        })?;
        if ended.is_break() {
            return Ok(None);
        }
        if bytes <= LIST_BYTES {
            break;
        }
        // Long names: half the time.
        window = window.half();
    }
    let listed = Listed {
        host,
        f_type: root.f_type(),
        known,
        files,
    };
    Ok(Some((window.end(), listed)))
}

/// Whether a run that finds it with these times would not read it. All others it reads anyhow.
fn is_believed(record: &Record, host: Host) -> bool {
    let Some(stamp) = record.stamp() else {
        return false;
    };
    record.kind == Kind::File
        && record.size > 0
        && record.content.is_some()
        && unchanged(Some(&stamp), &stamp.stat, host) == Verdict::Unchanged
}
