//! `holdfast up`: coordinator and agent of a single host in one process, until it is told to stop.

use crate::args::{Global, Up};
use crate::connect::{self, Access, Loaded, load_policies};
use crate::failure::{Failure, Outcome, chain};
use crate::selector::new_volume;
use crate::signals;
use holdfast_agent::backup::BackupOptions;
use holdfast_agent::client::Client;
use holdfast_agent::jobs;
use holdfast_agent::metrics::AgentMetrics;
use holdfast_agent::settings::ServeSettings;
use holdfast_agent::volumes::{ExplicitVolume, Standing, VolumeSettings, discover};
use holdfast_format::path::escape;
use holdfast_format::volume::VolumeName;
use holdfast_runtime::listen::{Listen, bind_unix};
use holdfast_runtime::metrics::Metrics;
use holdfast_runtime::shutdown::{self, Cause};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long running jobs may take to end after a signal.
const DRAIN: Duration = Duration::from_secs(9);

/// Serves on a unix socket, and on TCP only when asked.
pub async fn run(global: &Global, options: Up) -> Outcome<()> {
    if global.repo.is_none() {
        return Err(Failure::usage(
            "say which repository to serve: --repo URL (or HOLDFAST_REPO)",
        ));
    }
    let volumes = VolumeSettings {
        node: connect::node(),
        kubelet_pods: options.kubelet_pods.clone(),
        explicit: options
            .volumes
            .iter()
            .map(|v| explicit(v))
            .collect::<Outcome<_>>()?,
        ..VolumeSettings::default()
    };
    tell_volumes(&volumes, global.quiet)?;
    let policies = options.policies.map(policies).transpose()?;
    let tcp = options
        .listen
        .as_deref()
        .map(|text| tcp(text, options.insecure_listen))
        .transpose()?;
    let socket = options
        .socket
        .clone()
        .or_else(connect::default_socket)
        .ok_or_else(|| {
            Failure::usage("XDG_RUNTIME_DIR is not set: say where to listen with --socket PATH")
        })?;
    if let Some(dir) = socket.parent() {
        connect::private_dir(dir)?;
    }
    let unix = bind_unix(&socket)
        .await
        .map_err(|e| Failure::failed(chain(&e)))?;
    let by_itself = ByItself {
        continuous: options.continuous,
        policies,
    };
    let served = serve(global, volumes, by_itself, unix, &socket, tcp).await;
    // Ours: nobody else can have taken the name while we listened on it.
    let _ = std::fs::remove_file(&socket);
    served
}

/// What is backed up without being asked.
struct ByItself {
    continuous: Option<Duration>,
    policies: Option<(PathBuf, Loaded)>,
}

fn policies(path: PathBuf) -> Outcome<(PathBuf, Loaded)> {
    match load_policies(&path) {
        Ok(loaded) => Ok((path, loaded)),
        Err(mistakes) => Err(Failure::usage(mistakes.to_string())),
    }
}

async fn serve(
    global: &Global,
    volumes: VolumeSettings,
    by_itself: ByItself,
    unix: tokio::net::UnixListener,
    socket: &Path,
    tcp: Option<SocketAddr>,
) -> Outcome<()> {
    let connected = connect::open_with(global, Access::Create, by_itself.continuous).await?;
    let (Some(coordinator), Some(state)) = (&connected.coordinator, &connected.agent_state) else {
        return Err(Failure::usage("`up` serves a repository: give --repo"));
    };
    connect::private_dir(&state.join("index"))?;
    if let Some((path, loaded)) = by_itself.policies {
        // A terminal that goes away is no wish to read files again: they are looked at anyway.
        coordinator.protect_by_files(path, loaded, Arc::default());
    }
    let (stopper, stopping) = shutdown::channel();
    let mut servers = tokio::task::JoinSet::new();
    let routes = coordinator.routes().await;
    let stop = stopping.clone();
    servers.spawn(
        connect::transport::server()
            .add_routes(routes.clone())
            .serve_with_incoming_shutdown(connect::transport::unix(unix), async move {
                stop.requested().await;
            }),
    );
    if let Some(address) = tcp {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let stop = stopping.clone();
        servers.spawn(
            connect::transport::server()
                .add_routes(routes)
                .serve_with_incoming_shutdown(connect::transport::tcp(listener), async move {
                    stop.requested().await;
                }),
        );
    }
    let settings = Arc::new(ServeSettings::new(
        volumes,
        BackupOptions::new(state, connect::node()),
    ));
    let agent = tokio::spawn(jobs::serve(
        Client::new(connected.channel.clone()),
        settings,
        AgentMetrics::new(&Metrics::new()),
        stopping.clone(),
        None,
    ));
    if !global.quiet {
        let tcp = tcp.map_or(String::new(), |a| format!(" and http://{a}"));
        eprintln!(
            "serving on unix:{}{tcp}; stop with Ctrl-C",
            socket.display()
        );
    }
    signals::interrupted().await;
    stopper.request(Cause::Asked);
    let _ = tokio::time::timeout(DRAIN, agent).await;
    connected.close().await;
    servers.shutdown().await;
    Ok(())
}

/// One line for each volume, and why one is not served. Two of one name are refused.
fn tell_volumes(settings: &VolumeSettings, quiet: bool) -> Outcome<()> {
    let mut names: Vec<&VolumeName> = settings.explicit.iter().map(|v| &v.name).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Failure::usage(format!(
            "--volume {}=… is given twice: each volume needs a name of its own",
            twice[0]
        )));
    }
    let found = discover(settings, None).map_err(|e| Failure::failed(chain(&e)))?;
    if found.is_empty() {
        eprintln!("warning: no volume is served: give --volume NAME=DIR or --kubelet-pods DIR");
    }
    for volume in &found {
        let (name, path) = (
            &volume.facts.name,
            escape(volume.path.as_os_str().as_bytes()),
        );
        match &volume.eligible {
            Ok(_) if quiet => {}
            Ok(_) => eprintln!("volume {name}: {path}"),
            Err(why) if why.reason.standing() == Standing::Excluded && quiet => {}
            Err(why) => eprintln!("volume {name}: {path}: not served: {why}"),
        }
    }
    Ok(())
}

fn explicit(text: &str) -> Outcome<ExplicitVolume> {
    let (name, path) = text
        .split_once('=')
        .ok_or_else(|| Failure::usage(format!("--volume {text}: must be NAME=DIR")))?;
    let name =
        new_volume(name).map_err(|e| Failure::usage(format!("--volume {text}: {}", e.message)))?;
    Ok(ExplicitVolume {
        name,
        path: std::path::absolute(PathBuf::from(path))?,
    })
}

fn tcp(text: &str, insecure: bool) -> Outcome<SocketAddr> {
    let address = text
        .parse()
        .map_err(|_| Failure::usage(format!("--listen {text}: must be ADDRESS:PORT")))?;
    if !Listen::Tcp(address).is_local() {
        if !insecure {
            return Err(Failure::usage(format!(
                "--listen {text} reaches beyond this host in plaintext, and anybody there could read and forget backups: add --insecure-listen to allow it"
            )));
        }
        eprintln!(
            "warning: listening on {address} in plaintext without identities (--insecure-listen)"
        );
    }
    Ok(address)
}
