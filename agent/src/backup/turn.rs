//! A run's dealings with its volume's journal: what to look at, and what is remembered when it is accepted.

use super::session::Session;
use super::{Run, blocking};
use crate::beneath::Root;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::index::Index;
use crate::journal::{Again, Beginning, Turn};
use crate::mount::Identity;
use crate::scan::{Known, ScanOptions, Targets};
use holdfast_format::id::SnapshotId;
use holdfast_format::path::RelPath;
use std::collections::HashSet;
use std::sync::Arc;

/// What the threads of a run have to do.
pub(super) struct Work {
    /// How to walk.
    pub(super) scan: ScanOptions,
    /// What to look at; `None`: everything.
    pub(super) targets: Option<Targets>,
    /// The journal's part in it.
    pub(super) turn: Option<Arc<Turn>>,
    /// Ends it.
    pub(super) stop: Cancel,
}

impl Run<'_> {
    /// The run's turn with the journal, if the volume has one. What happened before this is known to it.
    pub(super) async fn begin_turn(
        &self,
        root: &Arc<Root>,
        identity: Identity,
        parent: Option<SnapshotId>,
    ) -> Option<Turn> {
        let journals = self.options.journals.clone()?;
        let (name, path) = (self.volume.facts.name.to_string(), self.volume.path.clone());
        let (root, rules) = (root.clone(), self.options.rules.clone());
        let started_ns = self.started_ns;
        let begin = move || {
            Ok(journals.of(&name, &path).begin(&Beginning {
                root: &root,
                identity,
                rules: &rules,
                parent,
                started_ns,
            }))
        };
        blocking(begin).await.ok()
    }

    /// The paths to look at; `None`: the volume is walked.
    pub(super) async fn targets(
        &self,
        turn: Option<Turn>,
        session: &Session,
        index: Index,
        root: &Arc<Root>,
        scan: ScanOptions,
    ) -> Result<(Index, Option<Arc<Turn>>, Option<Targets>)> {
        let Some(mut turn) = turn else {
            return Ok((index, None, None));
        };
        let (root, rules) = (root.clone(), self.options.rules.clone());
        let reread: Vec<RelPath> = session.reread.iter().cloned().collect();
        blocking(move || {
            let scan = ScanOptions {
                before_listing: turn.before_listing(),
                ..scan
            };
            let mut targets = turn.targets(&root, &rules, &index, scan)?;
            if let Some(targets) = &mut targets {
                reread
                    .iter()
                    .for_each(|path| targets.add(path, Known::Other));
            }
            Ok((index, Some(Arc::new(turn)), targets))
        })
        .await
    }

    /// The snapshot is durable and the index stands at it.
    pub(super) async fn end_turn(
        &self,
        turn: Arc<Turn>,
        snapshot: SnapshotId,
        again: Again,
        looked_at: HashSet<RelPath>,
    ) -> Result<()> {
        let rules = self.options.rules.clone();
        let journals = self.options.journals.clone();
        blocking(move || {
            turn.accepted(snapshot, again, &|path| looked_at.contains(path));
            if let Some(journals) = journals {
                journals.look_after(turn.journal(), &rules);
            }
            Ok(())
        })
        .await
    }
}
