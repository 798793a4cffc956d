//! `quorate.v1.Scheduler`: why pods are where they are.

use quorate_proto::v1;
use quorate_proto::v1::scheduler_server::Scheduler;
use quorate_registry::RegistryError;
use quorate_store::SharedStore;
use tonic::{Request, Response, Status};

use crate::error::{bad_request, registry_status};
use crate::limits::{Effect, within};
use crate::server::Explain;

pub(crate) struct SchedulerService {
    pub store: SharedStore,
    pub explain: Option<Explain>,
}

#[tonic::async_trait]
impl Scheduler for SchedulerService {
    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let (metadata, _, r) = request.into_parts();
        if r.namespace.is_empty() || r.name.is_empty() {
            return Err(bad_request("namespace and name of the pod must be given"));
        }
        let leadership = self.store.leadership().borrow().clone();
        let Some(explain) = self.explain.as_ref().filter(|_| leadership.ready.is_some()) else {
            return Err(registry_status(RegistryError::Unavailable {
                reason: "this master does not lead, ask the leader".into(),
                leader: leadership.leader.map(|m| m.client_url),
            }));
        };
        let answer = async { explain(r.namespace, r.name).await.map_err(registry_status) };
        within(&metadata, Effect::Read, answer).await.map(Response::new)
    }
}
