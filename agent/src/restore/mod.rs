//! Writes a snapshot back: every byte verified before it is written, nothing ever outside of the target,
//! whatever the snapshot says.
//!
//! `entries` validates the stream of entries; `walk` checks that it is a tree in order; `execute` plans
//! windows and gives batches to the writing threads, which `prepare` entries against what stands there
//! (`plan`, `local`), fill files (`file`, `window`, `fetch`) and settle metadata (`policy`, `meta`,
//! `dirs`). `marker` makes a killed restore resumable; `extras` deletes. Memory is bounded whatever the
//! tree: what must be remembered of it lies in unnamed temporary files (`spill`).
//!
//! * A directory is restored *as* the target: its entry's metadata becomes the target's. Any other
//!   path is restored into the target, by its name.
//! * The target is new or empty, or holds an unfinished restore of the same snapshot and path; for
//!   anything else the caller asks for `in_place`.
//! * In place, a differing file is replaced in one step by a new one, made of unchanged local ranges
//!   and fetched chunks; a large one is written range by range (`plan::IN_PLACE_ABOVE_BYTES`). Over an
//!   identical tree nothing is written at all.

mod context;
mod copy;
mod dirs;
mod entries;
mod execute;
mod extras;
mod fetch;
mod file;
mod item;
mod links;
mod local;
mod marker;
mod meta;
mod open_files;
mod output;
mod plan;
mod policy;
mod pool;
mod prepare;
mod report;
mod space;
mod spill;
mod walk;
mod window;
mod writer;

pub use plan::IN_PLACE_ABOVE_BYTES;
pub use policy::Skip;
pub use report::{Action, Plan, PlanItem, RestoreProblem, RestoreReport};
pub use space::{Amount, Space};

use crate::beneath::{Dir, Errno, Root, RootError};
use crate::client::{self, MAX_MESSAGE_BYTES};
use crate::error::Result;
use crate::{Cancel, Error, Progress};
use bytes::Bytes;
use context::{Context, Mode, Place, Subject};
use holdfast_format::id::SnapshotId;
use holdfast_format::keys::{IdKey, Ids};
use holdfast_format::path::RelPath;
use holdfast_format::wire::Limits;
use holdfast_proto::v1 as proto;
use marker::{Names, Standing};
use policy::Policy;
use proto::restore_client::RestoreClient;
use rustix::fd::AsFd;
use rustix::fs::FlockOperation;
use space::Free;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::transport::Channel;

/// Messages of entries read ahead.
const ENTRIES_AHEAD: usize = 4;

/// What the caller of a restore may choose. The default is the cautious one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreOptions {
    /// Write into a target that is not empty: only what differs.
    pub in_place: bool,
    /// Remove what the snapshot does not have. Only with `in_place`; not when a single file is restored.
    pub delete: bool,
    /// Restore setuid and setgid bits of files, `security.capability` and devices.
    pub special: bool,
    /// Write nothing; say what would be done.
    pub dry_run: bool,
}

/// Where a restore writes.
#[derive(Debug, Clone, Copy)]
pub struct Target<'t> {
    /// The directory that is restored to.
    pub directory: &'t Path,
    /// Where unnamed temporary files are made; never in the target.
    pub temporary: &'t Path,
    /// A directory that the target must not lead out of: it is there already, and no link below it is followed.
    pub within: Option<&'t Path>,
}

/// Restores `path` of a snapshot to `target`. Problems of single paths are data in the report; an
/// error means that the restore did not come to its end, and can be run again to go on.
pub async fn restore(
    channel: Channel,
    snapshot: SnapshotId,
    path: RelPath,
    target: Target<'_>,
    options: &RestoreOptions,
    progress: Arc<Progress>,
    cancel: Cancel,
) -> Result<RestoreReport> {
    if options.delete && !options.in_place {
        return refused(
            "DeleteWithoutInPlace",
            "--delete is only possible with --in-place".into(),
        );
    }
    let mut client = RestoreClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let opened = tokio::select! {
        opened = open(&mut client, &snapshot) => opened?,
        () = cancel.cancelled() => return Err(Error::Cancelled),
    };
    let limits = Limits {
        inline_limit: opened.inline_limit,
        profile: None,
    };
    let stats = opened.snapshot.and_then(|info| info.stats);
    if let Some(stats) = stats.filter(|_| path.is_root()) {
        progress.total_files.set(stats.files);
        progress.total_bytes.set(stats.content_bytes);
    }
    let key = <[u8; 32]>::try_from(opened.id_key.as_ref()).map_err(|_| Error::Protocol {
        what: "open snapshot",
        rule: "the id key does not have 32 bytes".to_owned(),
    })?;
    let work = Work {
        client,
        snapshot,
        path,
        ids: IdKey::from_bytes(key).ids(),
        limits,
        target: target.directory.to_owned(),
        temporary: target.temporary.into(),
        within: target.within.map(Path::to_owned),
        cancel,
    };
    let free = Free::at(target.directory)?;
    if options.dry_run {
        let mut report = work.pass(options, progress).await?;
        report.space = free.map(|free| Space {
            needed: report.needed,
            free: free.amount,
        });
        // What is deleted makes room that nobody knows the size of.
        let checked = match free.filter(|_| !options.delete) {
            Some(free) => free.check(&report.needed, target.directory),
            None => Ok(()),
        };
        report.too_small = checked.err().map(|error| error.to_string());
        return Ok(report);
    }
    // What is deleted makes room that nobody knows the size of.
    if let Some(free) = free.filter(|_| !options.delete)
        && !stats.is_some_and(|stats| free.holds(&at_most(&stats)))
    {
        // It may not fit: what exactly it takes is found out by doing everything but the writing.
        let plan = RestoreOptions {
            dry_run: true,
            ..*options
        };
        let planned = work.pass(&plan, Progress::new()).await?;
        free.check(&planned.needed, target.directory)?;
    }
    work.pass(options, progress).await
}

/// What a whole snapshot can take at the most, a part of it included; holes count as data.
fn at_most(stats: &proto::Stats) -> Amount {
    Amount {
        bytes: stats.content_bytes,
        inodes: stats
            .files
            .saturating_add(stats.directories)
            .saturating_add(stats.others),
    }
}

/// What a restore is to do, once its snapshot is open.
struct Work {
    client: RestoreClient<Channel>,
    snapshot: SnapshotId,
    path: RelPath,
    ids: Ids,
    limits: Limits,
    target: PathBuf,
    temporary: Arc<Path>,
    within: Option<PathBuf>,
    cancel: Cancel,
}

impl Work {
    /// Goes over all entries once, writing them or only saying what would be written.
    async fn pass(
        &self,
        options: &RestoreOptions,
        progress: Arc<Progress>,
    ) -> Result<RestoreReport> {
        let subject = Subject {
            snapshot: self.snapshot,
            path: self.path.clone(),
            ids: self.ids.clone(),
        };
        let (place, temporary) = (self.target.clone(), self.temporary.clone());
        let (chosen, stop) = (*options, self.cancel.clone());
        let within = self.within.clone();
        let begun = move || {
            let place = (place.as_path(), within.as_deref(), temporary);
            begin(subject, place, &chosen, progress, stop)
        };
        let begun = blocking(begun).await??;
        let (context, resumed) = (Arc::new(begun.0), begun.1);

        let (to, source) = mpsc::channel(ENTRIES_AHEAD);
        let entries = entries::Entries {
            client: self.client.clone(),
            snapshot: self.snapshot,
            path: self.path.clone(),
            ids: self.ids.clone(),
            limits: self.limits,
        };
        let reading = tokio::spawn(entries.run(to));
        let pool = Arc::new(pool::Pool::new());
        let fetcher = fetch::Fetcher::new(context.clone(), self.client.clone(), pool.clone());
        let working = context.clone();
        let done = blocking(move || execute::execute(&working, &pool, &fetcher, source)).await;
        reading.abort();
        done?;
        if let Some(error) = context.error() {
            return Err(error);
        }
        let report = &context.tally;
        Ok(report.report(self.snapshot, self.target.clone(), resumed))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Internal(error.to_string()))
}

fn refused<T>(reason: &'static str, detail: String) -> Result<T> {
    Err(Error::Restore { reason, detail })
}

async fn open(
    client: &mut RestoreClient<Channel>,
    snapshot: &SnapshotId,
) -> Result<proto::OpenReply> {
    let request = proto::OpenRequest {
        snapshot: Bytes::copy_from_slice(snapshot.as_bytes()),
    };
    let opened = client.open(request).await;
    let reply = opened.map_err(|status| client::from_status("open snapshot", &status))?;
    Ok(reply.into_inner())
}

/// Looks at the target, makes it where it is not there, and puts the marker down.
fn begin(
    subject: Subject,
    (target, within, temporary): (&Path, Option<&Path>, Arc<Path>),
    options: &RestoreOptions,
    progress: Arc<Progress>,
    cancel: Cancel,
) -> Result<(Context, bool)> {
    let io = |what, source| Error::Io {
        what,
        path: target.display().to_string(),
        source,
    };
    let opened = match within {
        Some(within) => beneath(within, target, !options.dry_run)?,
        None => anywhere(target, !options.dry_run)?,
    };
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| Error::Internal(error.to_string()))?;
    let policy = Policy::of_process(options.special);
    let (root, alone, mode, nonce) = match opened {
        Some(root) => {
            let alone = match options.dry_run {
                true => None,
                false => Some(alone(&root, target)?),
            };
            let (mode, nonce) = mode_of(&root, &subject, target, options)?;
            (Some(root), alone, mode, nonce)
        }
        None => (None, None, Mode::Fresh, None),
    };
    let resumed = nonce.is_some();
    let names = Names::new(nonce, random);
    let place = Place {
        root,
        mode,
        resumed,
        dry_run: options.dry_run,
        alone,
        temporary,
    };
    let context = Context::new(subject, place, policy, names, progress, cancel);
    if matches!(mode, Mode::Fresh) && !options.dry_run {
        let touched = context.touch();
        touched.map_err(|errno| io("write into target", errno.into()))?;
    }
    Ok((context, resumed))
}

/// The target, made where it is not there; `None`: it is not, and is not to be made.
fn anywhere(target: &Path, make: bool) -> Result<Option<Root>> {
    let io = |what, source| Error::Io {
        what,
        path: target.display().to_string(),
        source,
    };
    match std::fs::metadata(target) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => {
            let detail = format!(
                "{} is not a directory; name one to restore into",
                target.display()
            );
            return refused("TargetNotDirectory", detail);
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io("look at target", error));
        }
        Err(_) if !make => return Ok(None),
        Err(_) => {
            std::fs::create_dir_all(target).map_err(|error| io("make target", error))?;
        }
    }
    // The caller's own path may be a symlink; everything below is not followed.
    let real = std::fs::canonicalize(target).map_err(|error| io("look at target", error))?;
    let root = Root::open(&real).map_err(|error| unusable(target, &error))?;
    Ok(Some(root))
}

/// The same below a directory that a tenant may write to: that directory is there, or the volume is not mounted,
/// and what is made or opened below it is reached through no link.
fn beneath(within: &Path, target: &Path, make: bool) -> Result<Option<Root>> {
    let top = match Root::open(within) {
        Ok(top) => top,
        Err(RootError::Open { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            let detail = format!("{} is not there: is it mounted?", within.display());
            return refused("TargetMissing", detail);
        }
        Err(error) => return Err(unusable(within, &error)),
    };
    let below = target.strip_prefix(within).unwrap_or(Path::new(""));
    let wrong = |source| Error::Answer {
        what: "take a restore order",
        source,
    };
    let path = RelPath::new(below.as_os_str().as_bytes().to_vec()).map_err(wrong)?;
    let failed = |errno: Errno| match errno {
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => Error::Restore {
            reason: "TargetNotDirectory",
            detail: format!(
                "{} leads through a link, a mount or a file; name a directory of the volume itself",
                target.display()
            ),
        },
        errno => Error::Io {
            what: "look at target",
            path: target.display().to_string(),
            source: errno.into(),
        },
    };
    let mut dir = top.top().map_err(failed)?;
    for part in below.components() {
        let name = part.as_os_str().as_bytes();
        dir = match dir.open_dir(name) {
            Err(Errno::NOENT) if !make => return Ok(None),
            Err(Errno::NOENT) => {
                match dir.make_dir(name, 0o755) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(failed(errno)),
                }
                dir.open_dir(name).map_err(failed)?
            }
            opened => opened.map_err(failed)?,
        };
    }
    drop(dir);
    let root = top.below(&path).map_err(|error| unusable(target, &error))?;
    Ok(Some(root))
}

/// Locks the target's directory against other restores, for as long as what is returned is open. Two at
/// once would take each other's files for left-overs.
fn alone(root: &Root, target: &Path) -> Result<Dir> {
    let top = root.top().map_err(|errno| Error::Io {
        what: "look into target",
        path: target.display().to_string(),
        source: errno.into(),
    })?;
    match rustix::fs::flock(top.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => refused(
            "TargetBusy",
            format!(
                "another restore is writing into {}: wait for it, or choose another directory",
                target.display()
            ),
        ),
        // A filesystem without locks; the markers still tell a killed restore from a finished one.
        Ok(()) | Err(_) => Ok(top),
    }
}

fn unusable(target: &Path, error: &RootError) -> Error {
    Error::Restore {
        reason: "TargetUnusable",
        detail: format!("{}: {error}", target.display()),
    }
}

/// What may stand in the target, given what does.
fn mode_of(
    root: &Root,
    subject: &Subject,
    target: &Path,
    options: &RestoreOptions,
) -> Result<(Mode, Option<String>)> {
    let shown = target.display();
    let top = root.top();
    let standing = top.and_then(|top| marker::standing(&top, &subject.snapshot, &subject.path));
    let standing = standing.map_err(|errno| Error::Io {
        what: "look into target",
        path: shown.to_string(),
        source: errno.into(),
    })?;
    let in_place = if options.delete {
        Mode::InPlaceDelete
    } else {
        Mode::InPlace
    };
    match standing {
        Standing::SameRestore(nonce) if options.in_place => Ok((in_place, Some(nonce))),
        Standing::SameRestore(nonce) => Ok((Mode::Resume, Some(nonce))),
        Standing::Empty if !options.in_place => Ok((Mode::Fresh, None)),
        _ if options.in_place => Ok((in_place, None)),
        Standing::OtherRestore(other) => refused(
            "TargetNotEmpty",
            format!(
                "{shown} holds an unfinished restore of something else ({other}); finish that one, \
                 choose a new or empty directory, or use --in-place to write over what differs"
            ),
        ),
        Standing::Occupied(name) => refused(
            "TargetNotEmpty",
            format!(
                "{shown} is not empty (it has {name}); choose a new or empty directory, or use \
                 --in-place to write over what differs (files that the snapshot does not have stay, \
                 unless --delete)"
            ),
        ),
        // Empty and not in place is above.
        Standing::Empty => Ok((in_place, None)),
    }
}

#[cfg(test)]
mod tests;
