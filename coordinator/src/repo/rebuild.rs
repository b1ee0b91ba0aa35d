//! Builds a catalog from the store alone: what a lost or damaged one is replaced with. Until the new one
//! is whole nothing in the state directory changes. In the store nothing does, but that index segments
//! may be added, so that the next rebuild reads few objects in place of every pack's footer.
//!
//! What only the catalog knew is not there afterwards: open sessions, which begin again, and what
//! volumes hold, which costs uploads of chunks that the repository has and stores once. And nobody knows
//! which packs were lost: every volume's newest snapshot is proven before a run relies on it.

use crate::catalog::{Catalog, CatalogError, DirLock, Mode};
use crate::repo::Repository;
use crate::repo::reconcile::{Index, Progress, ReconcileError, Reconciled, reconcile_new};
use holdfast_format::id::CatalogId;
use std::path::Path;

/// Directory of a catalog that is being built, inside the state directory.
const REBUILD_DIR: &str = "rebuild";

/// The same as [`rebuild`], and writes index segments for packs that none covers: for whoever was asked
/// to rebuild, and may write.
pub async fn rebuild_and_index(
    repository: &Repository,
    dir: &Path,
    id: CatalogId,
    now_ns: i64,
    progress: Progress<'_>,
) -> Result<(Catalog, Reconciled), ReconcileError> {
    let index = Index::SegmentsAndMore;
    rebuild_with(repository, dir, id, now_ns, index, progress).await
}

/// Builds the catalog of `dir` from the store and opens it. The directory's lock is held throughout, so
/// no coordinator runs on it. An earlier catalog is kept as `catalog-replaced.db`. The new one has its id,
/// and so its claims; where that cannot be read it has this `id`, and takes the repository over.
pub async fn rebuild(
    repository: &Repository,
    dir: &Path,
    id: CatalogId,
    now_ns: i64,
    progress: Progress<'_>,
) -> Result<(Catalog, Reconciled), ReconcileError> {
    rebuild_with(repository, dir, id, now_ns, Index::Segments, progress).await
}

async fn rebuild_with(
    repository: &Repository,
    dir: &Path,
    id: CatalogId,
    now_ns: i64,
    index: Index,
    progress: Progress<'_>,
) -> Result<(Catalog, Reconciled), ReconcileError> {
    let work = dir.join(REBUILD_DIR);
    let (owned, begun) = (dir.to_owned(), work.clone());
    let lock = run(dir, move || {
        let lock = DirLock::take(&owned)?;
        // What a killed rebuild left.
        remove(&begun)?;
        Ok(lock)
    })
    .await?;
    let id = match Catalog::open(dir, &repository.id(), Mode::ReadOnly).await {
        Ok(earlier) => {
            let id = earlier.id();
            earlier.close().await?;
            id
        }
        Err(_) => id,
    };
    let catalog = Catalog::create(&work, &repository.id(), id).await?;
    let built = reconcile_new(&catalog, repository, now_ns, index, progress).await;
    // Packs that are gone from the store were known to the lost catalog only.
    let built = match built {
        Ok(found) => catalog
            .doubt_all()
            .await
            .map(|()| found)
            .map_err(ReconcileError::from),
        Err(error) => Err(error),
    };
    let closed = catalog.close().await;
    let found = match built {
        Ok(found) => closed.map(|()| found)?,
        Err(error) => {
            // A part is worth nothing; the error is what the caller needs to see.
            let _ = run(dir, move || remove(&work)).await;
            return Err(error);
        }
    };
    let catalog = Catalog::install(lock, &work, &repository.id()).await?;
    run(dir, move || remove(&work)).await?;
    Ok((catalog, found))
}

async fn run<T: Send + 'static>(
    dir: &Path,
    work: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| {
        Err(CatalogError::Io {
            doing: "prepare",
            path: dir.to_owned(),
            source: std::io::Error::other("task died"),
        })
    })
}

fn remove(dir: &Path) -> Result<(), CatalogError> {
    match std::fs::remove_dir_all(dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(CatalogError::Io {
            doing: "remove",
            path: dir.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
