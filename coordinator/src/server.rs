//! The `holdfast-coordinator` process: a repository served over gRPC, with health and metrics over HTTP.
//!
//! HTTP answers from the start; ready is it once the repository is claimed and gRPC listens. A stop ends
//! sessions and streams, makes open packs durable and gives the claim back within the grace.

use crate::Coordinator;
use crate::catalog::{Catalog, CatalogError, Mode};
use crate::declared;
use crate::error::{Error, Kind, Reason, Result};
use crate::kube;
use crate::repo::claim::{host_identity, node_identity};
use crate::repo::rebuild::rebuild_and_index;
use crate::repo::{Repository, Store, StoreOptions, kek};
use crate::service::transport;
use crate::settings::{Agents, CoordinatorSettings, ServerSettings};
use futures::TryStreamExt;
use holdfast_format::id::CatalogId;
use holdfast_format::keys::Kek;
use holdfast_format::names;
use holdfast_runtime::certificate;
use holdfast_runtime::clock::{Clock, SystemClock};
use holdfast_runtime::exit::Exit;
use holdfast_runtime::http;
use holdfast_runtime::listen::{Listen, bind_unix};
use holdfast_runtime::metrics::Metrics;
use holdfast_runtime::readiness::{Latch, Readiness};
use holdfast_runtime::shutdown::{Cause, Shutdown, Stopper};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// How often the claim is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A passphrase is typed by people.
const MAX_PASSPHRASE: usize = 4096;

/// Serves until the stop is requested or the claim is lost.
pub async fn serve(
    settings: ServerSettings,
    stopper: Stopper,
    shutdown: Shutdown,
) -> anyhow::Result<Exit> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let loaded = match settings.policies.clone() {
        Some(path) => {
            let loaded = declared::load(&path);
            let loaded = loaded.map_err(|mistakes| Error::invalid(mistakes.to_string()))?;
            Some((path, loaded))
        }
        None => None,
    };
    let (metrics, readiness) = (Metrics::new(), Readiness::new());
    let latch = readiness.latch("repository");
    let listener = TcpListener::bind(settings.http).await?;
    tokio::spawn(http::serve(
        listener,
        readiness.clone(),
        metrics.clone(),
        shutdown.clone(),
    ));
    // One listener from now to the end: no signal falls between two.
    let mut signals = std::pin::pin!(stopper.on_signals());
    let opened = tokio::select! {
        opened = open(&settings, &metrics, clock.clone()) => opened?,
        signalled = &mut signals => {
            signalled?;
            return Ok(Exit::Interrupted);
        }
        cause = shutdown.requested() => return Ok(exit_on(cause)),
    };
    let gauges = Arc::new(opened.register_metrics(&metrics));
    if let Some(tls) = &settings.tls
        && let Ok(pem) = std::fs::read(&tls.certificate)
        && let Some(end) = certificate::expires(&pem)
    {
        // What is served until the next start, whatever the file says by then.
        certificate_ends(&metrics, end);
    }
    let asked = Arc::downgrade(&gauges);
    metrics.on_scrape(move || {
        let asked = asked.upgrade();
        async move {
            if let Some(gauges) = asked {
                gauges.update().await;
            }
        }
    });
    match (kube::client(&settings.kubernetes, &metrics).await?, loaded) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid(
                "policies.file is for a coordinator without a cluster: in one, policies are objects of its \
                 API; take it out, or set kubernetes.mode to off",
            )
            .into());
        }
        (Some(client), None) => {
            let helpers = settings.kubernetes.helpers.as_deref();
            let helpers = helpers.map(kube::Helpers::read).transpose()?;
            kube::start(&opened, client, helpers);
        }
        (None, Some((path, loaded))) => {
            let again = Arc::new(Notify::new());
            notify_on_hangup(again.clone())?;
            opened.protect_by_files(path, loaded, again);
        }
        (None, None) => {}
    }
    let mut server = tokio::spawn(listen(
        settings.clone(),
        opened.clone(),
        shutdown.clone(),
        latch,
    ));
    let mut store = std::pin::pin!(gauges.watch_store());
    let exit = loop {
        tokio::select! {
            () = &mut store => {}
            signalled = &mut signals => { signalled?; break Exit::Interrupted }
            cause = shutdown.requested() => break exit_on(cause),
            ended = &mut server => { ended??; break Exit::Done }
            () = tokio::time::sleep(LOOK_EVERY) => {
                if opened.is_fenced() {
                    tracing::error!("another catalog owns the repository: stopping for good");
                    break Exit::Owned;
                }
            }
        }
    };
    readiness.drain();
    stopper.request(Cause::Asked);
    tracing::info!("stopping");
    let ended = tokio::time::timeout(settings.drain, async {
        let closed = opened.shutdown().await;
        if !server.is_finished() {
            // Its connections end with their streams.
            let _ = server.await;
        }
        closed
    });
    tokio::select! {
        ended = ended => match ended {
            Ok(closed) => closed?,
            Err(_) => tracing::warn!("stopped before everything had ended; sessions can be resumed"),
        },
        signalled = &mut signals => {
            signalled?;
            tracing::warn!("stopped at once, as asked a second time");
        }
    }
    Ok(exit)
}

pub(crate) fn certificate_ends(metrics: &Metrics, seconds: i64) {
    let help = "When the certificate that is served ends; none without TLS.";
    let name = "holdfast_tls_certificate_expiry_timestamp_seconds";
    metrics.float_gauge(name, help).set(seconds as f64);
}

/// SIGHUP has files read again.
fn notify_on_hangup(again: Arc<Notify>) -> std::io::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            again.notify_one();
        }
    });
    Ok(())
}

fn exit_on(cause: Cause) -> Exit {
    match cause {
        Cause::Interrupt => Exit::Interrupted,
        Cause::Terminate | Cause::Asked => Exit::Done,
    }
}

/// Builds the catalog again from the store.
pub async fn rebuild(settings: ServerSettings) -> anyhow::Result<Exit> {
    let repository = repository(&settings, None).await?;
    std::fs::create_dir_all(&settings.state_dir)?;
    let now = SystemClock::new().now_ns();
    let id = CatalogId::from_bytes(kek::random()?);
    let progress = |step: crate::repo::reconcile::Step| {
        tracing::info!(stage = ?step.stage, done = step.done_count, "rebuilding");
    };
    let built = rebuild_and_index(&repository, &settings.state_dir, id, now, &progress);
    let (catalog, found) = built.await.map_err(Error::from)?;
    catalog.close().await?;
    for problem in found.problems.iter().chain(&found.notes) {
        eprintln!("{}: {}", problem.object, problem.detail);
    }
    println!(
        "rebuilt from {} packs and {} snapshots; {} objects are damaged or missing",
        found.packs,
        found.snapshots,
        found.problems.len()
    );
    println!(
        "{} packs by index segments, {} segments written",
        found.from_segments, found.segments
    );
    Ok(match found.problems.is_empty() {
        true => Exit::Done,
        false => Exit::Damage,
    })
}

/// The exit code of an error.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    let error = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Error>());
    let Some(error) = error else {
        return Exit::Failed;
    };
    match error.reason() {
        Reason::RepositoryMissing => Exit::NoRepository,
        Reason::RepositoryOwned | Reason::CatalogBusy => Exit::Owned,
        Reason::WrongKey => Exit::WrongKey,
        Reason::NotAllowed => Exit::NotAllowed,
        Reason::DamageFound => Exit::Damage,
        _ if error.kind() == Kind::Invalid => Exit::Usage,
        _ => Exit::Failed,
    }
}

async fn open(
    settings: &ServerSettings,
    metrics: &Metrics,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Coordinator>> {
    let repository = repository(settings, Some(metrics.clone())).await?;
    make_first_catalog(settings, &repository, clock.now_ns()).await?;
    let settings = CoordinatorSettings {
        state_dir: settings.state_dir.clone(),
        take_over: settings.take_over,
        host: settings
            .node
            .as_deref()
            .map_or_else(host_identity, node_identity),
        agents: Agents::Elsewhere,
        packs: settings.packs,
        sessions: settings.sessions,
        cache: settings.cache,
        continuous: settings.continuous.clone(),
    };
    Coordinator::open(settings, repository, clock).await
}

/// Where a repository is as `init` made it, its catalog is empty, and made here. Of one that was in use a
/// missing catalog was lost, and only people say what to do about that.
async fn make_first_catalog(
    settings: &ServerSettings,
    repository: &Repository,
    now_ns: i64,
) -> Result<()> {
    let (state, id) = (&settings.state_dir, repository.id());
    match Catalog::open(state, &id, Mode::ReadOnly).await {
        Err(missing @ CatalogError::Missing { .. }) => {
            for used in [
                names::PACKS,
                names::SNAPSHOTS,
                names::OWNER,
                names::DELETIONS,
            ] {
                // The first is enough: of a repository in use there may be millions.
                if repository
                    .store()
                    .list_stream(used)
                    .try_next()
                    .await?
                    .is_some()
                {
                    return Err(missing.into());
                }
            }
        }
        // Whatever else is wrong is found when it is opened.
        _ => return Ok(()),
    }
    std::fs::create_dir_all(state)
        .map_err(|source| Error::io(format!("create {}", state.display()), source))?;
    let new = CatalogId::from_bytes(kek::random()?);
    let (catalog, _) = rebuild_and_index(repository, state, new, now_ns, &|_| {}).await?;
    catalog.close().await?;
    tracing::info!(repository = %id, "the repository is new: its catalog was made");
    Ok(())
}

async fn repository(settings: &ServerSettings, metrics: Option<Metrics>) -> Result<Repository> {
    let options = StoreOptions {
        endpoint: settings.endpoint.clone(),
        region: settings.region.clone(),
        path_style: settings.path_style,
        metrics,
        ..StoreOptions::default()
    };
    let store = Store::open(&settings.repository, &options)?;
    let config = Repository::find(&store).await?;
    let key: Kek = match (&settings.key_file, &settings.passphrase_file) {
        (Some(file), _) => kek::read_key_file(file)?,
        (None, Some(file)) => kek::unlock(&store, &config, &passphrase(file)?).await?,
        (None, None) => {
            let usual = settings.keys_dir.join(format!("{}.key", config.id));
            kek::read_key_file(&usual)?
        }
    };
    Ok(Repository::open(store, key).await?)
}

fn passphrase(file: &Path) -> Result<String> {
    let read = std::fs::read_to_string(file);
    let text = read.map_err(|source| Error::io(format!("read {}", file.display()), source))?;
    if text.len() > MAX_PASSPHRASE {
        return Err(Error::invalid(
            "the passphrase file is longer than a passphrase",
        ));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

async fn listen(
    settings: ServerSettings,
    coordinator: Arc<Coordinator>,
    shutdown: Shutdown,
    latch: Latch,
) -> anyhow::Result<()> {
    let mut server = transport::server();
    if let Some(tls) = &settings.tls {
        server = server.tls_config(tls.load()?)?;
        let shown = std::fs::read(&tls.certificate).unwrap_or_default();
        let expires = certificate::expires(&shown).unwrap_or(0);
        coordinator.set_certificate_expiry(expires.saturating_mul(1_000_000_000));
    } else if !settings.listen.is_local() {
        tracing::warn!(listen = %settings.listen, "plaintext beyond this host, without identities");
    }
    let router = server.add_routes(coordinator.routes().await);
    let stop = async move {
        shutdown.requested().await;
    };
    let ready = || {
        latch.release();
        tracing::info!(listen = %settings.listen, http = %settings.http, "serving");
    };
    match &settings.listen {
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address).await?;
            ready();
            let incoming = transport::tcp(listener);
            router.serve_with_incoming_shutdown(incoming, stop).await?;
        }
        Listen::Unix(path) => {
            let listener = bind_unix(path).await?;
            ready();
            let incoming = transport::unix(listener);
            router.serve_with_incoming_shutdown(incoming, stop).await?;
        }
    }
    Ok(())
}
