//! What an answer of etcd means, and what the lack of one does.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::Error;
use tokio::time::timeout;

use crate::store::{Cause, StoreError, StoreRevision};

/// Why there is no answer.
pub(super) enum Silence {
    Late,
    Refused(Error),
}

pub(super) async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Silence> {
    match timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Silence::Refused(error)),
        Err(_) => Err(Silence::Late),
    }
}

/// Whether an error says nothing about what the cluster did.
pub(super) fn is_silence(error: &Error) -> bool {
    use tonic::Code;
    match error {
        Error::GRpcStatus(status) => matches!(
            status.code(),
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::Unknown
                | Code::Internal
                | Code::Aborted
        ),
        Error::TransportError(_) | Error::IoError(_) => true,
        _ => false,
    }
}

/// Whether a request cannot have reached anybody: there was no connection to send it over.
pub(super) fn never_sent(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else { return false };
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

pub(super) fn refused(attempt: &str, error: Error) -> StoreError {
    use tonic::Code;
    match &error {
        Error::GRpcStatus(status) if status.code() == Code::ResourceExhausted => {
            StoreError::NoSpace(status.message().to_owned())
        }
        Error::GRpcStatus(status) if status.code() == Code::OutOfRange => StoreError::Compacted(StoreRevision(0)),
        _ => unavailable(attempt.to_owned(), error),
    }
}

pub(super) fn unavailable(attempt: String, error: Error) -> StoreError {
    StoreError::Unavailable { attempt, source: Arc::new(error) }
}

pub(super) fn late(attempt: &str) -> StoreError {
    StoreError::Unavailable { attempt: attempt.to_owned(), source: no_answer() }
}

pub(super) fn no_answer() -> Cause {
    Arc::new(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within the deadline"))
}
