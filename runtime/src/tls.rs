//! The crypto provider of the process, and identities for gRPC read from files.
//!
//! [`install_provider`] must have been called before any TLS or HTTP client is made; it may be
//! called as often as one likes, by every program and test.

use std::path::{Path, PathBuf};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// Makes *ring* the crypto provider of the process, unless there is one.
pub fn install_provider() {
    // An error says that one is installed already: it can only be ours.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Files of a server's identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerTls {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Authorities whose client certificates are accepted, PEM; without it none is asked for.
    pub client_authorities: Option<PathBuf>,
}

/// What a client trusts, and who it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientTls {
    /// Authorities to trust, PEM.
    pub authorities: PathBuf,
    /// Name in the server's certificate, where it is not the one in the URL.
    pub server_name: Option<String>,
    /// Certificate chain and private key, PEM, where the server asks for them.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A file of an identity could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read TLS file {}", path.display())]
pub struct TlsError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

impl ServerTls {
    /// Reads the files.
    pub fn load(&self) -> Result<ServerTlsConfig, TlsError> {
        install_provider();
        let identity = Identity::from_pem(read(&self.certificate)?, read(&self.key)?);
        let config = ServerTlsConfig::new().identity(identity);
        Ok(match &self.client_authorities {
            Some(path) => config.client_ca_root(Certificate::from_pem(read(path)?)),
            None => config,
        })
    }
}

impl ClientTls {
    /// Reads the files.
    pub fn load(&self) -> Result<ClientTlsConfig, TlsError> {
        install_provider();
        let authorities = Certificate::from_pem(read(&self.authorities)?);
        let mut config = ClientTlsConfig::new().ca_certificate(authorities);
        if let Some(name) = &self.server_name {
            config = config.domain_name(name);
        }
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(config)
    }
}

/// Small files, read once at the start: no need to leave the thread.
fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named_and_the_provider_may_be_installed_twice() {
        install_provider();
        install_provider();
        let tls = ServerTls {
            certificate: "/no/such/cert.pem".into(),
            key: "/no/such/key.pem".into(),
            client_authorities: None,
        };
        assert!(
            tls.load()
                .unwrap_err()
                .to_string()
                .contains("/no/such/cert.pem")
        );
    }
}
