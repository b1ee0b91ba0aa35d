//! The way to a coordinator: one that runs somewhere, or one in this process over the same services.
//!
//! Everything after this file works on a `Channel` and does not know which it is. This is the only file
//! that sees agent and coordinator, but for `main`, which may have been called by their names.

use crate::args::Global;
use crate::cluster::{find, tunnel};
use crate::create::create_repository;
use crate::failure::{Exit, Failure, Outcome, chain};
use crate::places::check_home;
pub use crate::places::{default_socket, key_file, private_dir, read_passphrase, state_of};
use crate::progress::Progress;
use crate::reach::reach;
use holdfast_agent::client::{Client, windows};
use holdfast_coordinator::catalog::{Catalog, CatalogError, Mode};
pub use holdfast_coordinator::declared::{Loaded, load as load_policies};
use holdfast_coordinator::repo::claim::Waiting;
use holdfast_coordinator::repo::rebuild::{rebuild, rebuild_and_index};
use holdfast_coordinator::repo::reconcile::{ObjectProblem, Step, reconcile_to_read};
use holdfast_coordinator::repo::{Repository, Store, StoreOptions, StoreUrl, kek};
use holdfast_coordinator::settings::{Agents, host_name};
pub use holdfast_coordinator::transport;
use holdfast_coordinator::{
    ContinuousRule, Coordinator, CoordinatorSettings, Error, VolumePattern,
};
use holdfast_format::id::CatalogId;
use holdfast_format::keys::Kek;
use holdfast_format::repository::RepositoryConfig;
use holdfast_runtime::clock::{Clock, SystemClock};
use holdfast_runtime::tls::ClientTls;
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// Bytes in flight on the in-process pipe, each way.
const PIPE_BYTES: usize = 1 << 20;

/// What a command needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading: no claim is taken.
    Read,
    /// Changing: the repository is claimed until `close`.
    Write,
    /// The same; a local repository that does not exist yet is created.
    Create,
}

/// A way to a coordinator.
pub struct Connected {
    /// Where its services are.
    pub channel: Channel,
    /// Where an embedded agent keeps its state; `None` where the coordinator runs elsewhere.
    pub agent_state: Option<PathBuf>,
    /// The embedded coordinator.
    pub coordinator: Option<Arc<Coordinator>>,
}

impl Connected {
    /// Ends an embedded coordinator in order and gives its claim back.
    pub async fn close(self) {
        if let Some(coordinator) = self.coordinator
            && let Err(error) = coordinator.shutdown().await
        {
            eprintln!(
                "holdfast: warning: the repository was not closed in order: {}",
                chain(&error)
            );
        }
    }
}

/// Opens what the options name.
pub async fn open(global: &Global, access: Access) -> Outcome<Connected> {
    open_with(global, access, None).await
}

/// The same; an embedded coordinator backs up the volumes it is told of by itself, before a change is older
/// than this.
pub async fn open_with(
    global: &Global,
    access: Access,
    continuous: Option<Duration>,
) -> Outcome<Connected> {
    if let Some(cluster) = &global.at {
        let found = find::coordinator(cluster).await?;
        return Ok(Connected {
            channel: tunnel::channel(cluster, &found, global).await?,
            agent_state: None,
            coordinator: None,
        });
    }
    match (&global.coordinator, &global.repo) {
        (Some(_), Some(_)) => Err(Failure::usage(
            "both --repo and --coordinator are given (or set in the environment): choose one",
        )),
        (Some(url), None) => remote(global, url).await,
        (None, Some(url)) => embedded(global, url, access, continuous).await,
        (None, None) => match default_socket() {
            Some(socket) if socket.exists() => {
                remote(global, &format!("unix:{}", socket.display())).await
            }
            _ => Err(Failure::usage(
                "say where: --repo URL (or HOLDFAST_REPO), or --coordinator URL (or HOLDFAST_COORDINATOR)",
            )),
        },
    }
}

async fn remote(global: &Global, url: &str) -> Outcome<Connected> {
    reach(url).await?;
    let tls = match url.starts_with("https:") {
        true => Some(client_tls(global)?),
        false => None,
    };
    let client = Client::connect_lazy(url, tls).map_err(|e| Failure::usage(chain(&e)))?;
    Ok(Connected {
        channel: client.channel(),
        agent_state: None,
        coordinator: None,
    })
}

/// Files of a certificate chain and its key, where they were named.
pub fn identity(global: &Global) -> Outcome<Option<(PathBuf, PathBuf)>> {
    let Some(files) = &global.client_cert else {
        return Ok(None);
    };
    match files.split_once(',') {
        Some((chain, key)) => Ok(Some((PathBuf::from(chain), PathBuf::from(key)))),
        None => Err(Failure::usage("--client-cert takes two files: CHAIN,KEY")),
    }
}

/// Whom to trust, and who this is: by the files that were named.
fn client_tls(global: &Global) -> Outcome<ClientTlsConfig> {
    let authorities = global.ca_file.clone().ok_or_else(|| {
        Failure::usage(
            "https needs the authorities to trust: --ca-file FILE (or HOLDFAST_CA_FILE), such as \
             ca.crt of the coordinator's certificate",
        )
    })?;
    let tls = ClientTls {
        authorities,
        server_name: None,
        identity: identity(global)?,
    };
    tls.load().map_err(|error| Failure::usage(chain(&error)))
}

async fn embedded(
    global: &Global,
    url: &str,
    access: Access,
    continuous: Option<Duration>,
) -> Outcome<Connected> {
    let repository = match open_repository(global, url).await {
        Err(failure)
            if failure.exit == Exit::NoRepository && access == Access::Create && is_local(url) =>
        {
            create_repository(global, url).await?.0
        }
        opened => opened?,
    };
    let state = state_of(global, repository.id());
    private_dir(&state)?;
    let coordinator = open_coordinator(global, repository, &state, access, continuous).await?;
    let channel = in_process(&coordinator).await?;
    Ok(Connected {
        channel,
        agent_state: Some(state.join("agent")),
        coordinator: Some(coordinator),
    })
}

async fn open_coordinator(
    global: &Global,
    repository: Repository,
    state: &Path,
    access: Access,
    continuous: Option<Duration>,
) -> Outcome<Arc<Coordinator>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut settings = CoordinatorSettings::new(state.to_path_buf());
    settings.take_over = global.take_over;
    settings.agents = Agents::InProcess;
    let rule = |age| ContinuousRule::new(VolumePattern::any(), age);
    settings.continuous = continuous.map(rule).into_iter().collect();
    let damage = match catch_up(&repository, state, clock.now_ns(), access).await {
        Err(CatchUp::Missing) => rebuild_catalog(global, &repository, state, access).await?,
        Err(CatchUp::Failed(failure)) => return Err(failure),
        Ok(damage) => damage,
    };
    let told = damage.clone();
    let opened = match access {
        Access::Read => Coordinator::open_read_only(settings, repository, clock, damage).await,
        Access::Write | Access::Create => {
            let tell = |waiting: &Waiting| {
                // Said with --quiet too: nobody waits ten minutes for nothing known.
                eprintln!(
                    "note: waiting up to {} s until {} can no longer write, as its last requests may be \
                     under way",
                    waiting.at_most.as_secs(),
                    waiting.holder
                );
            };
            Coordinator::open_telling(settings, repository, clock, tell).await
        }
    };
    let opened = opened.map_err(failure)?;
    if access != Access::Read {
        // A rebuild has told some of it.
        tell_damage(opened.damage().iter().filter(|p| !told.contains(p)));
    }
    Ok(opened)
}

fn tell_damage<'p>(problems: impl IntoIterator<Item = &'p ObjectProblem>) {
    for problem in problems {
        eprintln!("damage: {}: {}", problem.object, problem.detail);
    }
}

enum CatchUp {
    Missing,
    Failed(Failure),
}

/// A reader sees what other hosts have stored since: it brings its catalog up to the store, unless a
/// coordinator on this host does so all the time. A writer does this when it opens.
async fn catch_up(
    repository: &Repository,
    state: &Path,
    now_ns: i64,
    access: Access,
) -> Result<Vec<ObjectProblem>, CatchUp> {
    let failed = |error: Error| CatchUp::Failed(failure(error));
    let mode = if access == Access::Read {
        Mode::ReadWrite
    } else {
        Mode::ReadOnly
    };
    let catalog = match Catalog::open(state, &repository.id(), mode).await {
        Err(CatalogError::Missing { .. }) => return Err(CatchUp::Missing),
        Err(CatalogError::InUse { .. }) => return Ok(Vec::new()),
        // Of an earlier version: whoever opens it for writing brings it up.
        Err(CatalogError::Schema { found, known, .. })
            if mode == Mode::ReadOnly && found < known =>
        {
            return Ok(Vec::new());
        }
        opened => opened.map_err(|e| failed(e.into()))?,
    };
    let mut damage = Vec::new();
    if access == Access::Read {
        let found = reconcile_to_read(&catalog, repository, now_ns, &|_| {})
            .await
            .map_err(|e| failed(e.into()))?;
        tell_damage(&found.problems);
        damage = found.problems;
    }
    catalog.close().await.map_err(|e| failed(e.into()))?;
    Ok(damage)
}

/// Builds the catalog again from the store; damage is told by name, and returned. Who may write
/// leaves index segments in the store, which make the next time shorter.
pub async fn rebuild_catalog(
    global: &Global,
    repository: &Repository,
    state: &Path,
    access: Access,
) -> Outcome<Vec<ObjectProblem>> {
    let shown = Progress::new("rebuild of the catalog", global.quiet);
    let id = CatalogId::from_bytes(kek::random().map_err(|e| failure(e.into()))?);
    let now_ns = SystemClock::new().now_ns();
    let progress = |step: Step| shown.count(step.done_count);
    let built = match access {
        Access::Read => rebuild(repository, state, id, now_ns, &progress).await,
        Access::Write | Access::Create => {
            rebuild_and_index(repository, state, id, now_ns, &progress).await
        }
    };
    let (catalog, found) = built.map_err(|e| failure(e.into()))?;
    catalog.close().await.map_err(|e| failure(e.into()))?;
    shown.finish();
    tell_damage(&found.problems);
    for note in &found.notes {
        eprintln!("note: {}: {}", note.object, note.detail);
    }
    Ok(found.problems)
}

/// The repository at a URL, opened with the key that the options name.
pub async fn open_repository(global: &Global, url: &str) -> Outcome<Repository> {
    check_home(global)?;
    let store = Store::open(url, &StoreOptions::default()).map_err(|e| failure(e.into()))?;
    let config = Repository::find(&store)
        .await
        .map_err(|e| failure(e.into()))?;
    let key = read_key(global, &store, &config).await?;
    let repository = Repository::open(store, key)
        .await
        .map_err(|e| failure(e.into()))?;
    Ok(repository)
}

/// The key that the options name: under a passphrase, or in a file.
pub async fn read_key(global: &Global, store: &Store, config: &RepositoryConfig) -> Outcome<Kek> {
    let key = match &global.passphrase_file {
        Some(file) => kek::unlock(store, config, &read_passphrase(file)?).await,
        None => kek::read_key_file(&key_file(global, config.id)),
    };
    let mut wrong = match key {
        Ok(key) => return Ok(key),
        Err(error) => failure(error.into()),
    };
    let in_file = global.passphrase_file.is_none() && !key_file(global, config.id).exists();
    if in_file && kek::count_passphrases(store).await.unwrap_or(0) > 0 {
        wrong
            .message
            .push_str("; or give its passphrase, with --passphrase-file");
    }
    Err(wrong)
}

/// A channel to a coordinator in this process: pipes in memory, no port.
async fn in_process(coordinator: &Arc<Coordinator>) -> Outcome<Channel> {
    let (connections, incoming) =
        mpsc::channel::<Result<tokio::io::DuplexStream, std::io::Error>>(4);
    let routes = coordinator.routes().await;
    tokio::spawn(
        transport::server()
            .add_routes(routes)
            .serve_with_incoming(transport::pipes(ReceiverStream::new(incoming))),
    );
    let endpoint = windows(Endpoint::from_static("http://in-process"));
    Ok(
        endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let connections = connections.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
                let gone = |_| std::io::Error::other("the coordinator in this process has ended");
                connections.send(Ok(theirs)).await.map_err(gone)?;
                Ok::<_, std::io::Error>(TokioIo::new(ours))
            }
        })),
    )
}

/// An error of the coordinator's library as a command's end.
pub fn failure(error: Error) -> Failure {
    let exit = crate::failure::exit_of(error.reason().as_str());
    let mut message = chain(&error);
    if exit == Exit::NoRepository {
        message.push_str(", or check --repo");
    }
    Failure::with(exit, message)
}

/// Whether a repository there is a directory of this host.
pub fn is_local(url: &str) -> bool {
    matches!(StoreUrl::parse(url), Ok(StoreUrl::Directory(_)))
}

/// The name of this host.
pub fn node() -> String {
    host_name()
}
