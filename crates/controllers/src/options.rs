//! Settings of leader work.

use std::time::Duration;

use quorate_objects::net::Ipv4Net;
use quorate_scheduler::SchedulerOptions;

use crate::api_access::ApiAccess;
use crate::rebalance::RebalanceOptions;

/// Settings of leader work; the same on all masters.
#[derive(Clone, Debug)]
pub struct LeaderOptions {
    /// A node that is silent for this long is NotReady. Agents send a heartbeat every 500 ms.
    pub node_grace: Duration,
    /// Seconds that pods without a toleration of their own stay on a node that does not answer.
    pub default_unreachable_seconds: u64,
    /// Pods that are being deleted are removed from the store, without the agent's word, when
    /// their node has not answered for this long.
    pub force_delete_after: Duration,
    /// Pods of a node whose Node object is gone are removed after this time.
    pub missing_node_grace: Duration,
    /// Addresses of pods; each node gets a /24.
    pub pod_cidr: Ipv4Net,
    /// Every controller looks at everything this often, whatever events say.
    pub full_pass: Duration,
    /// Keys of one controller that are worked on at the same time.
    pub workers: usize,
    /// The pause of a Job after the first failure of a pod; it doubles with each further one.
    pub job_back_off: Duration,
    /// Autoscalers look at the figures this often.
    pub autoscale_interval: Duration,
    /// Whether and how pods are moved to even out the nodes.
    pub rebalance: RebalanceOptions,
    /// How programs in pods reach the masters; `None`: they are not told.
    pub api: Option<ApiAccess>,
    /// The scheduler's settings.
    pub scheduler: SchedulerOptions,
}

impl Default for LeaderOptions {
    fn default() -> Self {
        Self {
            node_grace: Duration::from_secs(2),
            default_unreachable_seconds: 0,
            force_delete_after: Duration::from_secs(300),
            missing_node_grace: Duration::from_secs(10),
            pod_cidr: Ipv4Net::new(std::net::Ipv4Addr::new(10, 144, 0, 0), 16),
            full_pass: Duration::from_secs(30),
            workers: 4,
            job_back_off: Duration::from_secs(10),
            autoscale_interval: Duration::from_secs(15),
            rebalance: RebalanceOptions::default(),
            api: None,
            scheduler: SchedulerOptions::default(),
        }
    }
}
