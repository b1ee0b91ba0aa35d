//! Opens the store behind a URL: the one place that names a kind of store. Requests of HTTP stores are
//! never tried again by object_store itself: `Store` does that for all of them alike.

use crate::repo::error::{RepoError, Result};
use crate::repo::local::{LocalDirectory, sync_parent};
use crate::repo::store::StoreOptions;
use crate::repo::url::{Service, StoreUrl, UrlOptions};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Whether a directory that is not there is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Directory {
    MustExist,
    MayBeMade,
}

pub(super) fn connect(
    url: &StoreUrl,
    options: &StoreOptions,
    directory: Directory,
) -> Result<Arc<dyn ObjectStore>> {
    match url {
        StoreUrl::Memory => Ok(Arc::new(InMemory::new())),
        StoreUrl::Directory(path) => {
            prepare(url, path, directory)?;
            match LocalDirectory::new(path) {
                Ok(store) => Ok(Arc::new(store)),
                Err(error) => Err(wrong(url, error)),
            }
        }
        StoreUrl::Bucket {
            service,
            bucket,
            prefix,
            options: from_url,
        } => {
            holdfast_runtime::tls::install_provider();
            let place = Place {
                bucket,
                endpoint: pick(&options.endpoint, &from_url.endpoint),
                region: pick(&options.region, &from_url.region),
                path_style: options.path_style.or(from_url.path_style),
            };
            let store = match service {
                Service::S3 => s3(&place, options),
                Service::Google => google(&place, options),
                Service::Azure => azure(&place, options),
            };
            let store = store.map_err(|error| wrong(url, error))?;
            Ok(if prefix.is_empty() {
                store
            } else {
                Arc::new(PrefixStore::new(store, prefix.as_str()))
            })
        }
    }
}

struct Place<'a> {
    bucket: &'a str,
    endpoint: Option<&'a str>,
    region: Option<&'a str>,
    path_style: Option<bool>,
}

/// What the caller says wins over what the URL says.
fn pick<'a>(given: &'a Option<String>, url: &'a Option<String>) -> Option<&'a str> {
    given.as_deref().or(url.as_deref())
}

type Opened = object_store::Result<Arc<dyn ObjectStore>>;

fn s3(place: &Place<'_>, options: &StoreOptions) -> Opened {
    // AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL,
    // web identity, container and instance roles.
    let mut builder = AmazonS3Builder::from_env();
    for (key, value) in keys(options) {
        builder = builder.with_config(key, value);
    }
    builder = builder
        .with_bucket_name(place.bucket)
        .with_retry(no_retry());
    let mut endpoint = place.endpoint.map(str::to_owned);
    for variable in ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"] {
        endpoint = endpoint.or_else(|| look_up(options, variable));
    }
    if let Some(endpoint) = place.endpoint {
        // Both keys: the one of S3 alone would win if it came from the environment.
        builder = builder
            .with_config("aws_endpoint_url_s3".parse()?, endpoint)
            .with_endpoint(endpoint);
    }
    if let Some(region) = place.region {
        builder = builder.with_region(region);
    }
    if let Some(path_style) = place.path_style {
        builder = builder.with_virtual_hosted_style_request(!path_style);
    }
    let client = client_options(options, endpoint.as_deref());
    Ok(Arc::new(builder.with_client_options(client).build()?))
}

fn google(place: &Place<'_>, options: &StoreOptions) -> Opened {
    let mut builder = GoogleCloudStorageBuilder::from_env();
    for (key, value) in keys(options) {
        builder = builder.with_config(key, value);
    }
    builder = builder
        .with_bucket_name(place.bucket)
        .with_retry(no_retry())
        .with_client_options(client_options(options, place.endpoint));
    if let Some(endpoint) = place.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    Ok(Arc::new(builder.build()?))
}

fn azure(place: &Place<'_>, options: &StoreOptions) -> Opened {
    let mut builder = MicrosoftAzureBuilder::from_env();
    for (key, value) in keys(options) {
        builder = builder.with_config(key, value);
    }
    builder = builder
        .with_container_name(place.bucket)
        .with_retry(no_retry())
        .with_client_options(client_options(options, place.endpoint));
    if let Some(endpoint) = place.endpoint {
        builder = builder.with_endpoint(endpoint.to_owned());
    }
    Ok(Arc::new(builder.build()?))
}

/// The variables that a builder knows.
fn keys<K: FromStr>(options: &StoreOptions) -> impl Iterator<Item = (K, &str)> {
    let variables = options.variables.iter();
    variables.filter_map(|(name, value)| {
        let key = name.to_ascii_lowercase().parse().ok()?;
        Some((key, value.as_str()))
    })
}

fn look_up(options: &StoreOptions, variable: &str) -> Option<String> {
    let given = options.variables.iter().find(|(name, _)| name == variable);
    match given {
        Some((_, value)) => Some(value.clone()),
        None => std::env::var(variable).ok(),
    }
}

/// Plain HTTP only where the endpoint says so.
fn client_options(options: &StoreOptions, endpoint: Option<&str>) -> ClientOptions {
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    ClientOptions::new()
        .with_timeout(options.request_limit)
        .with_connect_timeout(options.connect_timeout)
        .with_allow_http(plain)
}

fn no_retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 0,
        retry_timeout: Duration::ZERO,
    }
}

/// A repository's directory is a directory itself, not a link to one: what a link points to can be
/// exchanged behind our back.
fn prepare(url: &StoreUrl, path: &Path, directory: Directory) -> Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return match directory {
                Directory::MustExist => Err(RepoError::RepositoryMissing {
                    store: url.display(),
                }),
                Directory::MayBeMade => {
                    make(path).map_err(|error| RepoError::io("create directory", path, error))
                }
            };
        }
        Err(error) => return Err(RepoError::io("look at", path, error)),
    };
    if found.is_symlink() {
        let target = std::fs::read_link(path).unwrap_or_default();
        let target = target.display();
        return Err(wrong(
            url,
            format!("is a symbolic link; give its target ({target}) instead"),
        ));
    }
    if !found.is_dir() {
        return Err(wrong(url, "is not a directory"));
    }
    Ok(())
}

/// The directory 0700; those above it as the umask has it. Each is durable.
fn make(path: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        let mode = if dir == path { 0o700 } else { 0o777 };
        match std::fs::DirBuilder::new().mode(mode).create(dir) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        sync_parent(dir)?;
    }
    Ok(())
}

fn wrong(url: &StoreUrl, detail: impl ToString) -> RepoError {
    RepoError::StoreUrl {
        url: url.display(),
        detail: detail.to_string(),
    }
}

/// Refuses options that have no meaning for a URL.
pub(super) fn check_options(url: &StoreUrl, options: &StoreOptions) -> Result<()> {
    let given = UrlOptions {
        endpoint: options.endpoint.clone(),
        region: options.region.clone(),
        path_style: options.path_style,
    };
    let bucket = matches!(url, StoreUrl::Bucket { .. });
    if !bucket && given != UrlOptions::default() {
        return Err(wrong(
            url,
            "endpoint, region and path style are for buckets only",
        ));
    }
    Ok(())
}
