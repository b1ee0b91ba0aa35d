//! The store in a local directory: what `LocalFileSystem` leaves out for a repository.
//!
//! Files are 0600 and directories 0700 whatever the umask; a put is durable (file, then every directory
//! it made or changed) before it is visible as done; so is a delete. Directories are never removed, so
//! a put cannot lose its directory to a delete. Reads and listings are `LocalFileSystem`'s.

use crate::repo::direct::{DIRECT_FROM, read_range, write_parts};
use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const STORE: &str = "local directory";

/// A directory as an object store.
#[derive(Clone, Debug)]
pub(super) struct LocalDirectory {
    files: Arc<LocalFileSystem>,
    root: PathBuf,
}

impl LocalDirectory {
    /// The store in `root`, which exists.
    pub(super) fn new(root: &Path) -> Result<Self> {
        let root = std::fs::canonicalize(root).map_err(generic)?;
        let files = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        Ok(Self {
            files: Arc::new(files),
            root,
        })
    }
}

impl std::fmt::Display for LocalDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for LocalDirectory {
    async fn put_opts(
        &self,
        location: &ObjectPath,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if options.mode != PutMode::Overwrite {
            // Nothing here depends on conditional writes.
            return Err(Error::NotImplemented {
                operation: "conditional put".into(),
                implementer: STORE.into(),
            });
        }
        let path = self.files.path_to_filesystem(location)?;
        let root = self.root.clone();
        blocking(move || write_durably(&root, &path, &payload)).await?;
        Ok(PutResult {
            e_tag: None,
            version: None,
            extensions: Default::default(),
        })
    }

    async fn put_multipart_opts(
        &self,
        _: &ObjectPath,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented {
            operation: "multipart put".into(),
            implementer: STORE.into(),
        })
    }

    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        let ranged = options.range.is_some();
        let found = self.files.get_opts(location, options).await?;
        let length = found.range.end.saturating_sub(found.range.start);
        match found.payload {
            // Callers ask for ranges that they can hold.
            GetResultPayload::File(file, _) if ranged && length >= DIRECT_FROM as u64 => {
                let range = found.range.clone();
                let bytes = blocking(move || read_range(&file, range)).await?;
                let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
                Ok(GetResult { payload, ..found })
            }
            payload => Ok(GetResult { payload, ..found }),
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        let files = self.files.clone();
        locations
            .and_then(move |location| {
                let files = files.clone();
                async move {
                    let path = files.path_to_filesystem(&location)?;
                    let removed = {
                        let path = path.clone();
                        blocking(move || {
                            std::fs::remove_file(&path)?;
                            sync_parent(&path)
                        })
                        .await
                    };
                    match removed {
                        Ok(()) => Ok(location),
                        Err(error) => Err(not_found_or(error, &path)),
                    }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &ObjectPath, _: &ObjectPath, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented {
            operation: "copy".into(),
            implementer: STORE.into(),
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(generic),
        Err(source) => Err(Error::JoinError { source }),
    }
}

fn generic(error: io::Error) -> Error {
    Error::Generic {
        store: STORE,
        source: Box::new(error),
    }
}

fn not_found_or(error: Error, path: &Path) -> Error {
    match error {
        Error::Generic { source, .. }
            if source
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::NotFound) =>
        {
            Error::NotFound {
                path: path.display().to_string(),
                source,
            }
        }
        error => error,
    }
}

/// Temporary name, data, sync, rename, sync of the directory. A failure leaves nothing visible; a
/// failed sync is never tried again on the same file, because its pages may be marked clean.
fn write_durably(root: &Path, path: &Path, payload: &PutPayload) -> io::Result<()> {
    let (file, staged) = stage(root, path)?;
    let parts = payload.iter().map(AsRef::as_ref);
    let written =
        write_parts(&file, parts, payload.content_length()).and_then(|()| file.sync_all());
    drop(file);
    let published = written.and_then(|()| std::fs::rename(&staged, path));
    if let Err(error) = published {
        // Best effort: listings do not see staged files.
        let _ = std::fs::remove_file(&staged);
        return Err(error);
    }
    sync_parent(path)
}

/// A new file beside `path`, under a name that no listing shows.
fn stage(root: &Path, path: &Path) -> io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        // `name#digits` is hidden by `LocalFileSystem`.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut staged = path.as_os_str().to_owned();
        staged.push(format!("#{}{number:06}", std::process::id()));
        let staged = PathBuf::from(staged);
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&staged);
        match opened {
            Ok(file) => return Ok((file, staged)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_parents(root, path)?,
            Err(error) => return Err(error),
        }
    }
}

/// Whether a file is one that was being put.
pub(super) fn is_staged(name: &std::ffi::OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let mark = name.iter().rposition(|byte| *byte == b'#');
    mark.is_some_and(|at| name[at + 1..].iter().all(u8::is_ascii_digit) && at + 1 < name.len())
}

/// Makes the directories between `root` and `path`, each durable. `root` itself is never made here: a
/// directory that went away (an unmounted disk) must not come back empty.
fn make_parents(root: &Path, path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .skip(1)
        .take_while(|dir| *dir != root)
        .collect();
    if !root.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            format!("directory {} is gone", root.display()),
        ));
    }
    for dir in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        // Also where another put has just made it: it may not have synced yet.
        sync_parent(dir)?;
    }
    Ok(())
}

/// Makes changes of the directory that holds `path` durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn objects_are_private_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalDirectory::new(dir.path()).unwrap();
        let name = ObjectPath::from("packs/ab/cd");
        for _ in 0..2 {
            store.put(&name, "bytes".into()).await.unwrap();
        }
        assert_eq!(mode(&dir.path().join("packs/ab/cd")), 0o600);
        assert_eq!(mode(&dir.path().join("packs/ab")), 0o700);
        let names: Vec<_> = std::fs::read_dir(dir.path().join("packs/ab"))
            .unwrap()
            .collect();
        assert_eq!(names.len(), 1);
        store.delete(&name).await.unwrap();
        assert!(matches!(
            store.delete(&name).await,
            Err(Error::NotFound { .. })
        ));
        assert!(dir.path().join("packs/ab").is_dir());
    }

    #[tokio::test]
    async fn a_failed_put_is_invisible_and_a_vanished_root_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("r");
        std::fs::create_dir(&root).unwrap();
        let store = LocalDirectory::new(&root).unwrap();
        // A directory stands where the object must go: the rename fails, after the data was written.
        std::fs::create_dir_all(root.join("marks/x/y")).unwrap();
        assert!(
            store
                .put(&ObjectPath::from("marks/x"), "b".into())
                .await
                .is_err()
        );
        let listed: Vec<_> = store.list(None).collect().await;
        assert!(listed.is_empty(), "{listed:?}");
        assert_eq!(std::fs::read_dir(root.join("marks")).unwrap().count(), 1);
        std::fs::remove_dir_all(&root).unwrap();
        assert!(
            store
                .put(&ObjectPath::from("marks/z"), "b".into())
                .await
                .is_err()
        );
        assert!(!root.exists());
    }
}
