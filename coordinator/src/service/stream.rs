//! Streams of replies: what a walk sends, encoded as it goes out.

use super::status;
use crate::browse::Results;
use futures::Stream;
use std::pin::Pin;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

/// A stream of replies.
pub(super) type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A reply for everything in the stream; an error ends it.
pub(super) fn reply<T, R>(
    results: Results<T>,
    mut encode: impl FnMut(T) -> R + Send + 'static,
) -> Response<Replies<R>>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let results = ReceiverStream::new(results);
    let encoded = results.map(move |result| result.map(&mut encode).map_err(status));
    Response::new(Box::pin(encoded))
}
