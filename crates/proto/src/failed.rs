//! What is known of a call that failed.

use std::error::Error;

use tonic::Status;

/// Why nothing of the call can have reached the other side; `None` when it may have.
///
/// Either the connection was never made, or it had ended before the request was put on it, as
/// happens while a server goes away: it says so (GOAWAY), and what waits for a place is given back.
/// Such a call has no effect and may be made elsewhere.
pub fn never_sent(status: &Status) -> Option<&(dyn Error + 'static)> {
    let mut source = status.source();
    while let Some(error) = source {
        // hyper calls only those requests cancelled that it has not begun to send.
        let given_back =
            || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        if error.is::<tonic::ConnectError>() || given_back() {
            return Some(error);
        }
        source = error.source();
    }
    None
}

#[cfg(test)]
#[path = "failed_test.rs"]
mod tests;
