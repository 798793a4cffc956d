//! The filters' names, and the reasons they give.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A filter, by the name that `quorate why` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// `spec.unschedulable`.
    NodeUnschedulable,
    /// `spec.nodeName` of the pod.
    NodeName,
    /// Taints with NoSchedule or NoExecute.
    TaintToleration,
    /// The node's Ready condition.
    NodeReady,
    /// `nodeSelector` and required node affinity.
    NodeAffinity,
    /// Ports on the node.
    NodePorts,
    /// Processor, memory, disk, extended resources, number of pods.
    NodeResourcesFit,
    /// Where the volumes of its claims can be.
    VolumeBinding,
    /// `topologySpreadConstraints` with DoNotSchedule.
    PodTopologySpread,
    /// Required affinity and anti-affinity to pods, its own and that of others.
    InterPodAffinity,
}

impl Filter {
    const ALL: [Self; 10] = [
        Self::NodeUnschedulable,
        Self::NodeName,
        Self::TaintToleration,
        Self::NodeReady,
        Self::NodeAffinity,
        Self::NodePorts,
        Self::NodeResourcesFit,
        Self::VolumeBinding,
        Self::PodTopologySpread,
        Self::InterPodAffinity,
    ];
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Some filters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilterSet(u16);

impl FilterSet {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self::from(Filter::ALL)
    }

    /// None?
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// One by one.
    pub(crate) fn each(self) -> impl Iterator<Item = Self> {
        Filter::ALL.into_iter().map(|filter| Self::from([filter])).filter(move |f| f.meets(self))
    }

    /// Is one of them among the others?
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Can it be judged by looking at one node, whatever is elsewhere?
    #[must_use]
    pub(crate) fn is_local(self) -> bool {
        const ELSEWHERE: [Filter; 3] =
            [Filter::VolumeBinding, Filter::PodTopologySpread, Filter::InterPodAffinity];
        !self.meets(ELSEWHERE.into())
    }
}

impl<const N: usize> From<[Filter; N]> for FilterSet {
    fn from(filters: [Filter; N]) -> Self {
        Self(filters.into_iter().fold(0, |set, filter| set | 1 << filter as u16))
    }
}

impl BitOr for FilterSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for FilterSet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What a node lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    /// It may have no more pods.
    pub pods: bool,
    /// Processor.
    pub cpu: bool,
    /// Memory.
    pub memory: bool,
    /// Disk.
    pub ephemeral: bool,
    /// Extended resources, by name.
    pub extended: Vec<String>,
}

/// Why a node will not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The pod names another.
    NodeName,
    /// It is cordoned.
    Unschedulable,
    /// It has a taint.
    Taint {
        /// The taint's key.
        key: String,
        /// The taint's value.
        value: String,
    },
    /// It is not ready.
    NotReady,
    /// It is none of those that the pod selects.
    NodeAffinity,
    /// A port is taken.
    Ports,
    /// It is too full.
    Resources(Lack),
    /// A claim will not do, in words.
    Claim(String),
    /// A claim is for one pod only, and another uses it.
    ClaimInUse,
    /// No volume that is free for a claim can be there.
    NoVolume,
    /// A volume cannot be there.
    VolumeAffinity,
    /// Its domain has too many such pods.
    Spread,
    /// It has not the label over which pods are spread.
    SpreadLabel,
    /// No pod is there that the pod wants to be with.
    Affinity,
    /// A pod is there that the pod must not be with.
    AntiAffinity,
    /// A pod is there that must not be with the pod.
    ExistingAntiAffinity,
}

impl Reason {
    /// The filter that refused.
    #[must_use]
    pub fn filter(&self) -> Filter {
        match self {
            Self::NodeName => Filter::NodeName,
            Self::Unschedulable => Filter::NodeUnschedulable,
            Self::Taint { .. } => Filter::TaintToleration,
            Self::NotReady => Filter::NodeReady,
            Self::NodeAffinity => Filter::NodeAffinity,
            Self::Ports => Filter::NodePorts,
            Self::Resources(_) => Filter::NodeResourcesFit,
            Self::Claim(_) | Self::ClaimInUse | Self::NoVolume | Self::VolumeAffinity => {
                Filter::VolumeBinding
            }
            Self::Spread | Self::SpreadLabel => Filter::PodTopologySpread,
            Self::Affinity | Self::AntiAffinity | Self::ExistingAntiAffinity => {
                Filter::InterPodAffinity
            }
        }
    }

    /// Could the node do if pods left it?
    #[must_use]
    pub fn may_be_preempted(&self) -> bool {
        matches!(
            self,
            Self::Ports
                | Self::Resources(_)
                | Self::Spread
                | Self::AntiAffinity
                | Self::ExistingAntiAffinity
        )
    }

    /// In words, each as Kubernetes says it behind the number of nodes (several when several
    /// resources lack).
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let one = |text: &str| vec![text.to_owned()];
        match self {
            Self::NodeName => one("node(s) didn't match the requested node name"),
            Self::Unschedulable => one("node(s) were unschedulable"),
            Self::Taint { key, value } => {
                vec![format!("node(s) had untolerated taint {{{key}: {value}}}")]
            }
            Self::NotReady => one("node(s) were not ready"),
            Self::NodeAffinity => one("node(s) didn't match Pod's node affinity/selector"),
            Self::Ports => one("node(s) didn't have free ports for the requested pod ports"),
            Self::Resources(lack) => lack.words(),
            Self::Claim(text) => one(text),
            Self::ClaimInUse => one(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod \
                 access mode",
            ),
            Self::NoVolume => one("node(s) didn't find available persistent volumes to bind"),
            Self::VolumeAffinity => one("node(s) had volume node affinity conflict"),
            Self::Spread => one("node(s) didn't match pod topology spread constraints"),
            Self::SpreadLabel => {
                one("node(s) didn't match pod topology spread constraints (missing required label)")
            }
            Self::Affinity => one("node(s) didn't match pod affinity rules"),
            Self::AntiAffinity => one("node(s) didn't match pod anti-affinity rules"),
            Self::ExistingAntiAffinity => {
                one("node(s) didn't satisfy existing pods anti-affinity rules")
            }
        }
    }
}

impl Lack {
    fn words(&self) -> Vec<String> {
        let named = [
            (self.pods, "Too many pods"),
            (self.cpu, "Insufficient cpu"),
            (self.memory, "Insufficient memory"),
            (self.ephemeral, "Insufficient ephemeral-storage"),
        ];
        let named = named.into_iter().filter(|(lacks, _)| *lacks).map(|(_, text)| text.to_owned());
        named.chain(self.extended.iter().map(|name| format!("Insufficient {name}"))).collect()
    }
}
