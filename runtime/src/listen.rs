//! Where a server listens: `unix:PATH`, an absolute path, or `ADDRESS:PORT`.
//!
//! Until identity exists, plaintext is allowed on loopback and unix sockets only. A socket file is
//! made 0600, and one that nobody answers on is replaced.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tokio::net::{UnixListener, UnixStream};

/// A place to listen or to connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// Address and port.
    Tcp(SocketAddr),
    /// Socket file.
    Unix(PathBuf),
}

/// A unix socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody answers on it.
    #[error("socket {} is in use: another process is listening on it", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} exists and is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot listen on {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Listen {
    /// Whether only this host can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Listen::Unix(_) => true,
            Listen::Tcp(address) => match address.ip() {
                IpAddr::V4(ip) => ip.is_loopback(),
                IpAddr::V6(ip) => {
                    ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
                }
            },
        }
    }
}

impl FromStr for Listen {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let path = text
            .strip_prefix("unix:")
            .or(text.starts_with('/').then_some(text));
        if let Some(path) = path {
            // `unix:///run/x` and `unix:/run/x` are the same.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') {
                Ok(Listen::Unix(path.into()))
            } else {
                Err("a socket's path must be absolute".into())
            };
        }
        text.parse()
            .map(Listen::Tcp)
            .map_err(|_| "must be ADDRESS:PORT or unix:/PATH".into())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Listens on a socket file of mode 0600.
///
/// It is bound under a temporary name, narrowed, then renamed: nobody else can ever connect. A
/// leftover of a killed process is replaced; one that somebody answers on is not.
pub async fn bind_unix(path: &Path) -> Result<UnixListener, ListenError> {
    let io = |source| ListenError::Io {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            return Err(ListenError::InUse {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    // Only a process of our own number can have left it.
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary).map_err(io)?;
    let narrow = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&temporary, narrow).map_err(io)?;
    std::fs::rename(&temporary, path).map_err(io)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_parse_and_know_whether_they_are_local() {
        for (text, local) in [
            ("127.0.0.1:7270", true),
            ("[::1]:7270", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:7270", false),
            ("[::]:7270", false),
            ("10.0.0.1:7270", false),
            ("unix:/run/holdfast.sock", true),
            ("unix:///run/holdfast.sock", true),
            ("/run/holdfast.sock", true),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().is_local(), local, "{text}");
        }
        for bad in ["", "7270", "localhost:7270", "unix:run/x", "unix:"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_socket_is_private_replaced_when_dead_and_respected_when_alive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(bind_unix(&path).await.unwrap());
        let alive = bind_unix(&path).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(
            bind_unix(&path).await,
            Err(ListenError::InUse { .. })
        ));
        drop(alive);
        let file = dir.path().join("f");
        std::fs::write(&file, b"x").unwrap();
        assert!(matches!(
            bind_unix(&file).await,
            Err(ListenError::NotASocket { .. })
        ));
    }
}
