//! Where a repository is, as people write it: a path, `file://`, `s3://`, `gs://`, `az://`, `memory:`.
//!
//! Parsing decides everything and touches nothing. Credentials have no place in a URL and are refused
//! there, so that a URL may be printed.

use crate::repo::error::RepoError;
use std::path::PathBuf;

/// A place that can hold a repository.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreUrl {
    /// A directory, absolute.
    Directory(PathBuf),
    /// A bucket or container.
    Bucket {
        /// Which service.
        service: Service,
        /// Bucket or container.
        bucket: String,
        /// Names begin with this; without slashes at its ends, may be empty.
        prefix: String,
        /// From `?endpoint=…&region=…&path_style=…`.
        options: UrlOptions,
    },
    /// Memory of this process.
    Memory,
}

/// A kind of object storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// Amazon S3 and everything that speaks like it.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

/// What a URL's query may say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UrlOptions {
    /// Address of the service, where it is not the usual one.
    pub endpoint: Option<String>,
    /// Region of the bucket.
    pub region: Option<String>,
    /// Whether the bucket stands in the path; else in the host name.
    pub path_style: Option<bool>,
}

impl StoreUrl {
    /// Reads a URL or a path. A relative path is taken from the working directory.
    pub fn parse(text: &str) -> Result<Self, RepoError> {
        let wrong = |detail: &str| RepoError::StoreUrl {
            url: redacted(text),
            detail: detail.to_owned(),
        };
        if text.is_empty() {
            return Err(wrong("is empty"));
        }
        let Some((scheme, rest)) = scheme_of(text) else {
            if let Some(scheme) = other_tools_scheme(text) {
                return Err(wrong(&format!(
                    "{}; use ./NAME if you mean a directory",
                    unknown(scheme)
                )));
            }
            return directory(text).ok_or_else(|| wrong("is no usable path"));
        };
        match scheme {
            "file" => {
                let path = match rest.strip_prefix("//") {
                    Some(rest) => match rest.find('/') {
                        Some(0) => rest,
                        Some(at) if &rest[..at] == "localhost" => &rest[at..],
                        _ => return Err(wrong("a file URL has three slashes: file:///directory")),
                    },
                    None => rest,
                };
                let path = percent_decoded(path).ok_or_else(|| wrong("has a wrong % sequence"))?;
                if !path.starts_with('/') {
                    return Err(wrong("a file URL needs an absolute path"));
                }
                directory(&path).ok_or_else(|| wrong("is no usable path"))
            }
            "memory" => Ok(Self::Memory),
            "s3" | "s3a" => bucket(Service::S3, rest).map_err(|detail| wrong(&detail)),
            "gs" => bucket(Service::Google, rest).map_err(|detail| wrong(&detail)),
            "az" | "azure" => bucket(Service::Azure, rest).map_err(|detail| wrong(&detail)),
            _ => Err(wrong(&unknown(scheme))),
        }
    }

    /// As it may be printed and parsed again.
    pub fn display(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::Memory => "memory:".into(),
            Self::Bucket {
                service,
                bucket,
                prefix,
                ..
            } => {
                let scheme = match service {
                    Service::S3 => "s3",
                    Service::Google => "gs",
                    Service::Azure => "az",
                };
                let slash = if prefix.is_empty() { "" } else { "/" };
                format!("{scheme}://{bucket}{slash}{prefix}")
            }
        }
    }
}

/// A URL that could not be read, without what may be a password in it.
fn redacted(text: &str) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    let end = text[start..].find('/').map_or(text.len(), |at| start + at);
    match text[start..end].rfind('@') {
        Some(at) => format!("{}…{}", &text[..start], &text[start + at..]),
        None => text.to_owned(),
    }
}

/// Scheme and what follows the colon.
fn scheme_of(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let plain = scheme.len() >= 2
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let url =
        rest.starts_with("//") || scheme == "file" && rest.starts_with('/') || scheme == "memory";
    (plain && url).then_some((scheme, rest))
}

/// What stands before the colon in `sftp:user@host:/x` or `b2:bucket:x`. A directory is hardly ever
/// called so, and one that was made by mistake is no backup anywhere else.
fn other_tools_scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let starts = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte);
    (starts && scheme.bytes().all(plain)).then_some(scheme)
}

/// What to use in place of a scheme that is none.
fn unknown(scheme: &str) -> String {
    match scheme.to_ascii_lowercase().as_str() {
        "b2" => {
            "use s3://bucket/prefix with AWS_ENDPOINT_URL=https://s3.REGION.backblazeb2.com".into()
        }
        "http" | "https" => {
            "use s3://bucket/prefix, with the server's address in AWS_ENDPOINT_URL".into()
        }
        _ => format!("unknown scheme {scheme}; use a path, file://, s3://, gs:// or az://"),
    }
}

fn directory(path: &str) -> Option<StoreUrl> {
    if path.contains('\0') {
        return None;
    }
    let absolute = std::path::absolute(path).ok()?;
    // `absolute` keeps a slash at the end, and `..`, which the system resolves.
    let trimmed: PathBuf = absolute.components().collect();
    Some(StoreUrl::Directory(trimmed))
}

fn bucket(service: Service, rest: &str) -> Result<StoreUrl, String> {
    let rest = rest.strip_prefix("//").ok_or("needs // after the scheme")?;
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let (bucket, prefix) = match place.split_once('/') {
        Some((bucket, prefix)) => (bucket, prefix),
        None => (place, ""),
    };
    if bucket.contains('@') || bucket.contains(':') {
        return Err(
            "credentials and ports do not belong here; use AWS_ACCESS_KEY_ID, \
                    AWS_SECRET_ACCESS_KEY and an endpoint option"
                .into(),
        );
    }
    if bucket.is_empty() {
        return Err("names no bucket".into());
    }
    let prefix = percent_decoded(prefix.trim_matches('/')).ok_or("has a wrong % sequence")?;
    let odd = |part: &str| part.is_empty() || part == "." || part == "..";
    if !prefix.is_empty() && prefix.split('/').any(odd) {
        return Err("the prefix has an empty or relative part".into());
    }
    let mut options = UrlOptions::default();
    for pair in query
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (key, value) = pair.split_once('=').ok_or("an option needs a value")?;
        let value = percent_decoded(value).ok_or("has a wrong % sequence")?;
        match key {
            "endpoint" => options.endpoint = Some(value),
            "region" => options.region = Some(value),
            "path_style" => {
                let style = value
                    .parse()
                    .map_err(|_| "path_style must be true or false")?;
                options.path_style = Some(style);
            }
            _ => {
                return Err(format!(
                    "unknown option {key:?}; known are endpoint, region and path_style"
                ));
            }
        }
    }
    Ok(StoreUrl::Bucket {
        service,
        bucket: bucket.to_owned(),
        prefix,
        options,
    })
}

/// Percent sequences as bytes; `None` where one is wrong or the result is no UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = (bytes.next()? as char).to_digit(16)?;
            let low = (bytes.next()? as char).to_digit(16)?;
            out.push((high * 16 + low) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> PathBuf {
        match StoreUrl::parse(text).unwrap() {
            StoreUrl::Directory(path) => path,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_and_file_urls() {
        assert_eq!(path("/srv/a b%20c"), PathBuf::from("/srv/a b%20c"));
        assert_eq!(path("file:///srv/a%20b/"), PathBuf::from("/srv/a b"));
        assert_eq!(path("file://localhost/srv"), PathBuf::from("/srv"));
        assert_eq!(path("file:/srv"), PathBuf::from("/srv"));
        assert_eq!(path("file:///srv/%C3%A4"), PathBuf::from("/srv/ä"));
        assert!(path("repo").is_absolute());
        assert!(path("./odd:name").ends_with("odd:name"));
        assert!(path("/srv/odd:name").ends_with("odd:name"));
        assert!(path("od d:name").ends_with("od d:name"));
        for bad in [
            "",
            "file://host/srv",
            "file:///%zz",
            "file:///%ff",
            "file:///a%00b",
            "ftp://x/y",
        ] {
            assert!(StoreUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_other_tools_call_a_place_is_no_directory() {
        for (text, hint) in [
            ("sftp:u:sesame@host:/x", "./NAME"),
            ("rclone+x:y", "unknown scheme rclone+x"),
            ("S3://b/x", "unknown scheme S3"),
            ("b2:bucket:x", "AWS_ENDPOINT_URL"),
            ("b2://x/y", "AWS_ENDPOINT_URL"),
            ("https://minio/b", "AWS_ENDPOINT_URL"),
        ] {
            let error = StoreUrl::parse(text).unwrap_err().to_string();
            assert!(
                error.contains(hint) && !error.contains("sesame"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn buckets_with_prefix_and_options() {
        let url = "s3://b/p/q/?endpoint=http://127.0.0.1:9000&region=x&path_style=true";
        let parsed = StoreUrl::parse(url).unwrap();
        assert_eq!(parsed.display(), "s3://b/p/q");
        let StoreUrl::Bucket {
            options, service, ..
        } = parsed
        else {
            panic!()
        };
        assert_eq!(service, Service::S3);
        assert_eq!(options.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(options.path_style, Some(true));
        assert_eq!(StoreUrl::parse("gs://b").unwrap().display(), "gs://b");
        for bad in [
            "s3://",
            "s3:///p",
            "s3://b/a//c",
            "s3://b/../c",
            "s3://b?x=1",
            "s3://b?region",
        ] {
            assert!(StoreUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        let error = StoreUrl::parse("s3://key:sesame@b/p")
            .unwrap_err()
            .to_string();
        assert!(!error.contains("sesame"), "{error}");
    }
}
