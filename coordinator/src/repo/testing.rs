//! For the tests of this module: a store that fails when it is told to, and quick options.

use crate::repo::retry::RetryPolicy;
use crate::repo::store::StoreOptions;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use holdfast_runtime::backoff::BackoffPolicy;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

/// Options with waits that a test can bear.
pub(crate) fn quick() -> StoreOptions {
    StoreOptions {
        retry: RetryPolicy {
            tries: 4,
            backoff: BackoffPolicy {
                initial: Duration::from_millis(1),
                max: Duration::from_millis(2),
                factor: 2.0,
            },
        },
        ..StoreOptions::default()
    }
}

type Fault = Arc<dyn Fn() -> Error + Send + Sync>;

/// Faults to choose from.
pub(crate) mod fail {
    use super::*;

    pub(crate) fn errno(code: i32) -> Fault {
        Arc::new(move || Error::Generic {
            store: "faulty",
            source: Box::new(std::io::Error::from_raw_os_error(code)),
        })
    }

    pub(crate) fn status(code: u16) -> Fault {
        Arc::new(move || Error::Generic {
            store: "faulty",
            source: format!("Server returned non-2xx status code: {code} Words: x").into(),
        })
    }

    pub(crate) fn denied() -> Fault {
        Arc::new(|| Error::PermissionDenied {
            path: "x".into(),
            source: "no".into(),
        })
    }
}

/// Passes requests on, unless told otherwise.
pub(crate) struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    calls: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: usize,
    fault: Option<Fault>,
    hang: bool,
    /// Calls that still succeed before all fail.
    left: Option<usize>,
    turns: bool,
    listing: Option<usize>,
}

impl FaultStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            inner,
            calls: AtomicUsize::new(0),
            state: Mutex::default(),
        }
    }

    pub(crate) fn fail_next(&self, failures: usize, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.failures = failures;
        state.fault = Some(fault);
    }

    pub(crate) fn heal(&self) {
        *self.state.lock().unwrap() = State::default();
    }

    /// So many calls succeed, then all fail.
    pub(crate) fn fail_after(&self, calls: usize) {
        self.state.lock().unwrap().left = Some(calls);
    }

    pub(crate) fn hang(&self) {
        self.state.lock().unwrap().hang = true;
    }

    /// Every request waits for one poll: a test that polls by hand decides the order of requests.
    pub(crate) fn take_turns(&self) {
        self.state.lock().unwrap().turns = true;
    }

    /// The next listing fails after so many objects.
    pub(crate) fn break_listing_after(&self, objects: usize) {
        self.state.lock().unwrap().listing = Some(objects);
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn fate(&self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let hang = self.state.lock().unwrap().hang;
        if hang {
            std::future::pending::<()>().await;
        }
        self.turn().await;
        let mut state = self.state.lock().unwrap();
        if let Some(left) = &mut state.left {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => return Err(fail::errno(5)()),
            }
        }
        if state.failures > 0 {
            state.failures -= 1;
            if let Some(fault) = &state.fault {
                return Err(fault());
            }
        }
        Ok(())
    }

    fn turn(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut waited = !self.state.lock().unwrap().turns;
        std::future::poll_fn(move |context| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }

    fn broken(
        &self,
        listing: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let mut state = self.state.lock().unwrap();
        if let Some(left) = &mut state.left {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => return futures::stream::once(async { Err(fail::errno(5)()) }).boxed(),
            }
        }
        match state.listing.take() {
            None => listing,
            Some(objects) => {
                let fault = futures::stream::once(async { Err(fail::status(503)()) });
                listing.take(objects).chain(fault).boxed()
            }
        }
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultStore")
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultStore")
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.fate().await?;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.fate().await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, turn) = (self.inner.clone(), self.turn());
        futures::stream::once(async move {
            turn.await;
            inner.delete_stream(locations)
        })
        .flatten()
        .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, prefix) = (self.inner.clone(), prefix.cloned());
        let turn = self.turn();
        let listing = futures::stream::once(async move {
            turn.await;
            // What is listed is decided when the turn has come.
            inner.list(prefix.as_ref())
        })
        .flatten()
        .boxed();
        self.broken(listing)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.broken(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
