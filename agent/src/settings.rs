//! What an agent is told: numbers and texts. Clock, channel and metrics are passed beside it.

use crate::backup::BackupOptions;
use crate::confine::{Confined, Landlock};
use crate::limits::RateLimit;
use crate::priority::Priority;
use crate::read::BusyPolicy;
use crate::rolling;
use crate::volumes::{ExplicitVolume, MemoryVolumes, PlanFile, VolumeSettings};
use holdfast_format::volume::VolumeName;
use holdfast_runtime::logging::LogSettings;
use holdfast_runtime::settings::{ByteCount, Settings, Span};
use holdfast_runtime::tls::ClientTls;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// HTTP port: health and metrics.
pub const HTTP_PORT: u16 = 7272;

/// What serving jobs needs.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// Where volumes are looked for, and this node's name.
    pub volumes: VolumeSettings,
    /// Where the plan is kept that the coordinator sends for this node; `None`: it is not kept.
    pub plan: Option<PlanFile>,
    /// How backups are made; rules come with each order.
    pub backup: BackupOptions,
    /// Backups at once.
    pub most_backups: usize,
    /// Restores at once.
    pub most_restores: usize,
    /// Directories that restores may write below; empty: any.
    pub restore_below: Vec<PathBuf>,
    /// How often volumes are looked for again.
    pub discover_every: Duration,
    /// How long ended jobs may take to stop and report.
    pub drain: Duration,
    /// How changes are learnt of.
    pub journal: JournalSource,
    /// Within what time every file is read again; `None`: it is not.
    pub reread_period: Option<Duration>,
    /// What the process has taken away from itself.
    pub confined: Confined,
}

/// How an agent learns of changes between runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JournalSource {
    /// The best that the kernel offers: fanotify, else inotify.
    #[default]
    Auto,
    /// inotify only.
    Inotify,
    /// Not at all: every run walks its volume.
    Off,
}

impl ServeSettings {
    /// Defaults.
    pub fn new(volumes: VolumeSettings, backup: BackupOptions) -> Self {
        Self {
            volumes,
            plan: None,
            backup,
            most_backups: 2,
            most_restores: 1,
            restore_below: Vec::new(),
            discover_every: Duration::from_secs(30),
            drain: Duration::from_secs(8),
            journal: JournalSource::Auto,
            reread_period: Some(rolling::PERIOD),
            confined: Confined::default(),
        }
    }
}

/// What the `holdfast-agent` process needs.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// The coordinator's URL.
    pub coordinator: String,
    /// TLS towards it.
    pub tls: Option<ClientTls>,
    /// Jobs.
    pub serve: ServeSettings,
    /// Directory of what this agent keeps.
    pub state: PathBuf,
    /// Whether it takes away from itself what it does not need.
    pub landlock: Landlock,
    /// Where HTTP listens.
    pub http: SocketAddr,
    /// Logs.
    pub log: LogSettings,
    /// How long a stop may take.
    pub drain: Duration,
}

impl AgentSettings {
    /// Asks for every key; wrong ones are in `settings`, and the result is then not to be used.
    pub fn read(settings: &mut Settings) -> Self {
        let node = settings.get("agent.node", host_name());
        let state = path(settings, "state.dir").unwrap_or_else(default_state_directory);
        let volumes = VolumeSettings {
            node: node.clone(),
            kubelet_pods: path(settings, "volumes.kubelet_pods"),
            explicit: settings
                .list::<Named>("volumes.paths")
                .into_iter()
                .map(|named| named.0)
                .collect(),
            host_roots: settings
                .list::<String>("volumes.host_roots")
                .into_iter()
                .map(PathBuf::from)
                .collect(),
            memory: if settings.get("volumes.memory", false) {
                MemoryVolumes::Include
            } else {
                MemoryVolumes::Exclude
            },
        };
        let mut backup = BackupOptions::new(&state, node);
        backup.busy = settings.get("backup.busy", Busy(BusyPolicy::Settle)).0;
        backup.priority = settings.get("backup.priority", Level(Priority::Low)).0;
        backup.compression_level = settings.get("backup.level", backup.compression_level);
        backup.memory_bytes = bytes(settings, "backup.memory").unwrap_or(backup.memory_bytes);
        backup.read_rate = RateLimit::new(bytes(settings, "backup.read_rate"));
        backup.upload_rate = RateLimit::new(bytes(settings, "backup.send_rate"));
        backup.workers = settings.optional("backup.workers");
        let mut serve = ServeSettings::new(volumes, backup);
        serve.plan = Some(PlanFile::new(&state));
        serve.most_backups = settings.get("backup.at_once", serve.most_backups);
        serve.most_restores = settings.get("restore.at_once", serve.most_restores);
        serve.restore_below = settings
            .list::<String>("restore.below")
            .into_iter()
            .map(PathBuf::from)
            .collect();
        serve.discover_every = span(settings, "volumes.discover_every", serve.discover_every);
        serve.journal = settings.get("journal.source", JournalSource::Auto);
        serve.reread_period = settings.get("reread.period", Period(serve.reread_period)).0;
        let read = Self {
            coordinator: settings.required("coordinator.url").unwrap_or_default(),
            tls: tls(settings),
            serve,
            state,
            landlock: settings.get("agent.landlock", Landlock::Auto),
            http: settings.get(
                "http.listen",
                SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP_PORT)),
            ),
            log: log(settings),
            drain: span(settings, "drain.grace", Duration::from_secs(10)),
        };
        read.check(settings);
        read
    }

    fn check(&self, settings: &mut Settings) {
        let backup = &self.serve.backup;
        if !(-7..=19).contains(&backup.compression_level) {
            settings.refuse("backup.level must be between -7 and 19");
        }
        if backup.memory_bytes < 8 << 20 {
            settings.refuse("backup.memory must be at least 8 MiB");
        }
        if self.serve.most_backups == 0 || self.serve.most_restores == 0 {
            settings.refuse("backup.at_once and restore.at_once must be at least 1");
        }
        if self
            .serve
            .restore_below
            .iter()
            .any(|path| !path.is_absolute())
        {
            settings.refuse("restore.below must hold absolute paths");
        }
        if self.tls.is_some() != self.coordinator.starts_with("https:") {
            settings
                .refuse("an https: coordinator needs coordinator.tls_ca, and no other may have it");
        }
    }
}

/// `/var/lib/holdfast/agent` as root, else below `$XDG_STATE_HOME`.
pub fn default_state_directory() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/holdfast/agent");
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into()));
    std::env::var_os("XDG_STATE_HOME")
        .map_or_else(|| home().join(".local/state"), PathBuf::from)
        .join("holdfast/agent")
}

/// The kernel's name of this host.
pub fn host_name() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) => name.trim().to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}

/// `name=path`.
struct Named(ExplicitVolume);

impl FromStr for Named {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("must be NAME=PATH")?;
        let name: VolumeName = name.parse().map_err(|error| format!("{error}"))?;
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            return Err("the path must be absolute".to_owned());
        }
        Ok(Self(ExplicitVolume { name, path }))
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.0.name, self.0.path.display())
    }
}

/// `settle` or `reread`.
struct Busy(BusyPolicy);

impl FromStr for Busy {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "settle" => Ok(Self(BusyPolicy::Settle)),
            "reread" => Ok(Self(BusyPolicy::Reread)),
            _ => Err("must be settle or reread"),
        }
    }
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            BusyPolicy::Settle => "settle",
            BusyPolicy::Reread => "reread",
        })
    }
}

/// `normal`, `low` or `idle`.
struct Level(Priority);

impl FromStr for Level {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "normal" => Ok(Self(Priority::Normal)),
            "low" => Ok(Self(Priority::Low)),
            "idle" => Ok(Self(Priority::Idle)),
            _ => Err("must be normal, low or idle"),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Priority::Normal => "normal",
            Priority::Low => "low",
            Priority::Idle => "idle",
        })
    }
}

/// A time span, or `off`.
struct Period(Option<Duration>);

impl FromStr for Period {
    type Err = <Span as FromStr>::Err;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self(None)),
            text => text.parse::<Span>().map(|span| Self(Some(span.0))),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("off"),
            Some(span) => Span(span).fmt(f),
        }
    }
}

impl FromStr for JournalSource {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "inotify" => Ok(Self::Inotify),
            "off" => Ok(Self::Off),
            _ => Err("must be auto, inotify or off"),
        }
    }
}

impl fmt::Display for JournalSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Inotify => "inotify",
            Self::Off => "off",
        })
    }
}

fn path(settings: &mut Settings, key: &str) -> Option<PathBuf> {
    settings.optional::<String>(key).map(PathBuf::from)
}

fn bytes(settings: &mut Settings, key: &str) -> Option<u64> {
    settings.optional::<ByteCount>(key).map(|count| count.0)
}

fn span(settings: &mut Settings, key: &str, default: Duration) -> Duration {
    settings.get(key, Span(default)).0
}

fn tls(settings: &mut Settings) -> Option<ClientTls> {
    let authorities = path(settings, "coordinator.tls_ca");
    let certificate = path(settings, "coordinator.tls_cert");
    let key = path(settings, "coordinator.tls_key");
    let server_name = settings.optional("coordinator.tls_name");
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            settings.refuse(
                "coordinator.tls_cert and coordinator.tls_key are given together or not at all",
            );
            None
        }
    };
    authorities.map(|authorities| ClientTls {
        authorities,
        server_name,
        identity,
    })
}

fn log(settings: &mut Settings) -> LogSettings {
    let defaults = LogSettings::default();
    let filter = settings.get("log.filter", defaults.filter);
    let format = settings.get("log.format", "auto".to_owned());
    let format = format.parse().unwrap_or_else(|error| {
        settings.refuse(format!("log.format {error}"));
        defaults.format
    });
    LogSettings { filter, format }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_errors_come_at_once() {
        let text = "
coordinator: {tls_cert: /x}
volumes: {paths: [web=relative, '-=/x']}
backup: {level: 99, busy: perhaps, speed: high}
";
        let mut settings = Settings::from_text("agent.yaml", text, []);
        AgentSettings::read(&mut settings);
        let errors = settings.finish().unwrap_err().0.join("\n");
        for part in [
            "coordinator.url is missing",
            "tls_key",
            "absolute",
            "must start with a letter",
            "backup.level",
            "settle or reread",
            "backup.speed",
        ] {
            assert!(errors.contains(part), "{part} in {errors}");
        }
    }

    #[test]
    fn the_environment_wins() {
        let text = "coordinator: {url: 'http://a'}\nvolumes: {paths: [web=/srv/web]}\n";
        let environment = [
            ("HOLDFAST_COORDINATOR_URL".to_owned(), "http://b".to_owned()),
            ("HOLDFAST_VOLUMES_PATHS".to_owned(), "x=/x,y=/y".to_owned()),
        ];
        let mut settings = Settings::from_text("agent.yaml", text, environment);
        let read = AgentSettings::read(&mut settings);
        settings.finish().unwrap();
        assert_eq!(read.coordinator, "http://b");
        assert_eq!(read.serve.volumes.explicit.len(), 2);
    }
}
