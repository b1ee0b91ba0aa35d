//! What a coordinator is told: numbers and texts. The store, the clock and the key are passed beside it.
//!
//! Every default is here. `read` asks the settings for each key once, so that all errors are reported
//! together; an embedder builds the same structure by hand.

use crate::schedule::{ContinuousRule, VolumePattern};
use holdfast_runtime::listen::Listen;
use holdfast_runtime::logging::LogSettings;
use holdfast_runtime::settings::{ByteCount, Settings, Span};
use holdfast_runtime::tls::ServerTls;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// gRPC port.
pub const GRPC_PORT: u16 = 7270;
/// HTTP port: health and metrics.
pub const HTTP_PORT: u16 = 7271;
const MIB: u64 = 1 << 20;
/// Two signs of life of an agent.
const MIN_LEASE: Duration = Duration::from_secs(30);
const MAX_LEASE: Duration = Duration::from_secs(3600);

/// What [`crate::Coordinator::open`] needs beside the key, the clock and the store.
#[derive(Clone, Debug)]
pub struct CoordinatorSettings {
    /// Directory of this repository's catalog, spilled frames and caches; never inside the repository.
    pub state_dir: PathBuf,
    /// Take the repository over from another catalog.
    pub take_over: bool,
    /// Name of this host, as claims show it.
    pub host: String,
    /// Where agents run: those of one's own process ended with the process before.
    pub agents: Agents,
    /// Open packs and packs on their way.
    pub packs: PackSettings,
    /// Leases of sessions.
    pub sessions: SessionSettings,
    /// Caches for reading.
    pub cache: CacheSettings,
    /// Volumes that are backed up by how far they are ahead of their newest snapshots.
    pub continuous: Vec<ContinuousRule>,
}

/// Where a coordinator's agents run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Agents {
    /// In processes of their own: they resume their sessions after a restart, under their leases.
    Elsewhere,
    /// In this process: no lease outlives it.
    InProcess,
}

/// Open packs and packs on their way to the store.
#[derive(Clone, Copy, Debug)]
pub struct PackSettings {
    /// A pack is finished at this size, in stored bytes.
    pub target_bytes: u64,
    /// Memory for open packs and packs on their way; above it open packs spill to a file.
    pub budget_bytes: u64,
    /// A commit that adds less than this writes one pack of both kinds.
    pub mixed_bytes: u64,
    /// zstd level of frames that are built again, and of tree frames.
    pub level: i32,
}

impl Default for PackSettings {
    fn default() -> Self {
        Self {
            target_bytes: 32 * MIB,
            budget_bytes: 96 * MIB,
            mixed_bytes: MIB,
            level: 3,
        }
    }
}

/// Leases of sessions.
#[derive(Clone, Copy, Debug)]
pub struct SessionSettings {
    /// A volume's lease lasts this long after the last message.
    pub lease: Duration,
    /// An open pack that holds frames of a silent session is finished after this long.
    pub idle: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(60),
            idle: Duration::from_secs(10),
        }
    }
}

/// Caches for reading.
#[derive(Clone, Copy, Debug)]
pub struct CacheSettings {
    /// Sealed tree frames on disk.
    pub disk_bytes: u64,
    /// Opened tree frames in memory.
    pub memory_bytes: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            disk_bytes: 1024 * MIB,
            memory_bytes: 16 * MIB,
        }
    }
}

impl CoordinatorSettings {
    /// Defaults, with the state in `state_dir`.
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            take_over: false,
            host: crate::repo::claim::host_identity(),
            agents: Agents::Elsewhere,
            packs: PackSettings::default(),
            sessions: SessionSettings::default(),
            cache: CacheSettings::default(),
            continuous: Vec::new(),
        }
    }
}

/// The cluster whose volumes are backed up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// Whether there is one.
    pub mode: KubernetesMode,
    /// How its API is reached from outside; inside, the pod's service account says.
    pub kubeconfig: Option<PathBuf>,
    /// What the installer says of pods that help with volumes; none: no such pods are made.
    pub helpers: Option<PathBuf>,
}

/// Whether a cluster says what is to be backed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KubernetesMode {
    /// No: volumes are what agents find.
    Off,
    /// Inside a cluster, or where a kubeconfig is given.
    #[default]
    Auto,
    /// Yes: without one the coordinator does not start.
    On,
}

impl std::str::FromStr for KubernetesMode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            _ => Err("must be off, auto or on".to_owned()),
        }
    }
}

impl std::fmt::Display for KubernetesMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Auto => "auto",
            Self::On => "on",
        })
    }
}

/// What the `holdfast-coordinator` process needs.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// URL of the repository's store.
    pub repository: String,
    /// File of the key-encryption key.
    pub key_file: Option<PathBuf>,
    /// File of a passphrase that opens the key.
    pub passphrase_file: Option<PathBuf>,
    /// Where key files lie that are named after their repositories.
    pub keys_dir: PathBuf,
    /// Address of an S3-compatible service.
    pub endpoint: Option<String>,
    /// Region of the bucket.
    pub region: Option<String>,
    /// Whether the bucket stands in the path of a request.
    pub path_style: Option<bool>,
    /// Directory of the catalog, spilled frames and caches.
    pub state_dir: PathBuf,
    /// The node that this process runs on, where the machine's own id cannot be seen: in a container.
    pub node: Option<String>,
    /// Take the repository over from another catalog.
    pub take_over: bool,
    /// Where gRPC listens.
    pub listen: Listen,
    /// Allows plaintext beyond this host.
    pub insecure_listen: bool,
    /// Where HTTP listens.
    pub http: SocketAddr,
    /// TLS of the gRPC listener.
    pub tls: Option<ServerTls>,
    /// Open packs.
    pub packs: PackSettings,
    /// Sessions.
    pub sessions: SessionSettings,
    /// Caches.
    pub cache: CacheSettings,
    /// Continuous protection.
    pub continuous: Vec<ContinuousRule>,
    /// The cluster.
    pub kubernetes: KubernetesSettings,
    /// Without one: the file of policies, or the directory of such files.
    pub policies: Option<PathBuf>,
    /// Logs.
    pub log: LogSettings,
    /// How long a stop may take.
    pub drain: Duration,
}

impl ServerSettings {
    /// Asks for every key; wrong ones are in `settings`, and the result is then not to be used.
    /// `insecure_listen` is the command line's word for it.
    pub fn read(settings: &mut Settings, insecure_listen: bool) -> Self {
        let packs = PackSettings::default();
        let sessions = SessionSettings::default();
        let cache = CacheSettings::default();
        let read = Self {
            repository: settings.required("repository.url").unwrap_or_default(),
            key_file: path(settings, "repository.key_file"),
            passphrase_file: path(settings, "repository.passphrase_file"),
            keys_dir: path(settings, "repository.keys_dir").unwrap_or_else(default_keys_dir),
            endpoint: settings.optional("repository.endpoint"),
            region: settings.optional("repository.region"),
            path_style: settings.optional("repository.path_style"),
            state_dir: path(settings, "state.dir").unwrap_or_else(default_state_dir),
            node: settings.optional("state.node"),
            take_over: settings.get("repository.take_over", false),
            listen: settings.get(
                "grpc.listen",
                Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, GRPC_PORT))),
            ),
            insecure_listen: settings.get("grpc.insecure_listen", false) || insecure_listen,
            http: settings.get(
                "http.listen",
                SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP_PORT)),
            ),
            tls: tls(settings),
            packs: PackSettings {
                target_bytes: bytes(settings, "packs.target", packs.target_bytes),
                budget_bytes: bytes(settings, "packs.budget", packs.budget_bytes),
                mixed_bytes: bytes(settings, "packs.mixed", packs.mixed_bytes),
                level: settings.get("packs.level", packs.level),
            },
            sessions: SessionSettings {
                lease: span(settings, "sessions.lease", sessions.lease),
                idle: span(settings, "sessions.idle", sessions.idle),
            },
            cache: CacheSettings {
                disk_bytes: bytes(settings, "cache.disk", cache.disk_bytes),
                memory_bytes: bytes(settings, "cache.memory", cache.memory_bytes),
            },
            continuous: settings.tables("continuous", continuous),
            kubernetes: KubernetesSettings {
                mode: settings.get("kubernetes.mode", KubernetesMode::default()),
                kubeconfig: path(settings, "kubernetes.kubeconfig"),
                helpers: path(settings, "kubernetes.helpers"),
            },
            policies: path(settings, "policies.file"),
            log: log(settings),
            drain: span(settings, "drain.grace", Duration::from_secs(10)),
        };
        read.check(settings);
        read
    }

    fn check(&self, settings: &mut Settings) {
        if self.packs.target_bytes < MIB || self.packs.target_bytes > 256 * MIB {
            settings.refuse("packs.target must be between 1 MiB and 256 MiB");
        }
        if self.packs.budget_bytes < 2 * self.packs.target_bytes {
            settings.refuse("packs.budget must be at least twice packs.target");
        }
        if !(MIN_LEASE..=MAX_LEASE).contains(&self.sessions.lease) {
            settings.refuse(
                "sessions.lease must be between 30s and 1h: agents give a sign of life every 15s, \
                 and a volume whose agent died is free after a lease",
            );
        }
        if self.kubernetes.mode == KubernetesMode::Off && self.kubernetes.kubeconfig.is_some() {
            settings.refuse("kubernetes.kubeconfig goes with kubernetes.mode auto or on");
        }
        if self.policies.is_some() && self.kubernetes.mode == KubernetesMode::On {
            settings.refuse(
                "policies.file is for a coordinator without a cluster: in one, policies are objects \
                 of its API; take it out, or set kubernetes.mode to off",
            );
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if let Some(node) = &self.node
            && (node.is_empty() || node.len() > 253 || !node.chars().all(is_name))
        {
            settings.refuse("state.node must be a node's name: letters, digits, '.', '-' and '_'");
        }
        if !(1..=19).contains(&self.packs.level) {
            settings.refuse("packs.level must be between 1 and 19");
        }
        if self.tls.is_none() && !self.listen.is_local() && !self.insecure_listen {
            settings.refuse(
                "grpc.listen reaches beyond this host without TLS: configure grpc.tls_cert and \
                 grpc.tls_key, or allow it with --insecure-listen",
            );
        }
    }
}

/// `/var/lib/holdfast/coordinator` as root, else below `$XDG_STATE_HOME`.
fn default_state_dir() -> PathBuf {
    default_dir("/var/lib/holdfast", "XDG_STATE_HOME", ".local/state").join("coordinator")
}

/// `/etc/holdfast/keys` as root, else below `$XDG_CONFIG_HOME`.
fn default_keys_dir() -> PathBuf {
    default_dir("/etc/holdfast", "XDG_CONFIG_HOME", ".config").join("keys")
}

fn default_dir(root: &str, variable: &str, below_home: &str) -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from(root);
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into()));
    std::env::var_os(variable)
        .map_or_else(|| home().join(below_home), PathBuf::from)
        .join("holdfast")
}

/// The kernel's name of this host.
pub fn host_name() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) => name.trim().to_owned(),
        Err(_) => "unknown".into(),
    }
}

fn path(settings: &mut Settings, key: &str) -> Option<PathBuf> {
    settings.optional::<String>(key).map(PathBuf::from)
}

fn bytes(settings: &mut Settings, key: &str, default: u64) -> u64 {
    settings.get(key, ByteCount(default)).0
}

fn span(settings: &mut Settings, key: &str, default: Duration) -> Duration {
    settings.get(key, Span(default)).0
}

fn tls(settings: &mut Settings) -> Option<ServerTls> {
    let certificate = path(settings, "grpc.tls_cert");
    let key = path(settings, "grpc.tls_key");
    let client_authorities = path(settings, "grpc.tls_client_ca");
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ServerTls {
            certificate,
            key,
            client_authorities,
        }),
        (None, None) if client_authorities.is_none() => None,
        _ => {
            settings.refuse("grpc.tls_cert and grpc.tls_key are given together or not at all");
            None
        }
    }
}

/// One entry of `continuous`.
fn continuous(settings: &mut Settings) -> ContinuousRule {
    let volumes = settings.required("volumes");
    let max_age = settings.required::<Span>("max_age").map(|span| span.0);
    // What is missing is an error already; the rule is then not used.
    let volumes = volumes.unwrap_or_else(VolumePattern::any);
    let usual = ContinuousRule::new(volumes, max_age.unwrap_or(ContinuousRule::MIN_AGE));
    let rule = ContinuousRule {
        max_bytes: settings
            .optional::<ByteCount>("max_bytes")
            .map(|bytes| bytes.0),
        quiet: span(settings, "quiet", usual.quiet),
        min_interval: span(settings, "min_interval", usual.min_interval),
        ..usual
    };
    if rule.max_age < ContinuousRule::MIN_AGE {
        settings.refuse("max_age must be at least 5s: agents tell of changes every few seconds");
    }
    if rule.max_bytes == Some(0) {
        settings.refuse("max_bytes must be at least 1; leave it out for no such bound");
    }
    if rule.quiet > rule.max_age {
        settings.refuse("quiet must not be longer than max_age");
    }
    if rule.min_interval > rule.max_age {
        settings.refuse("min_interval must not be longer than max_age");
    }
    rule
}

fn log(settings: &mut Settings) -> LogSettings {
    let defaults = LogSettings::default();
    let filter = settings.get("log.filter", defaults.filter);
    let format = settings.get("log.format", String::from("auto"));
    let format = format.parse().unwrap_or_else(|error| {
        settings.refuse(format!("log.format {error}"));
        defaults.format
    });
    LogSettings { filter, format }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ServerSettings, String> {
        let mut settings = Settings::from_text("test.yaml", text, []);
        let read = ServerSettings::read(&mut settings, false);
        settings.finish().map(|_| read).map_err(|e| e.to_string())
    }

    #[test]
    fn every_error_is_reported_at_once() {
        let text = "grpc: {listen: '0.0.0.0:7270', tsl_cert: x}\nlog: {format: blue}\npacks: {target: 1KiB}\nsessions: {lease: 5s}";
        let error = read(text).unwrap_err();
        for part in [
            "repository.url",
            "insecure-listen",
            "tsl_cert",
            "log.format",
            "packs.target",
            "sessions.lease must be between",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn defaults_listen_on_this_host_only() {
        let settings = read("repository: {url: /backup}").unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:7270");
        assert_eq!(settings.http.to_string(), "127.0.0.1:7271");
        assert!(settings.listen.is_local());
        assert_eq!(settings.packs.budget_bytes, 96 << 20);
    }

    #[test]
    fn continuous_protection_has_defaults_and_tells_every_mistake() {
        let url = "repository: {url: /backup}\n";
        let good = "continuous:\n- {volumes: 'shop/*', max_age: 5m, max_bytes: 1GiB}\n- {volumes: '*', max_age: 30s, quiet: 0, min_interval: 10s}";
        let rules = read(&format!("{url}{good}")).unwrap().continuous;
        let seconds = |index: usize| {
            let rule = &rules[index];
            [rule.max_age, rule.quiet, rule.min_interval].map(|span| span.as_secs())
        };
        assert_eq!(seconds(0), [300, 10, 60]);
        assert_eq!(seconds(1), [30, 0, 10]);
        assert_eq!(
            (rules[0].max_bytes, rules[1].max_bytes),
            (Some(1 << 30), None)
        );
        assert!(rules[0].volumes.matches("shop/db") && !rules[0].volumes.matches("web"));
        assert!(read(url).unwrap().continuous.is_empty());

        let bad = "continuous:\n- {volumes: '[', max_age: 1s, quiet: 5m}\n- {max_age: soon, min_intervall: 1m}\n- 7";
        let error = read(&format!("{url}{bad}")).unwrap_err();
        for part in [
            "continuous[0]: volumes",
            "continuous[0]: max_age must be at least",
            "continuous[0]: quiet must not",
            "continuous[1]: volumes is missing",
            "continuous[1]: max_age: \"soon\"",
            "unknown key min_intervall; did you mean min_interval?",
            "continuous[2]: must be a mapping",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn plaintext_beyond_this_host_must_be_allowed() {
        let text =
            "repository: {url: /backup}\ngrpc: {listen: '0.0.0.0:7270', insecure_listen: true}";
        assert!(read(text).is_ok());
    }
}
