//! How the coordinator's certificate is checked: by the authority that the chart publishes beside it, in a
//! ConfigMap that anybody may be let read, as there is no key in it.

use super::Cluster;
use super::api::{code, failure, text};
use super::find::Found;
use super::kinds::CONFIG_MAPS;
use crate::args::Global;
use crate::connect::identity;
use crate::failure::{Exit, Failure, Outcome};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// What a coordinator's certificate is checked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Its authorities, PEM.
    pub authorities: Vec<u8>,
    /// The name in it.
    pub server_name: String,
}

/// Name of the ConfigMap.
pub fn config_map(found: &Found) -> String {
    format!("{}-trust", found.owner)
}

/// Reads it; `None`: this installation has no TLS.
pub async fn find(cluster: &Cluster, found: &Found, global: &Global) -> Outcome<Option<Trust>> {
    let name = config_map(found);
    let published = match cluster.get(&CONFIG_MAPS, &found.namespace, &name).await {
        Ok(object) => Some(object),
        Err(error) if code(&error) == Some(404) => None,
        Err(error) if code(&error) == Some(403) => {
            return Err(Failure::with(
                Exit::NotAllowed,
                format!(
                    "you may not read ConfigMap {name} of namespace {}, by which the coordinator's certificate is \
                     checked: have the Role holdfast-connect bound to you there (deploy/README.md)",
                    found.namespace
                ),
            ));
        }
        Err(error) => {
            let doing = format!("read ConfigMap {name} of namespace {}", found.namespace);
            return Err(failure(cluster, &doing, &error));
        }
    };
    let data = published.map(|object| object["data"].clone());
    let server_name = match data.as_ref().map(|data| text(&data["server-name"])) {
        None | Some("") => format!("{}.{}.svc", found.owner, found.namespace),
        Some(name) => name.to_owned(),
    };
    if let Some(file) = &global.ca_file {
        let authorities = std::fs::read(file)
            .map_err(|e| Failure::usage(format!("--ca-file {}: {e}", file.display())))?;
        return Ok(Some(Trust {
            authorities,
            server_name,
        }));
    }
    match data {
        None if !found.is_tls => Ok(None),
        None => Err(Failure::usage(format!(
            "there is no ConfigMap {}/{name}, by which the coordinator's certificate is checked: its authority is not \
             the chart's own; put the authority's certificate into `tls.authority` of the values, or give it with \
             --ca-file FILE",
            found.namespace
        ))),
        Some(data) => match text(&data["ca.crt"]) {
            "" => Err(Failure::usage(format!(
                "ConfigMap {}/{name} has no ca.crt: this installation's certificate is not of the chart's own \
                 authority; put the authority's certificate into `tls.authority` of its values, or give it with \
                 --ca-file FILE",
                found.namespace
            ))),
            authorities => Ok(Some(Trust {
                authorities: authorities.as_bytes().to_vec(),
                server_name,
            })),
        },
    }
}

impl Trust {
    /// As a connection needs it, with the client's certificate where one was named.
    pub fn config(&self, global: &Global) -> Outcome<ClientTlsConfig> {
        let config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.authorities))
            .domain_name(&self.server_name);
        let Some((chain, key)) = identity(global)? else {
            return Ok(config);
        };
        let read = |file: &std::path::Path| {
            std::fs::read(file)
                .map_err(|e| Failure::usage(format!("--client-cert {}: {e}", file.display())))
        };
        Ok(config.identity(Identity::from_pem(read(&chain)?, read(&key)?)))
    }
}
