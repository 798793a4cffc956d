//! Custom kinds: their names are accepted, and with the definition go its objects.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionCondition, CustomResourceDefinitionNames,
};
use quorate_objects::kinds::{self, CLEANUP_FINALIZER, CUSTOM_RESOURCE_DEFINITION};
use quorate_objects::time;
use quorate_registry::{DeleteOptions, ObjectEvent, WriteOptions};

use crate::context::{Context, key_of};
use crate::controller::{Controller, Requeue};
use crate::error::ControllerError;
use crate::queue::Key;

/// While objects wait for their finalizers, the definition is looked at this often.
const POLL: Duration = Duration::from_millis(500);

/// The controller of CustomResourceDefinitions.
pub struct CustomResources {
    context: Arc<Context>,
}

impl CustomResources {
    /// The controller, over its context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Accepts the definition's names unless another kind of its group has one of them.
    async fn name(&self, definition: &CustomResourceDefinition) -> Result<(), ControllerError> {
        let others = self.context.list::<CustomResourceDefinition>(None);
        let taken = taken_name(definition, others.iter().map(|other| &**other));
        let mut named = definition.clone();
        accept(&mut named, taken.as_ref());
        if named.status != definition.status {
            self.context.update_status(&named).await?;
        }
        Ok(())
    }

    /// Deletes all objects of the definition's kind; says whether any are left.
    async fn empty(&self, definition: &str) -> Result<bool, ControllerError> {
        let registry = self.context.registry();
        let Some(kind) = kinds::find(|kind| kind.is_custom() && kind.resource() == definition)
        else {
            return Ok(false);
        };
        let options =
            DeleteOptions { fence: Some(self.context.term()), ..DeleteOptions::default() };
        let mut left = false;
        for object in registry.cache().list(kind, None) {
            match registry.delete(kind, object.namespace(), object.name(), &options).await {
                Ok(deleted) => left |= !deleted.gone,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(left)
    }

    /// Ends a definition that is being deleted. Nothing is made of its kind any more: what is
    /// made compares the definition's revision, and the cache has that of the deletion.
    async fn end(&self, name: &str) -> Result<Requeue, ControllerError> {
        if self.empty(name).await? {
            return Ok(Requeue::After(POLL));
        }
        let options = WriteOptions::fenced(self.context.term());
        let forget = |definition: &mut CustomResourceDefinition| {
            let Some(finalizers) = &mut definition.metadata.finalizers else { return false };
            let before = finalizers.len();
            finalizers.retain(|finalizer| finalizer != CLEANUP_FINALIZER);
            finalizers.len() != before
        };
        let (registry, kind) = (self.context.registry(), &CUSTOM_RESOURCE_DEFINITION);
        let done = registry.modify::<CustomResourceDefinition>(kind, "", name, &options, forget);
        match done.await {
            Ok(_) => Ok(Requeue::Done),
            Err(error) if error.is_not_found() => Ok(Requeue::Done),
            Err(error) => Err(error.into()),
        }
    }
}

#[async_trait]
impl Controller for CustomResources {
    fn name(&self) -> &'static str {
        "custom-resources"
    }

    fn wants(&self, event: &ObjectEvent) -> Vec<Key> {
        let Some(object) = event.object.as_ref() else { return Vec::new() };
        if *object.kind != CUSTOM_RESOURCE_DEFINITION {
            return Vec::new();
        }
        // What one does not have, or has no longer, another may wait for.
        let mut keys = self.all();
        keys.push(key_of(object));
        keys
    }

    fn all(&self) -> Vec<Key> {
        self.context.keys(&CUSTOM_RESOURCE_DEFINITION)
    }

    /// One: who gets a name is decided one after the other.
    fn workers(&self) -> Option<usize> {
        Some(1)
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue, ControllerError> {
        let Some(definition) = self.context.get::<CustomResourceDefinition>("", &key.name) else {
            return Ok(Requeue::Done);
        };
        if definition.metadata.deletion_timestamp.is_none() {
            self.name(&definition).await?;
            return Ok(Requeue::Done);
        }
        let mut finalizers = definition.metadata.finalizers.iter().flatten();
        if finalizers.any(|one| one == CLEANUP_FINALIZER) {
            return self.end(&key.name).await;
        }
        Ok(Requeue::Done)
    }
}

/// A name that another kind has.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    /// Kubernetes' reason: `KindConflict`, …
    reason: &'static str,
    name: String,
}

/// The first name of the definition that another kind of its group has.
fn taken_name<'a>(
    definition: &CustomResourceDefinition,
    others: impl Iterator<Item = &'a CustomResourceDefinition>,
) -> Option<Taken> {
    let (group, own) = (&definition.spec.group, &definition.spec.names);
    // Names of resources, and names of kinds: two things that may look alike.
    let (mut resources, mut kinds_taken) = (Vec::new(), Vec::new());
    for kind in kinds::builtin().iter().filter(|kind| kind.group == *group) {
        resources.extend([kind.plural, kind.singular].map(str::to_owned));
        resources.extend(kind.short_names.iter().map(|name| (*name).to_owned()));
        kinds_taken.extend([kind.kind.to_owned(), format!("{}List", kind.kind)]);
    }
    let others = others.filter(|other| {
        other.spec.group == *group && other.metadata.name != definition.metadata.name
    });
    for names in others.filter_map(|other| other.status.as_ref()?.accepted_names.as_ref()) {
        resources.push(names.plural.clone());
        resources.extend(names.singular.clone());
        resources.extend(names.short_names.iter().flatten().cloned());
        kinds_taken.push(names.kind.clone());
        kinds_taken.extend(names.list_kind.clone());
    }
    let singular = own.singular.as_ref().map(|name| ("SingularConflict", name));
    let short = own.short_names.iter().flatten().map(|name| ("ShortNamesConflict", name));
    let wanted = [("PluralConflict", &own.plural)].into_iter().chain(singular).chain(short);
    let kind = [("KindConflict", &own.kind)].into_iter();
    let wanted_kinds = kind.chain(own.list_kind.as_ref().map(|name| ("ListKindConflict", name)));
    let hit = |taken: &[String], (reason, name): (&'static str, &String)| {
        taken.contains(name).then(|| Taken { reason, name: name.clone() })
    };
    // The kind first: whoever has the same will have other names alike as well.
    let mut found = wanted_kinds.filter_map(|one| hit(&kinds_taken, one));
    found.next().or_else(|| wanted.filter_map(|one| hit(&resources, one)).next())
}

/// Says in the definition's status what comes of its names.
fn accept(definition: &mut CustomResourceDefinition, taken: Option<&Taken>) {
    let names = definition.spec.names.clone();
    let status = definition.status.get_or_insert_default();
    let conditions = status.conditions.get_or_insert_default();
    let Some(taken) = taken else {
        set(conditions, "NamesAccepted", true, "NoConflicts", "no conflicts found");
        let text = "the initial names have been accepted";
        set(conditions, "Established", true, "InitialNamesAccepted", text);
        status.accepted_names = Some(names);
        return;
    };
    let text = format!("{:?} is already in use", taken.name);
    set(conditions, "NamesAccepted", false, taken.reason, &text);
    let mut all = conditions.iter();
    // What is served once stays, under the names that it has.
    if !all.any(|condition| condition.type_ == "Established" && condition.status == "True") {
        set(conditions, "Established", false, "NotAccepted", "not all names are accepted");
        let none = CustomResourceDefinitionNames::default();
        status.accepted_names.get_or_insert(none);
    }
}

fn set(
    conditions: &mut Vec<CustomResourceDefinitionCondition>,
    type_: &str,
    holds: bool,
    reason: &str,
    message: &str,
) {
    let status = if holds { "True" } else { "False" };
    let old = conditions.iter().position(|condition| condition.type_ == type_);
    let old = old.map(|index| conditions.remove(index));
    let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time);
    conditions.push(CustomResourceDefinitionCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(since.unwrap_or_else(time::now)),
        ..CustomResourceDefinitionCondition::default()
    });
}

#[cfg(test)]
#[path = "custom_resources_test.rs"]
mod tests;
