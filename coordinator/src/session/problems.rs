//! The problems tree of a run: path → problem, with the time of the first run that saw it. Built anew by
//! every run, on a blocking thread while the problems arrive.

use crate::browse::Nodes;
use crate::error::{Error, Result};
use crate::session::Session;
use crate::session::node_store::{NodeStore, Stored};
use crate::session::pack_pool::Domain;
use crate::session::run::Run;
use holdfast_format::codec::{decode_problem, encode_problem};
use holdfast_format::entry::Problem;
use holdfast_format::id::NodeId;
use holdfast_format::path::RelPath;
use holdfast_format::snapshot::MAX_FIRST_PROBLEMS;
use holdfast_format::tree::{Lookup, TreeBuilder};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Batches of problems that wait for the thread.
const AHEAD: usize = 4;

type Batch = Option<Vec<(RelPath, Problem)>>;

/// A thread that builds the tree.
pub struct ProblemsTask {
    batches: mpsc::Sender<Batch>,
    thread: JoinHandle<Result<Problems>>,
}

/// The finished tree.
#[derive(Default)]
pub struct Problems {
    /// Its root; `None` without problems.
    pub root: Option<NodeId>,
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub first: Vec<(RelPath, Problem)>,
    /// Where its nodes went.
    pub stored: Stored,
}

impl Session {
    /// Hands problems to the tree of problems.
    pub(super) async fn take_problems(
        &self,
        run: &mut Run,
        problems: Vec<(RelPath, Problem)>,
    ) -> Result<()> {
        let task = match &mut run.problems {
            Some(task) => task,
            None => run.problems.insert(ProblemsTask::start(self)),
        };
        match task.batches.send(Some(problems)).await {
            Ok(()) => Ok(()),
            Err(_) => match (&mut task.thread).await {
                Ok(Err(error)) => Err(error),
                Ok(Ok(_)) | Err(_) => Err(Error::internal("store problems")),
            },
        }
    }
}

impl ProblemsTask {
    fn start(session: &Session) -> Self {
        let (batches, receiver) = mpsc::channel(AHEAD);
        let nodes = Nodes::new(session.core.library.clone());
        let store = NodeStore::new(session);
        let domain = session.domain.clone();
        let parent = session
            .parent
            .as_ref()
            .and_then(|parent| parent.problems_root);
        let started_ns = session.started_ns;
        let thread = tokio::task::spawn_blocking(move || {
            let before = parent
                .as_ref()
                .map(|root| Lookup::new(&domain.ids, &nodes, root));
            build(&domain, before, started_ns, receiver, store)
        });
        Self { batches, thread }
    }

    /// All problems have been sent.
    pub async fn finish(self) -> Result<Problems> {
        // A thread that has failed says so itself.
        let _ = self.batches.send(None).await;
        match self.thread.await {
            Ok(problems) => problems,
            Err(_) => Err(Error::internal("store problems")),
        }
    }
}

fn build(
    domain: &Domain,
    mut before: Option<Lookup<'_, Nodes>>,
    started_ns: i64,
    mut batches: mpsc::Receiver<Batch>,
    mut store: NodeStore,
) -> Result<Problems> {
    let mut tree = TreeBuilder::new(&domain.ids, &mut store);
    let mut found = Problems::default();
    loop {
        let batch = batches.blocking_recv().ok_or_else(|| Error::Cancelled {
            detail: "the upload broke off".into(),
        })?;
        let Some(batch) = batch else { break };
        for (path, mut problem) in batch {
            let key = path.to_key();
            problem.since_ns = match &mut before {
                Some(before) => since(before, &key, &problem)?.unwrap_or(started_ns),
                None => started_ns,
            };
            tree.push(&key, &encode_problem(&problem)?)?;
            found.count += 1;
            if found.first.len() < MAX_FIRST_PROBLEMS {
                found.first.push((path, problem));
            }
        }
    }
    let root = tree.finish()?;
    found.root = (found.count > 0).then_some(root.id);
    found.stored = store.finish()?;
    Ok(found)
}

/// Since when the path has had the same problem.
fn since(before: &mut Lookup<'_, Nodes>, key: &[u8], now: &Problem) -> Result<Option<i64>> {
    let Some(value) = before.get(key)? else {
        return Ok(None);
    };
    let old = decode_problem(&value)?;
    Ok((old.reason == now.reason).then_some(old.since_ns))
}
