//! Statuses of the coordinator as errors of the agent.

use crate::Error;
use tonic::Code;
use tonic_types::StatusExt;

/// The error that a status stands for; `what` was attempted.
pub fn status(what: &'static str, status: &tonic::Status) -> Error {
    let message = status.message().to_owned();
    if let Some(info) = status.get_details_error_info() {
        let reason = info.reason;
        return Error::Refused {
            what,
            reason,
            message,
        };
    }
    match status.code() {
        // What a transport makes of a broken connection.
        Code::Unavailable | Code::Unknown | Code::Cancelled => {
            Error::Disconnected { what, message }
        }
        code => Error::Refused {
            what,
            reason: format!("{code:?}"),
            message,
        },
    }
}
