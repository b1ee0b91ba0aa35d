//! One snapshot of one volume: begin, scan, compare, read, ask, ship, commit, remember.
//!
//! Threads: one walks the volume and compares it with the index (`compare`); a worker per processor
//! reads, cuts, hashes and compresses (`worker`); one puts the results back into tree order
//! (`sequence`). They are joined by queues bounded in bytes (`budget`). Two tasks talk to the
//! coordinator: `upload` and `ask`. The index moves forward only after the commit's acknowledgement.
//!
//! A run that breaks is tried again under the same idempotency key: the scan begins anew, and what
//! the coordinator acknowledged is not sent a second time.

mod ask;
mod batcher;
pub(crate) mod budget;
mod commit;
mod compare;
mod extents;
mod first;
mod item;
mod links;
mod options;
mod output;
mod pool;
mod prepare;
mod problems;
mod rebuild;
mod report;
mod reread;
mod run;
mod sent;
mod sequence;
mod session;
mod shared;
mod turn;
mod worker;

pub use options::{BackupOptions, Reading, Retry};
pub use report::RunReport;

use crate::beneath::Root;
use crate::cancel::Cancel;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::index::{self, Cursor, Discarded, Index, IndexError};
use crate::mount::{Identity, MountWatch};
use crate::progress::Progress;
use crate::read::ReadContext;
use crate::rolling::Known;
use crate::scan::{ScanOptions, Targets};
use crate::upload;
use crate::volumes::VolumeCandidate;
use budget::Budget;
use holdfast_format::id::IdempotencyKey;
use holdfast_format::stamp::Host;
use holdfast_proto::v1 as proto;
use holdfast_runtime::backoff::Backoff;
use reread::Reread;
use run::Pipeline;
use session::{Session, Wanted};
use shared::Shared;
use std::sync::Arc;
use tokio::sync::mpsc;
use turn::Work;

/// Makes a snapshot of a volume.
///
/// Problems of single files are in the report and in the snapshot; an error means that there is no
/// snapshot (or that none is known of: a commit whose answer was lost is found by the next try).
pub async fn backup(
    client: &Client,
    volume: &VolumeCandidate,
    options: &BackupOptions,
    progress: Arc<Progress>,
    cancel: Cancel,
) -> Result<RunReport> {
    if let Err(ineligible) = &volume.eligible {
        return Err(Error::VolumeRefused {
            volume: volume.facts.name.to_string(),
            reason: ineligible.reason.as_str().to_owned(),
            detail: ineligible.detail.clone(),
        });
    }
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| Error::Internal(error.to_string()))?;
    let mut run = Run {
        client,
        volume,
        options,
        progress,
        cancel,
        key: IdempotencyKey::from_bytes(key),
        started_ns: options.clock.now_ns(),
        believe_held: true,
        discard_index: false,
        parent_damage: None,
    };
    let _held = match &options.rolling {
        Some(rolling) => tokio::select! {
            held = rolling.hold(volume.facts.name.as_str()) => Some(held),
            () = run.cancel.cancelled() => return Err(Error::Cancelled),
        },
        None => None,
    };
    let mut backoff = Backoff::new(options.retry.backoff);
    let mut tries = 1;
    loop {
        let error = match run.attempt().await {
            Ok(report) => return Ok(report),
            Err(error) => error,
        };
        if run.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if tries >= options.retry.tries || !run.mend(&error) {
            return Err(error);
        }
        tries += 1;
        let wait = backoff.next_wait();
        tracing::warn!(volume = %volume.facts.name, %error, ?wait, "the run broke and is tried again");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = run.cancel.cancelled() => return Err(Error::Cancelled),
        }
    }
}

/// What stays the same over the tries of a run, and what was learnt from those that failed.
struct Run<'r> {
    client: &'r Client,
    volume: &'r VolumeCandidate,
    options: &'r BackupOptions,
    progress: Arc<Progress>,
    cancel: Cancel,
    key: IdempotencyKey,
    started_ns: i64,
    /// Whether the coordinator's word on held chunks is taken.
    believe_held: bool,
    /// Whether the index led to changes that the coordinator refused.
    discard_index: bool,
    /// What could not be read of the parent: this run works without one.
    parent_damage: Option<String>,
}

impl Run<'_> {
    /// Whether another try may help, and what it must do differently.
    fn mend(&mut self, error: &Error) -> bool {
        match error.reason() {
            // Chunks that were promised have gone: everything that is read is shipped again.
            "ChunkGone" | "UnknownChunkReference" if self.believe_held => {
                self.believe_held = false;
                true
            }
            // The index said something of the parent that is not so.
            "InvalidChange" | "UnknownChunkReference" | "IndexUnavailable"
                if !self.discard_index =>
            {
                self.discard_index = true;
                true
            }
            // The snapshot that this one would build on is damaged: everything is read, and a whole
            // snapshot is made that relies on nothing of it.
            "DamageFound" if self.parent_damage.is_none() => {
                self.parent_damage = Some(error.to_string());
                true
            }
            _ => error.is_transient(),
        }
    }

    async fn attempt(&self) -> Result<RunReport> {
        self.progress.reset();
        let name = self.volume.facts.name.to_string();
        let path = self.options.index_directory.join(index::file_name(&name));
        let discard = self.discard_index;
        let (index, discarded) = blocking(move || {
            let (mut index, discarded) = Index::open(&path).map_err(|error| match error {
                IndexError::Busy => Error::VolumeBusy { volume: name },
                error => error.into(),
            })?;
            if discard && index.meta().is_some() {
                index.clear()?;
                return Ok((index, Some(Discarded::Damaged)));
            }
            Ok((index, discarded))
        })
        .await?;
        let wanted = Wanted {
            key: self.key,
            facts: self.volume.facts.clone(),
            parent: index.meta().map(|meta| meta.snapshot),
            started_ns: self.started_ns,
            adopt: self.options.adopt,
            parent_damaged: self.parent_damage.is_some(),
        };
        let session = tokio::select! {
            session = Session::begin(self.client, &wanted) => session?,
            () = self.cancel.cancelled() => return Err(Error::Cancelled),
        };
        let reference = session.reference.clone();
        let done = self.within(session, index, discarded).await;
        if let Err(error) = &done
            && !error.is_transient()
        {
            let abort = proto::AbortRequest {
                session: reference.session,
                lease_epoch: reference.lease_epoch,
                reason: error.reason().to_owned(),
            };
            self.client.abort(abort).await;
        }
        done
    }

    async fn within(
        &self,
        mut session: Session,
        index: Index,
        discarded: Option<Discarded>,
    ) -> Result<RunReport> {
        if session.committed.is_some() {
            let info = self
                .commit(&session.reference, 0, proto::Signals::default())
                .await?;
            return Ok(RunReport::committed_before(info, self.progress.view()));
        }
        if let Some(rolling) = &self.options.rolling {
            let wanted = rolling.wanted(self.volume.facts.name.as_str());
            session.reread.extend(wanted);
        }
        let (index, cursor, discarded) = self.prepare(&session, index, discarded).await?;
        let root = self.open_root().await?;
        let stamped = session.parent.filter(|_| discarded.is_none());
        let watch = MountWatch::new().map_err(|source| Error::Io {
            what: "watch the mount table",
            path: "/proc/self/mountinfo".to_owned(),
            source,
        })?;
        let identity = Identity::of(&root).map_err(|errno| Error::VolumeUnreadable {
            volume: self.volume.facts.name.to_string(),
            detail: errno.to_string(),
        })?;
        let stop = Cancel::new();
        let scan = self.scan_options(&stop);
        let turn = self.begin_turn(&root, identity, stamped).await;
        let (index, turn, targets) = self
            .targets(turn, &session, index, &root, scan.clone())
            .await?;
        let walk = match &turn {
            Some(turn) => turn.reason(),
            None => Some("NoJournal"),
        };
        if let Some(reason) = walk {
            tracing::debug!(volume = %self.volume.facts.name, reason, "the volume is walked");
        }
        let looked_at = targets.as_ref().map(Targets::paths).unwrap_or_default();
        let work = Work {
            scan,
            targets,
            turn: turn.clone(),
            stop,
        };
        let (compared, sequenced, last_seq) =
            self.pipeline(&session, &index, cursor, &root, work).await?;
        self.check_mount(identity, watch).await?;
        let totals = sequenced.writer.totals();
        let before = index.meta().map(|meta| meta.totals).unwrap_or_default();
        let signals = sequenced.signals(before, walk);
        self.progress.files.set(totals.files);
        self.progress.directories.set(totals.directories);
        self.progress.others.set(totals.others);
        self.progress.content_bytes.set(totals.content_bytes);
        // Whatever was not looked at is known not to have changed.
        self.progress.total_files.set(totals.files);
        self.progress.total_bytes.set(totals.content_bytes);
        self.progress.done_files.set(totals.files);
        self.progress.done_bytes.set(totals.content_bytes);
        let info = self.commit(&session.reference, last_seq, signals).await?;
        let view = self.progress.view();
        let snapshot = info.id;
        let mut meta = session.meta(snapshot, &self.options.boot_id, &self.options.node);
        meta.totals = totals;
        let carried_over = compared.carried_over || sequenced.carried_over;
        if let (true, Some(old)) = (carried_over, index.meta()) {
            // Stamps that were not looked at are of the boot they were taken in.
            meta.boot_id.clone_from(&old.boot_id);
            meta.node.clone_from(&old.node);
        }
        let known = Known {
            path: self.volume.path.clone(),
            identity,
            index: index.path().to_owned(),
            snapshot,
            ids: session.ids.clone(),
            chunker: session.chunker.clone(),
            inline_limit: session.inline_limit,
        };
        let mut index = index;
        let moved = blocking(move || {
            index.advance(sequenced.writer, meta)?;
            // Nobody else begins before the journal knows.
            Ok(index)
        })
        .await;
        match (moved, turn) {
            (Ok(_held), Some(turn)) => {
                let mut again = sequenced.again;
                again.elsewhere = compared.linked_elsewhere.clone();
                self.end_turn(turn, snapshot, again, looked_at).await?;
            }
            (Ok(_), None) => {}
            // The snapshot stands; the next run finds the index behind and builds it again.
            (Err(error), _) => {
                tracing::warn!(%error, volume = %self.volume.facts.name, "the index could not be moved forward");
            }
        }
        if let Some(rolling) = &self.options.rolling {
            let name = self.volume.facts.name.as_str();
            let now_ns = self.options.clock.now_ns();
            rolling.accepted(name, &session.reread, known, now_ns);
        }
        let told = Some(session.parent_damage).filter(|told| !told.is_empty());
        let parent_damage = self.parent_damage.clone().or(told);
        Ok(RunReport::new(
            info,
            view,
            compared,
            discarded,
            parent_damage,
            walk,
        ))
    }

    /// Runs the threads and the two tasks that talk to the coordinator; the number of messages sent.
    async fn pipeline(
        &self,
        session: &Session,
        index: &Index,
        cursor: Cursor,
        root: &Arc<Root>,
        work: Work,
    ) -> Result<(compare::Compared, sequence::Sequenced, u64)> {
        let options = self.options;
        let stop = work.stop;
        let (asker, parts) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(
            session.ids.clone(),
            session.chunker.clone(),
            options.compression_level,
            Budget::new(options.memory_bytes, options.memory_bytes / 4),
            self.believe_held.then_some(asker),
            !session.holds_nothing,
            self.progress.clone(),
            &options.temporary_directory,
            stop.clone(),
        ));
        let ending = shared.clone();
        let (outgoing, uploading) = upload::start(
            self.client.clone(),
            session.reference.clone(),
            options.upload_rate.clone(),
            stop.clone(),
            move |_| ending.end(),
        );
        let host = match index.meta() {
            Some(meta) if meta.boot_id == options.boot_id && meta.node == options.node => {
                Host::SameBoot
            }
            _ => Host::BootedSince,
        };
        let pipeline = Pipeline {
            shared: shared.clone(),
            volume: self.volume.facts.name.to_string(),
            root: root.clone(),
            rules: options.rules.clone(),
            scan: ScanOptions {
                seen: shared.seen.clone(),
                before_listing: work.turn.as_ref().and_then(|turn| turn.before_listing()),
                ..work.scan
            },
            targets: work.targets,
            turn: work.turn,
            read: ReadContext {
                chunker: session.chunker.clone(),
                ids: session.ids.clone(),
                inline_limit: session.inline_limit,
                class: root.class(),
                busy: options.busy,
                rate: options.read_rate.clone(),
                cancel: stop.clone(),
            },
            cursor,
            writer: index.writer()?,
            host,
            reread: Reread::new(
                session.reread.clone(),
                root.is_distrusted() || options.reading == Reading::All,
            ),
            outgoing,
            profile: session.profile,
            started_ns: self.started_ns,
            workers: options.processors(),
            priority: options.priority,
        };
        let asking = tokio::spawn(ask::answer(
            self.client.clone(),
            session.reference.clone(),
            shared.clone(),
            parts,
        ));
        let watching = {
            let (cancel, stop) = (self.cancel.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => stop.cancel(),
                    () = stop.cancelled() => {}
                }
            })
        };
        let threads = blocking(move || pipeline.run()).await;
        let sent = uploading.finish().await;
        asking.abort();
        watching.abort();
        match (threads, sent) {
            (Ok((compared, sequenced)), Ok(sent)) => Ok((compared, sequenced, sent)),
            // Whichever broke first; the other one was cancelled.
            (Err(Error::Cancelled), Err(error)) | (Ok(_), Err(error)) => Err(error),
            (Err(error), _) => Err(error),
        }
    }
}

/// Runs what blocks away from the tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::Internal(format!("a thread broke: {error}"))),
    }
}

#[cfg(test)]
pub(crate) mod tests;
