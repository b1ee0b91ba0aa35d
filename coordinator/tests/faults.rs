//! A store that fails at its n-th put, for every n: the agent tries again, and there is one snapshot,
//! whole.

mod support;

use holdfast_coordinator::repo::{Repository, RetryPolicy, Store, StoreOptions};
use holdfast_coordinator::{Coordinator, CoordinatorSettings};
use holdfast_format::keys::Kek;
use holdfast_runtime::clock::SystemClock;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use support::*;

/// Fails every put from the n-th on, until it is mended.
#[derive(Debug)]
struct Failing {
    inner: LocalFileSystem,
    puts_left: AtomicI64,
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failing")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Failing {
    async fn put_opts(&self, at: &Path, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        if self.puts_left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(object_store::Error::Generic {
                store: "failing",
                source: "injected".into(),
            });
        }
        self.inner.put_opts(at, payload, o).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        o: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, o).await
    }

    async fn get_opts(&self, at: &Path, o: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, o).await
    }

    fn delete_stream(
        &self,
        at: futures::stream::BoxStream<'static, Result<Path>>,
    ) -> futures::stream::BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, at: Option<&Path>) -> futures::stream::BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(at)
    }

    async fn list_with_delimiter(&self, at: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(at).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, o: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, o).await
    }
}

async fn open(
    dir: &std::path::Path,
    store: &Arc<Failing>,
) -> holdfast_coordinator::Result<Arc<Coordinator>> {
    let options = StoreOptions {
        retry: RetryPolicy::once(),
        ..StoreOptions::default()
    };
    let store = Store::from_object_store(store.clone(), "failing", &options);
    let repository = Repository::open(store, Kek::from_bytes(KEK)).await?;
    let settings = CoordinatorSettings::new(dir.join("state"));
    Coordinator::open(settings, repository, Arc::new(SystemClock::new())).await
}

/// One try of the same run: begin, send everything, commit.
async fn one_try(bench: &Bench, bytes: &[u8]) -> std::result::Result<Vec<u8>, tonic::Status> {
    let mut agent = Agent::try_begin(bench, begin_request("web", 1)).await?;
    if !agent.begun.committed.is_empty() {
        return Ok(agent.begun.committed.to_vec());
    }
    agent.put(dir(""));
    let content = agent.send_content(bytes);
    agent.put(extents("a", content));
    agent.put(inline("b", b"small"));
    agent.finish().await.map(|info| info.id.to_vec())
}

async fn with_fault(after: i64) -> bool {
    let bench = Bench::new().await;
    bench.coordinator.shutdown().await.unwrap();
    let dir = bench.dir;
    let inner = LocalFileSystem::new_with_prefix(dir.path().join("store")).unwrap();
    let store = Arc::new(Failing {
        inner,
        puts_left: AtomicI64::new(i64::MAX),
    });
    let coordinator = open(dir.path(), &store).await.unwrap();
    let bench = Bench {
        channel: connect(&coordinator).await,
        coordinator,
        dir,
    };
    let bytes = noise(5, 2 << 20);
    store.puts_left.store(after, Ordering::SeqCst);
    let failed = one_try(&bench, &bytes).await;
    if let Err(error) = &failed {
        assert_eq!(reason(error), "StoreUnavailable", "{}", error.message());
    }
    assert!(bench.objects("snapshots").len() <= 1);
    store.puts_left.store(i64::MAX, Ordering::SeqCst);
    let id = one_try(&bench, &bytes).await.unwrap();
    assert_eq!(
        bench.objects("snapshots").len(),
        1,
        "one snapshot, whatever failed"
    );
    let back = read_back(&bench, &id).await;
    assert_eq!((&back["a"], &back["b"][..]), (&bytes, &b"small"[..]));
    failed.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_anywhere_costs_a_retry_and_nothing_else() {
    let mut faults = 0;
    for after in 0.. {
        if !with_fault(after).await {
            break;
        }
        faults += 1;
    }
    assert!(
        faults >= 4,
        "keys, marks, packs and the record are put: {faults}"
    );
}
