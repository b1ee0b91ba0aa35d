//! The store: names to bytes, durable when a put returns. The only module that calls object_store.
//!
//! Every operation ends within the request limit T (default 300 s), its retries included: whoever
//! lost the claim 2 T ago has no request under way any more. Cheap to clone; all methods may be called
//! at the same time. Putting a name again with the same bytes is harmless; nothing else is ever done.

use crate::repo::connect::{Directory, check_options, connect};
use crate::repo::direct::read_range;
use crate::repo::error::{RepoError, Result};
use crate::repo::local::is_staged;
use crate::repo::metrics::{Operation, StoreMetrics};
use crate::repo::retry::{RetryPolicy, WRITE, is_transient, is_whole_answer, meaning};
use crate::repo::url::StoreUrl;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use holdfast_format::names::{ObjectName, REPOSITORY};
use holdfast_runtime::backoff::Backoff;
use object_store::path::Path;
use object_store::{
    Error as StoreError, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload,
};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod options;

pub use options::StoreOptions;

/// Most bytes of an object that [`Store::get`] brings into memory.
pub const MAX_GET_BYTES: u64 = holdfast_format::pack::MAX_PACK_BYTES;

/// A store of objects.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Where it is a directory.
    directory: Option<Arc<std::path::Path>>,
    url: Arc<str>,
    limit: Duration,
    retry: RetryPolicy,
    metrics: StoreMetrics,
}

/// One object of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its name, as the store has it.
    pub text: String,
    /// The same, where it is a name of ours.
    pub name: Option<ObjectName>,
    /// Its bytes.
    pub size: u64,
    /// When the store says that it was written, nanoseconds since the epoch; for people only.
    pub modified_ns: i64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.url)
    }
}

impl Store {
    /// The store at this URL or path. A directory must exist.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self> {
        Self::connect(url, options, Directory::MustExist)
    }

    /// The same; a directory that is not there is made, 0700.
    pub fn open_or_create(url: &str, options: &StoreOptions) -> Result<Self> {
        Self::connect(url, options, Directory::MayBeMade)
    }

    fn connect(url: &str, options: &StoreOptions, directory: Directory) -> Result<Self> {
        let url = StoreUrl::parse(url)?;
        check_options(&url, options)?;
        let objects = connect(&url, options, directory)?;
        let mut store = Self::assemble(objects, &url.display(), options);
        if let StoreUrl::Directory(path) = url {
            store.directory = Some(path.into());
        }
        Ok(store)
    }

    /// A store over any object store: for faults and recordings in tests.
    pub fn from_object_store(
        objects: Arc<dyn ObjectStore>,
        name: &str,
        options: &StoreOptions,
    ) -> Self {
        Self::assemble(objects, name, options)
    }

    fn assemble(objects: Arc<dyn ObjectStore>, url: &str, options: &StoreOptions) -> Self {
        Self {
            objects,
            directory: None,
            url: url.into(),
            limit: options.request_limit,
            retry: options.retry,
            metrics: StoreMetrics::new(&options.metrics.clone().unwrap_or_default()),
        }
    }

    /// Where it is; never holds a credential.
    pub fn url_redacted(&self) -> &str {
        &self.url
    }

    /// Whether a small read costs no more than a large one.
    pub fn is_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// T: no operation takes longer.
    pub fn request_limit(&self) -> Duration {
        self.limit
    }

    /// Stores an object. Durable when it returns; invisible where it fails, unless the answer was lost.
    /// Only `repo::writer` and tests call this.
    pub async fn put(&self, name: &ObjectName, payload: impl Into<PutPayload>) -> Result<()> {
        let payload = payload.into();
        let name = name.to_string();
        let path = Path::from(name.as_str());
        let length = payload.content_length() as u64;
        self.run(Operation::Put, WRITE, &name, || async {
            self.objects.put(&path, payload.clone()).await.map(|_| ())
        })
        .await?;
        self.metrics.written(length);
        Ok(())
    }

    /// A whole object of at most [`MAX_GET_BYTES`].
    pub async fn get(&self, name: &ObjectName) -> Result<Bytes> {
        self.get_limited(name, MAX_GET_BYTES).await
    }

    /// A whole object of at most `limit` bytes; a larger one is damaged, and is not read.
    pub async fn get_limited(&self, name: &ObjectName, limit: u64) -> Result<Bytes> {
        let name = name.to_string();
        let path = Path::from(name.as_str());
        let read = self
            .run(Operation::Get, "read", &name, || async {
                let result = self.objects.get_opts(&path, GetOptions::default()).await?;
                let size = result.meta.size;
                if size > limit {
                    return Ok(Err(size));
                }
                result.bytes().await.map(|bytes| Ok((bytes, size)))
            })
            .await?;
        match read {
            Ok((bytes, size)) => {
                self.metrics.read(bytes.len() as u64);
                check_length(&name, size, bytes.len() as u64)?;
                Ok(bytes)
            }
            Err(size) => Err(RepoError::ObjectDamaged {
                name,
                detail: format!("{size} bytes, above the limit of {limit}"),
            }),
        }
    }

    /// The same bytes as [`Store::get_range`], read on the calling thread, which must be one that may
    /// block: handing a small read to another thread costs more than the read. `None` where the store
    /// is no directory or anything is wrong, which `get_range` then finds out.
    pub fn read_here(&self, name: &ObjectName, range: &Range<u64>) -> Option<Bytes> {
        let path = self.directory.as_ref()?.join(name.to_string());
        let started = Instant::now();
        let file = std::fs::File::open(path).ok()?;
        let bytes = read_range(&file, range.clone()).ok()?;
        self.metrics
            .ended(Operation::Get, &Ok(()), started.elapsed());
        self.metrics.read(bytes.len() as u64);
        Some(bytes)
    }

    /// These bytes of an object, all of them: a range past its end is [`RepoError::ObjectTruncated`].
    pub async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let name = name.to_string();
        let path = Path::from(name.as_str());
        let wanted = range.end - range.start;
        let result = self
            .run(Operation::Get, "read", &name, || async {
                let options = GetOptions {
                    range: Some(GetRange::Bounded(range.clone())),
                    ..GetOptions::default()
                };
                match self.objects.get_opts(&path, options).await {
                    // Some servers answer a range that covers the object with the object.
                    Err(error) if is_whole_answer(&error) => {
                        let whole = self.objects.get_opts(&path, GetOptions::default()).await?;
                        if whole.meta.size > MAX_GET_BYTES {
                            return Err(error);
                        }
                        let whole = whole.bytes().await?;
                        let end = whole
                            .len()
                            .min(usize::try_from(range.end).unwrap_or(usize::MAX));
                        let start = end.min(usize::try_from(range.start).unwrap_or(usize::MAX));
                        Ok(whole.slice(start..end))
                    }
                    answer => answer?.bytes().await,
                }
            })
            .await;
        match result {
            Ok(bytes) if bytes.len() as u64 == wanted => {
                self.metrics.read(wanted);
                Ok(bytes)
            }
            Ok(bytes) if bytes.len() as u64 > wanted => Err(RepoError::ObjectDamaged {
                name,
                detail: "the store sent more bytes than were asked for".into(),
            }),
            Ok(bytes) => Err(RepoError::ObjectTruncated {
                expected: range.end,
                found: range.start + bytes.len() as u64,
                name,
            }),
            Err(error @ (RepoError::StoreUnavailable { .. } | RepoError::StoreRefused { .. })) => {
                // A range that starts past the end fails in a way of each store's own.
                match self.head(&name).await {
                    Ok(found) if found < range.end => Err(RepoError::ObjectTruncated {
                        name,
                        expected: range.end,
                        found,
                    }),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Bytes of an object, by asking for nothing else.
    pub async fn size(&self, name: &ObjectName) -> Result<u64> {
        self.head(&name.to_string()).await
    }

    async fn head(&self, name: &str) -> Result<u64> {
        let path = Path::from(name);
        self.run(Operation::Head, "look at", name, || async {
            self.objects.head(&path).await.map(|meta| meta.size)
        })
        .await
    }

    /// Removes an object, durably. One that is not there is removed already.
    pub async fn delete(&self, name: &ObjectName) -> Result<()> {
        let name = name.to_string();
        let path = Path::from(name.as_str());
        let deleted = self
            .run(Operation::Delete, "delete", &name, || async {
                self.objects.delete(&path).await
            })
            .await;
        match deleted {
            Err(RepoError::ObjectMissing { .. }) => Ok(()),
            other => other,
        }
    }

    /// All objects whose names begin with `prefix`, which ends with a slash or is empty. In no order.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let path = Path::from(prefix);
        let path = (!prefix.is_empty()).then_some(&path);
        self.run(Operation::List, "list", &shown(prefix), || async {
            let listing = self.objects.list(path);
            listing.map_ok(listed).try_collect().await
        })
        .await
    }

    /// The same one by one, for listings that may not fit in memory. A listing that breaks in the
    /// middle goes on after the last name where the store lists in order.
    pub fn list_stream(&self, prefix: &str) -> BoxStream<'static, Result<Listed>> {
        let start = Walk {
            store: self.clone(),
            prefix: prefix.to_owned(),
            listing: None,
            last: None,
            ordered: true,
            failures: 0,
            backoff: Backoff::new(self.retry.backoff),
        };
        futures::stream::try_unfold(start, |mut walk| async move {
            Ok(walk.next().await?.map(|found| (found, walk)))
        })
        .boxed()
    }

    /// Something that is there, ours or not. In a directory everything counts, even what is no object,
    /// but for `lost+found` and what a creation that was killed leaves.
    pub async fn first_found(&self) -> Result<Option<String>> {
        if let Some(root) = self.directory.clone() {
            let looking = tokio::task::spawn_blocking(move || first_in_directory(&root));
            return looking.await.map_err(|_| RepoError::Internal {
                doing: "look at a directory",
            })?;
        }
        let mut listing = std::pin::pin!(self.list_stream(""));
        Ok(listing.try_next().await?.map(|found| found.text))
    }

    /// Tries until it succeeds, cannot succeed, or the limit is over.
    async fn run<T, F>(
        &self,
        operation: Operation,
        verb: &str,
        name: &str,
        attempt: impl Fn() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let started = Instant::now();
        let mut backoff = Backoff::new(self.retry.backoff);
        let mut tries = 0;
        let outcome = loop {
            let left = self.limit.saturating_sub(started.elapsed());
            let error = match tokio::time::timeout(left, attempt()).await {
                Ok(Ok(done)) => break Ok(done),
                Ok(Err(error)) => error,
                Err(_) => break Err(self.too_long(verb, name)),
            };
            tries += 1;
            let wait = backoff.next_wait();
            let time_left = self.limit.saturating_sub(started.elapsed());
            if !is_transient(&error) || tries >= self.retry.tries || wait >= time_left {
                break Err(meaning(error, verb, name));
            }
            self.metrics.retried(operation);
            tracing::warn!(store = &*self.url, object = name, %error, tries, "{verb} failed; trying again");
            tokio::time::sleep(wait).await;
        };
        self.metrics.ended(operation, &outcome, started.elapsed());
        outcome
    }

    fn too_long(&self, verb: &str, name: &str) -> RepoError {
        RepoError::StoreUnavailable {
            doing: format!("{verb} {name}"),
            source: format!("no success within {} s", self.limit.as_secs()).into(),
        }
    }
}

fn first_in_directory(root: &std::path::Path) -> Result<Option<String>> {
    let failed = |error| RepoError::io("list directory", root, error);
    for found in std::fs::read_dir(root).map_err(failed)? {
        let found = found.map_err(failed)?;
        let name = found.file_name();
        let ours = name == REPOSITORY.trim_end_matches('/') && only_staged(&found.path());
        if name != "lost+found" && !ours {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// Whether a directory holds nothing but files that were being put.
fn only_staged(dir: &std::path::Path) -> bool {
    let Ok(mut found) = std::fs::read_dir(dir) else {
        return false;
    };
    found.all(|entry| entry.is_ok_and(|entry| is_staged(&entry.file_name())))
}

/// A listing on its way.
struct Walk {
    store: Store,
    prefix: String,
    listing: Option<BoxStream<'static, object_store::Result<ObjectMeta>>>,
    last: Option<Path>,
    ordered: bool,
    failures: u32,
    backoff: Backoff,
}

impl Walk {
    async fn next(&mut self) -> Result<Option<Listed>> {
        loop {
            let listing = match &mut self.listing {
                Some(listing) => listing,
                None => {
                    let started = self.start();
                    self.listing.insert(started)
                }
            };
            let next = tokio::time::timeout(self.store.limit, listing.next()).await;
            let error = match next {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(meta))) => {
                    let rising = self.last.as_ref().is_none_or(|last| *last < meta.location);
                    self.ordered &= rising;
                    self.last = Some(meta.location.clone());
                    self.failures = 0;
                    return Ok(Some(listed(meta)));
                }
                Ok(Some(Err(error))) => error,
                Err(_) => return Err(self.store.too_long("list", &shown(&self.prefix))),
            };
            self.failures += 1;
            let resumable = self.ordered || self.last.is_none();
            if !resumable || !is_transient(&error) || self.failures >= self.store.retry.tries {
                return Err(meaning(error, "list", &shown(&self.prefix)));
            }
            self.store.metrics.retried(Operation::List);
            tokio::time::sleep(self.backoff.next_wait()).await;
            self.listing = None;
        }
    }

    fn start(&self) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let path = Path::from(self.prefix.as_str());
        let prefix = (!self.prefix.is_empty()).then_some(&path);
        match &self.last {
            Some(last) => self.store.objects.list_with_offset(prefix, last),
            None => self.store.objects.list(prefix),
        }
    }
}

fn listed(meta: ObjectMeta) -> Listed {
    let text = meta.location.to_string();
    Listed {
        name: text.parse().ok(),
        text,
        size: meta.size,
        modified_ns: meta.last_modified.timestamp_nanos_opt().unwrap_or(0),
    }
}

fn shown(prefix: &str) -> String {
    match prefix {
        "" => "the store".into(),
        prefix => prefix.to_owned(),
    }
}

fn check_length(name: &str, expected: u64, found: u64) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(RepoError::ObjectTruncated {
        name: name.to_owned(),
        expected,
        found,
    })
}

/// Items of a stream, a few at a time: for reading many small objects.
pub(super) fn several<S>(stream: S) -> impl Stream<Item = <S::Item as Future>::Output>
where
    S: Stream,
    S::Item: Future,
{
    stream.buffer_unordered(16)
}

#[cfg(test)]
mod tests;
