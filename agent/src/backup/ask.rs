//! Asks the coordinator which chunks the volume does not hold: parts gather while a question is on its
//! way, so that many are asked at once and a slow network costs little.

use super::pool::Part;
use super::shared::Shared;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::upload::SessionRef;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use holdfast_format::wire::MAX_ASKED_CHUNKS;
use holdfast_proto::v1 as proto;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Questions on their way at once.
const AT_ONCE: usize = 3;

/// Answers every part that comes, until no more can come or the run ends.
pub async fn answer(
    client: Client,
    session: SessionRef,
    shared: Arc<Shared>,
    mut parts: mpsc::UnboundedReceiver<Part>,
) {
    let mut asked = FuturesUnordered::new();
    let mut waiting: Option<Part> = None;
    let mut open = true;
    while open || !asked.is_empty() || waiting.is_some() {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            Some(answered) = asked.next(), if !asked.is_empty() => {
                match answered {
                    Ok(answered) => {
                        for part in answered {
                            shared.pool.compress(part);
                        }
                    }
                    Err(error) => return shared.fail(error),
                }
            }
            part = parts.recv(), if open && waiting.is_none() && asked.len() < AT_ONCE => {
                match part {
                    Some(part) => waiting = Some(part),
                    None => open = false,
                }
            }
        }
        if asked.len() < AT_ONCE
            && let Some(first) = waiting.take()
        {
            let mut together = vec![first];
            let mut count = wanted(&together[0]);
            while let Ok(part) = parts.try_recv() {
                count += wanted(&part);
                if count > MAX_ASKED_CHUNKS {
                    waiting = Some(part);
                    break;
                }
                together.push(part);
            }
            asked.push(ask(&client, &session, together));
        }
    }
}

fn wanted(part: &Part) -> usize {
    part.chunks.iter().filter(|chunk| chunk.wanted).count()
}

/// One question (or a few, where a single part has more chunks than one may hold).
async fn ask(client: &Client, session: &SessionRef, mut parts: Vec<Part>) -> Result<Vec<Part>> {
    let places: Vec<(usize, usize)> = parts
        .iter()
        .enumerate()
        .flat_map(|(part, it)| {
            let chunks = it.chunks.iter().enumerate();
            chunks
                .filter(|(_, chunk)| chunk.wanted)
                .map(move |(chunk, _)| (part, chunk))
        })
        .collect();
    for places in places.chunks(MAX_ASKED_CHUNKS) {
        let ids: Vec<u8> = places
            .iter()
            .flat_map(|(part, chunk)| *parts[*part].chunks[*chunk].id.as_bytes())
            .collect();
        let ids = Bytes::from(ids);
        let request = proto::FindMissingRequest {
            session: session.session.clone(),
            lease_epoch: session.lease_epoch,
            chunks: (0..places.len())
                .map(|at| ids.slice(at * 32..at * 32 + 32))
                .collect(),
        };
        let reply = client.find_missing(request).await?;
        let mut missing = vec![false; places.len()];
        for at in reply.missing {
            match missing.get_mut(at as usize) {
                Some(missing) => *missing = true,
                None => {
                    return Err(Error::Protocol {
                        what: "ask which chunks are missing",
                        rule: "the answer names what was not asked".to_owned(),
                    });
                }
            }
        }
        for ((part, chunk), missing) in places.iter().zip(missing) {
            parts[*part].chunks[*chunk].wanted = missing;
        }
    }
    Ok(parts)
}
