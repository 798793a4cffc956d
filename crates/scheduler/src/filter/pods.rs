//! Filters that look at pods elsewhere: topology spread, affinity and anti-affinity.

use std::sync::Arc;

use super::{NodeView, Reason, matches_affinity, untolerated};
use crate::needs::{Needs, Spread};
use crate::snapshot::{
    Class, ClassState, ClusterSnapshot, Counts, Domain, Memory, NO_DOMAIN, Term,
};

/// What a pod asks of the places of other pods, worked out once per decision.
pub(crate) struct PodRules<'a> {
    spread: Vec<SpreadRule<'a>>,
    affinity: Vec<&'a Term>,
    /// No such pod is anywhere, and the pod is one of them itself: then it is the first.
    first: bool,
    anti_affinity: Vec<&'a Term>,
    /// Terms of others that must not be with pods like this one.
    repelling: Vec<&'a Term>,
}

struct SpreadRule<'a> {
    rule: &'a Spread,
    term: &'a Term,
    /// Pods in the domain with the fewest, where that matters.
    fewest: i64,
    /// Is the pod one of those that are to be spread?
    own: i64,
}

impl<'a> PodRules<'a> {
    pub fn new(snapshot: &'a ClusterSnapshot, class: &'a Class, memory: &mut Memory) -> Self {
        let topology = snapshot.topology();
        let state = topology.class(class);
        let find = |ids: &[u32]| ids.iter().filter_map(|id| topology.term(*id)).collect::<Vec<_>>();
        let affinity = find(&state.affinity);
        let first = affinity.iter().all(|term| term.matching.is_empty())
            && state.affinity.iter().all(|id| state.is_matched(*id));
        let mut repelling = find(&state.matched);
        repelling.retain(|term| !term.repelled.is_empty());
        Self {
            spread: spread_rules(snapshot, class, memory),
            affinity,
            first,
            anti_affinity: find(&state.anti_affinity),
            repelling,
        }
    }

    /// Will the node do?
    ///
    /// # Errors
    /// The first refusal.
    pub fn check(&self, view: NodeView<'_>) -> Result<(), Reason> {
        let topology = view.snapshot.topology();
        for rule in &self.spread {
            let domain = topology.domain(rule.term, view.slot);
            if domain == NO_DOMAIN {
                return Err(Reason::SpreadLabel);
            }
            let there = staying(rule.term, domain) - self.gone(view, rule.term, true);
            if there + rule.own - rule.fewest.min(there) > rule.rule.max_skew {
                return Err(Reason::Spread);
            }
        }
        let count = |term: &Term, counts: &Counts| match topology.domain(term, view.slot) {
            NO_DOMAIN => 0,
            domain => counts.get(domain),
        };
        for term in &self.affinity {
            let labelled = topology.domain(term, view.slot) != NO_DOMAIN;
            let with = count(term, &term.matching) - self.gone(view, term, false) > 0;
            if !labelled || !(with || self.first) {
                return Err(Reason::Affinity);
            }
        }
        for term in &self.anti_affinity {
            if count(term, &term.matching) - self.gone(view, term, false) > 0 {
                return Err(Reason::AntiAffinity);
            }
        }
        for term in &self.repelling {
            if count(term, &term.repelled) - repelling_gone(view, term) > 0 {
                return Err(Reason::ExistingAntiAffinity);
            }
        }
        Ok(())
    }

    /// How many of the pods that the node is thought without are meant by the term.
    fn gone(&self, view: NodeView<'_>, term: &Term, staying: bool) -> i64 {
        let pods = view.without.iter().filter_map(|id| view.snapshot.pod(*id));
        let meant =
            pods.filter(|pod| !(staying && pod.deleting) && means(view.snapshot, term, &pod.class));
        i64::try_from(meant.count()).unwrap_or(i64::MAX)
    }
}

fn means(snapshot: &ClusterSnapshot, term: &Term, class: &Class) -> bool {
    let topology = snapshot.topology();
    let matched = topology.class(class).matched.iter();
    matched.filter_map(|id| topology.term(*id)).any(|other| Arc::ptr_eq(&other.what, &term.what))
}

fn repelling_gone(view: NodeView<'_>, term: &Term) -> i64 {
    let pods = view.without.iter().filter_map(|id| view.snapshot.pod(*id));
    let repelling = pods.filter(|pod| pod.class.needs().anti_affinity.contains(&term.what));
    i64::try_from(repelling.count()).unwrap_or(i64::MAX)
}

/// Pods that the term means in the domain, but for those being deleted.
pub(crate) fn staying(term: &Term, domain: Domain) -> i64 {
    term.matching.get(domain) - term.leaving.get(domain)
}

fn spread_rules<'a>(
    snapshot: &'a ClusterSnapshot,
    class: &'a Class,
    memory: &mut Memory,
) -> Vec<SpreadRule<'a>> {
    let needs = class.needs();
    if !needs.spread.iter().any(|spread| spread.required) {
        return Vec::new();
    }
    let topology = snapshot.topology();
    let state = topology.class(class);
    let domains = domains(snapshot, needs, state, memory);
    let rules = needs.spread.iter().zip(&state.spread).zip(domains.iter());
    rules
        .filter(|((rule, _), _)| rule.required)
        .filter_map(|((rule, id), domains)| {
            let term = topology.term(*id)?;
            let enough = rule.min_domains.is_none_or(|wanted| domains.len() >= wanted);
            let fewest = if enough { fewest(term, domains) } else { 0 };
            Some(SpreadRule { rule, term, fewest, own: i64::from(state.is_matched(*id)) })
        })
        .collect()
}

fn fewest(term: &Term, domains: &[Domain]) -> i64 {
    let mut fewest = i64::MAX;
    for domain in domains {
        fewest = fewest.min(staying(term, *domain));
        if fewest == 0 {
            break;
        }
    }
    if fewest == i64::MAX { 0 } else { fewest }
}

/// For each spread constraint, the domains over which it counts: those of nodes that have the
/// labels of all required constraints, and that the policies of the constraint do not exclude.
fn domains(
    snapshot: &ClusterSnapshot,
    needs: &Needs,
    state: &ClassState,
    memory: &mut Memory,
) -> Arc<Vec<Vec<Domain>>> {
    if let Some((at, domains)) = &memory.domains
        && *at == snapshot.nodes_changed()
    {
        return Arc::clone(domains);
    }
    let topology = snapshot.topology();
    let terms: Vec<_> = state.spread.iter().map(|id| topology.term(*id)).collect();
    let mut found: Vec<Vec<Domain>> = vec![Vec::new(); terms.len()];
    for (slot, node) in snapshot.nodes().iter().enumerate().filter(|(_, node)| node.exists) {
        let domain =
            |index: usize| terms[index].map_or(NO_DOMAIN, |term| topology.domain(term, slot));
        let required = (0..terms.len()).filter(|index| needs.spread[*index].required);
        if required.into_iter().any(|index| domain(index) == NO_DOMAIN) {
            continue;
        }
        let fits = matches_affinity(needs, node);
        let tolerates = untolerated(&needs.tolerations, &node.taints).is_none();
        for (index, rule) in needs.spread.iter().enumerate() {
            let counts = (fits || !rule.honor_affinity) && (tolerates || !rule.honor_taints);
            if counts && domain(index) != NO_DOMAIN {
                found[index].push(domain(index));
            }
        }
    }
    for domains in &mut found {
        domains.sort_unstable();
        domains.dedup();
    }
    let domains = Arc::new(found);
    memory.domains = Some((snapshot.nodes_changed(), Arc::clone(&domains)));
    domains
}
