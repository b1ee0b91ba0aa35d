//! What a run starts from: the volume's root, how it is scanned, and an index that fits the session.

use super::session::Session;
use super::{Run, blocking, rebuild};
use crate::beneath::{Root, RootError};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::index::{Cursor, Discarded, Index};
use crate::scan::ScanOptions;
use std::sync::Arc;

impl Run<'_> {
    /// The index as the session needs it, and a position before its first record.
    pub(super) async fn prepare(
        &self,
        session: &Session,
        index: Index,
        discarded: Option<Discarded>,
    ) -> Result<(Index, Cursor, Option<Discarded>)> {
        let Some(parent) = session.parent else {
            let index = blocking(move || {
                let mut index = index;
                if index.meta().is_some() {
                    index.clear()?;
                }
                Ok(index)
            })
            .await?;
            return Ok((index, Cursor::empty(), None));
        };
        // Without stamps there is no boot that they are of.
        let wanted = session.meta(parent, "", "");
        let (index, reason) = match index.fits(&wanted) {
            Ok(()) => (index, None),
            Err(reason) => {
                let reason = discarded.unwrap_or(reason);
                tracing::info!(
                    volume = %self.volume.facts.name,
                    reason = reason.as_str(),
                    "the index is built again from the parent's entries; every file is read once"
                );
                let built =
                    rebuild::rebuild(self.client, session, parent, index, wanted, &self.cancel);
                (built.await?, Some(reason))
            }
        };
        if let Some(meta) = index.meta() {
            self.progress.total_files.set(meta.totals.files);
            self.progress.total_bytes.set(meta.totals.content_bytes);
        }
        let (index, cursor) = blocking(move || {
            let cursor = index.cursor()?;
            Ok((index, cursor))
        })
        .await?;
        Ok((index, cursor, reason))
    }

    pub(super) fn scan_options(&self, stop: &Cancel) -> ScanOptions {
        ScanOptions {
            temporary_directory: self.options.temporary_directory.clone(),
            cancel: stop.clone(),
            began_ns: self.started_ns,
            helpers: self.options.processors() - 1,
            priority: self.options.priority,
            ..ScanOptions::default()
        }
    }

    pub(super) async fn open_root(&self) -> Result<Arc<Root>> {
        let path = self.volume.path.clone();
        let volume = self.volume.facts.name.to_string();
        let rolling = self.options.rolling.clone();
        blocking(move || {
            let mut root = Root::open(&path).map_err(|error| unreadable(volume, &error))?;
            if rolling.is_some_and(|rolling| rolling.distrusted().has(root.f_type())) {
                root.distrust();
            }
            Ok(Arc::new(root))
        })
        .await
    }
}

fn unreadable(volume: String, error: &RootError) -> Error {
    Error::VolumeUnreadable {
        volume,
        detail: error.to_string(),
    }
}
