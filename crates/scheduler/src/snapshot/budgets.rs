//! [`Budgets`]: how many pods may be asked to leave, by PodDisruptionBudgets.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use quorate_objects::Selector;

use crate::needs::Needs;

#[derive(Clone, Debug)]
struct Budget {
    selector: Selector,
    allowed: i64,
}

/// All budgets, by namespace and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budgets {
    all: HashMap<String, BTreeMap<String, Budget>>,
}

impl Budgets {
    /// A budget is new or changed.
    pub fn set(&mut self, object: &PodDisruptionBudget) {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let name = object.metadata.name.clone().unwrap_or_default();
        let selector = object.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selector = selector.and_then(|s| Selector::from_label_selector(s).ok());
        let allowed =
            object.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0);
        let budget = Budget {
            selector: selector.unwrap_or_else(Selector::nothing),
            allowed: i64::from(allowed),
        };
        self.all.entry(namespace).or_default().insert(name, budget);
    }

    /// A budget is gone.
    pub fn remove(&mut self, namespace: &str, name: &str) {
        if let Some(budgets) = self.all.get_mut(namespace) {
            budgets.remove(name);
        }
    }

    /// What is left of every budget: an account for [`Account::take`].
    pub fn account(&self) -> Account<'_> {
        Account { budgets: self, taken: HashMap::new() }
    }

    /// A pod has been asked to leave. Its budgets shrink until the cache shows their new state.
    pub fn spend(&mut self, needs: &Needs) {
        for budget in self.all.get_mut(&needs.namespace).into_iter().flat_map(BTreeMap::values_mut)
        {
            if budget.selector.matches(&needs.labels) {
                budget.allowed -= 1;
            }
        }
    }
}

/// Takes from budgets without changing them.
pub(crate) struct Account<'a> {
    budgets: &'a Budgets,
    taken: HashMap<(&'a str, &'a str), i64>,
}

impl<'a> Account<'a> {
    /// Takes one from every budget of the pod. Says whether all had one left.
    pub fn take(&mut self, needs: &Needs) -> bool {
        let Some((namespace, budgets)) = self.budgets.all.get_key_value(&needs.namespace) else {
            return true;
        };
        let mut within = true;
        for (name, budget) in budgets {
            if budget.selector.matches(&needs.labels) {
                let taken = self.taken.entry((namespace, name)).or_default();
                *taken += 1;
                within &= *taken <= budget.allowed;
            }
        }
        within
    }
}
