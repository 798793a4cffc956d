//! Calls on the scheduler.

use quorate_proto::v1;
use quorate_proto::v1::scheduler_client::SchedulerClient;

use crate::call::{Repeat, call};
use crate::{Client, ClientError};

impl Client {
    /// Why a pod is where it is, or nowhere.
    ///
    /// # Errors
    /// `NotFound`; what every call can meet.
    pub async fn explain(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<v1::ExplainResponse, ClientError> {
        let request = v1::ExplainRequest { namespace: namespace.to_owned(), name: name.to_owned() };
        call(&self.pool, &self.options, "explain", Repeat::Safe, request, |c, r| async {
            SchedulerClient::new(c).explain(r).await
        })
        .await
    }
}
