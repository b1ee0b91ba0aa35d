//! The problems of a run, sent at its end in tree order, however many there are.

use crate::error::{Error, ItemProblem, Result};
use crate::index::ScratchMap;
use crate::upload::Outgoing;
use holdfast_format::codec::{decode_problem, encode_problem};
use holdfast_format::path::RelPath;
use holdfast_format::wire::problem_to_wire;
use holdfast_proto::v1 as proto;
use proto::upload_request::Body;
use std::path::Path;

/// Memory for problems before they move to disk.
const PROBLEMS_BYTES: usize = 4 << 20;
/// Most problems of one message.
const AT_ONCE: usize = 500;
/// Longest detail.
const DETAIL_BYTES: usize = 512;

/// Gathers problems; one per path, the first one counts.
#[derive(Debug)]
pub struct Problems {
    rows: ScratchMap,
    since_ns: i64,
    carried_over: bool,
}

impl Problems {
    /// None yet; all of them will have been seen since this time.
    pub fn new(since_ns: i64, directory: &Path) -> Self {
        Self {
            rows: ScratchMap::new(PROBLEMS_BYTES, directory),
            since_ns,
            carried_over: false,
        }
    }

    /// One more.
    pub fn add(&mut self, path: &RelPath, problem: ItemProblem, carried_over: bool) -> Result<()> {
        self.carried_over |= carried_over;
        let key = path.to_key();
        if self.rows.get(&key)?.is_some() {
            return Ok(());
        }
        let mut problem = problem.into_problem(carried_over, self.since_ns);
        let end = problem.detail.floor_char_boundary(DETAIL_BYTES);
        problem.detail.truncate(end);
        Ok(self.rows.insert(key, encode_problem(&problem)?)?)
    }

    /// Sends all of them; whether any stands for something carried over.
    pub fn send(mut self, outgoing: &Outgoing) -> Result<bool> {
        let mut some = Vec::new();
        let mut bytes = 0;
        self.rows.drain(|key, stored| {
            let path = RelPath::from_key(key)?;
            let problem = decode_problem(stored)?;
            bytes += stored.len() + key.len();
            some.push(problem_to_wire(&path, &problem));
            if some.len() >= AT_ONCE || bytes >= 512 * 1024 {
                let problems = std::mem::take(&mut some);
                give(outgoing, problems, std::mem::take(&mut bytes))?;
            }
            Ok::<(), Error>(())
        })?;
        give(outgoing, some, bytes)?;
        Ok(self.carried_over)
    }
}

fn give(outgoing: &Outgoing, problems: Vec<proto::Problem>, bytes: usize) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    outgoing.send(Body::Problems(proto::Problems { problems }), bytes as u64)
}
