//! Which failures of a store are worth another try, and what the others mean. Decides; does nothing.
//!
//! A retry is always safe here: every object has the same bytes whenever its name is put.

use crate::repo::error::{Cause, RepoError};
use object_store::Error as StoreError;
use object_store::client::{HttpError, HttpErrorKind};
use std::error::Error;
use std::io;
use std::time::Duration;

use holdfast_runtime::backoff::BackoffPolicy;

/// How often and how long an operation is tried.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Tries, the first included.
    pub tries: u32,
    /// Waits between them.
    pub backoff: BackoffPolicy,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries: 7,
            backoff: BackoffPolicy {
                initial: Duration::from_millis(250),
                max: Duration::from_secs(20),
                factor: 2.0,
            },
        }
    }
}

/// The verb of a put.
pub(super) const WRITE: &str = "write";
const NO_BUCKET: &str = "there is no such bucket; create it first";

impl RetryPolicy {
    /// One try only.
    pub fn once() -> Self {
        Self {
            tries: 1,
            ..Self::default()
        }
    }
}

/// Whether the same request may succeed a little later.
pub(super) fn is_transient(error: &StoreError) -> bool {
    match error {
        StoreError::Generic { source, .. } => source_is_transient(source.as_ref()),
        // S3 answers 409 to two puts of one name at a time.
        StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => true,
        _ => false,
    }
}

fn source_is_transient(source: &(dyn Error + 'static)) -> bool {
    let mut transient = None;
    if asks_instance(source) {
        return false;
    }
    for cause in chain(source) {
        if let Some(error) = cause.downcast_ref::<HttpError>() {
            transient = Some(error.kind() != HttpErrorKind::Decode);
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            transient = Some(io_is_transient(error.kind()));
        }
        if let Some(status) = status_in(&cause.to_string()) {
            return matches!(status, 408 | 425 | 429)
                || (status >= 500 && status != 501 && status != 507);
        }
    }
    transient.unwrap_or(false)
}

/// Nobody answered where a cloud instance finds its credentials: there are none, and waiting brings none.
fn asks_instance(source: &(dyn Error + 'static)) -> bool {
    let unreachable = chain(source).any(|cause| {
        let kind = cause.downcast_ref::<HttpError>().map(HttpError::kind);
        matches!(kind, Some(HttpErrorKind::Connect | HttpErrorKind::Timeout))
    });
    unreachable && chain(source).any(|cause| cause.to_string().contains("//169.254.169.254/"))
}

fn io_is_transient(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as K;
    matches!(
        kind,
        K::Interrupted
            | K::TimedOut
            | K::WouldBlock
            | K::ConnectionReset
            | K::ConnectionAborted
            | K::ConnectionRefused
            | K::NotConnected
            | K::BrokenPipe
            | K::UnexpectedEof
    )
}

/// What a failure means for the caller. `verb` and `name` say what was attempted.
pub(super) fn meaning(error: StoreError, verb: &str, name: &str) -> RepoError {
    let doing = format!("{verb} {name}");
    match error {
        // What is written need not be there before: it is the bucket that is not.
        StoreError::NotFound { source, .. } if verb == WRITE => RepoError::StoreRefused {
            doing,
            advice: NO_BUCKET,
            source,
        },
        StoreError::NotFound { .. } => RepoError::ObjectMissing {
            name: name.to_owned(),
        },
        StoreError::PermissionDenied { source, .. } if is_full(source.as_ref()) => {
            RepoError::StoreFull {
                object: name.to_owned(),
                source,
            }
        }
        StoreError::PermissionDenied { source, .. } => RepoError::StoreRefused {
            doing,
            advice: "the credentials do not allow it; check the policy of the bucket and of the key",
            source,
        },
        StoreError::Unauthenticated { source, .. } => RepoError::StoreRefused {
            doing,
            advice: "the credentials were not accepted; check the key, its secret and the clock",
            source,
        },
        StoreError::Generic { source, .. } => generic(source, doing, name),
        other => RepoError::StoreUnavailable {
            doing,
            source: Box::new(other),
        },
    }
}

fn generic(source: Cause, doing: String, name: &str) -> RepoError {
    if is_full(source.as_ref()) {
        return RepoError::StoreFull {
            object: name.to_owned(),
            source,
        };
    }
    let advice = match asks_instance(source.as_ref()) {
        true => Some(
            "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where \
             the instance has a role",
        ),
        false => chain(source.as_ref()).find_map(refusal),
    };
    match advice {
        Some(advice) => RepoError::StoreRefused {
            doing,
            advice,
            source,
        },
        None => RepoError::StoreUnavailable { doing, source },
    }
}

/// What to do about a refusal, where the cause is one.
fn refusal(cause: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                return Some("permission denied; run as the owner of the directory");
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                return Some("the filesystem is mounted read-only; mount it for writing");
            }
            _ => {}
        }
    }
    let text = cause.to_string();
    match status_in(&text) {
        Some(400 | 401 | 403) => {
            Some("the request was not accepted; check credentials, region and endpoint")
        }
        Some(404) => Some(NO_BUCKET),
        Some(301 | 307) => Some("the bucket is in another region; set the region"),
        _ if text.contains("redirect without LOCATION") => {
            Some("the bucket is in another region; set the region")
        }
        _ => None,
    }
}

/// No room: of the filesystem, a quota, or a store that says so in its own words.
fn is_full(source: &(dyn Error + 'static)) -> bool {
    const WORDS: [&str; 6] = [
        "XMinioStorageFull",
        "InsufficientStorage",
        "QuotaExceeded",
        "storage cap exceeded",
        "storage_cap_exceeded",
        "EntityTooLargeForQuota",
    ];
    chain(source).any(|cause| {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            );
        }
        let text = cause.to_string();
        status_in(&text) == Some(507) || WORDS.iter().any(|word| text.contains(word))
    })
}

/// The HTTP status in a message of object_store, which does not let its error type be named.
fn status_in(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// An error and what is behind it. An `io::Error` hides the error it wraps from `source`.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        (*error).source()
    })
}

/// Whether a server answered a request for a range with the whole object (200 for 206), which
/// object_store refuses with a private error that only its debug form names.
pub(super) fn is_whole_answer(error: &StoreError) -> bool {
    matches!(error, StoreError::Generic { source, .. } if format!("{source:?}").contains("NotPartial"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(kind: io::Error) -> StoreError {
        StoreError::Generic {
            store: "test",
            source: Box::new(kind),
        }
    }

    fn said(text: &str) -> StoreError {
        StoreError::Generic {
            store: "S3",
            source: text.into(),
        }
    }

    #[test]
    fn failures_are_told_apart() {
        for (code, full) in [(28, true), (122, true), (5, false)] {
            let error = meaning(
                wrapped(io::Error::from_raw_os_error(code)),
                "write",
                "packs/x",
            );
            assert_eq!(matches!(error, RepoError::StoreFull { .. }), full, "{code}");
        }
        for code in [13, 30] {
            let error = meaning(
                wrapped(io::Error::from_raw_os_error(code)),
                "write",
                "packs/x",
            );
            assert!(matches!(error, RepoError::StoreRefused { .. }), "{code}");
        }
        let nowhere = || StoreError::NotFound {
            path: "x".into(),
            source: "x".into(),
        };
        let (put, get) = (
            meaning(nowhere(), WRITE, "x"),
            meaning(nowhere(), "read", "x"),
        );
        assert!(matches!(put, RepoError::StoreRefused { .. }));
        assert!(matches!(get, RepoError::ObjectMissing { .. }));
        let full = "Server returned non-2xx status code: 507 Insufficient Storage: x";
        assert!(matches!(
            meaning(said(full), "write", "x"),
            RepoError::StoreFull { .. }
        ));
        let refused = "Server returned non-2xx status code: 400 Bad Request: x";
        assert!(matches!(
            meaning(said(refused), "write", "x"),
            RepoError::StoreRefused { .. }
        ));
        let cap = StoreError::PermissionDenied {
            path: "x".into(),
            source: "Cannot upload files, storage cap exceeded.".into(),
        };
        assert!(matches!(
            meaning(cap, "write", "x"),
            RepoError::StoreFull { .. }
        ));
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, again) in [
            (500, true),
            (503, true),
            (429, true),
            (400, false),
            (507, false),
        ] {
            let text = format!("Server returned non-2xx status code: {status} Some Words");
            assert_eq!(is_transient(&said(&text)), again, "{status}");
        }
        assert!(is_transient(&wrapped(
            io::ErrorKind::ConnectionReset.into()
        )));
        for code in [28, 13, 5] {
            assert!(!is_transient(&wrapped(io::Error::from_raw_os_error(code))));
        }
        assert!(!is_transient(&said("anything else")));
    }
}
