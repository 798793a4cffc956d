//! Creating and changing objects.

use std::sync::Arc;

use bytes::Bytes;
use quorate_objects::{FieldError, Invalid, Kind, Typed, decode_complete, decode_with, kinds};
use quorate_store::KeyValue;
use serde_json::Value;

use crate::alloc::Allocations;
use crate::commit::{Loaded, Outcome, Plan, check_length, check_size, decode_kv, encode};
use crate::error::RegistryError;
use crate::object::{Object, ObjectKey};
use crate::options::{Subresource, WriteOptions};
use crate::part::Edited;
use crate::precondition::{self, MODIFIED, uid_mismatch};
use crate::prepare::{metadata_mut, prepare_create, prepare_update};
use crate::registry::Registry;

/// Attempts of one request against concurrent writers.
const ATTEMPTS: usize = 32;
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// What a change makes of an object; `None` means "leave it".
pub(crate) type Edit<'a> = dyn FnMut(&Object) -> Result<Option<Edited>, RegistryError> + Send + 'a;

/// What is to be in an object's place.
enum New {
    Object(Value),
    /// As it will be stored.
    Text(Bytes),
}

impl Registry {
    /// Creates an object. Sets name (from generateName), uid, creationTimestamp, generation.
    ///
    /// # Errors
    /// [`RegistryError::AlreadyExists`], [`RegistryError::Invalid`], [`RegistryError::NotFound`]
    /// or [`RegistryError::Forbidden`] for its namespace, and those of every write.
    pub async fn create(
        &self,
        mut value: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, RegistryError> {
        let kind = kind_of(&value)?;
        check_size(&mut value)?;
        if !value["metadata"].is_object() || (kind.has_status && !value["status"].is_null()) {
            // What is to be set or left out is looked at before.
            value = decode_with(value, kind, options.field_validation)?;
        }
        let generated = prepare_create(kind, &mut value);
        let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default();
        let turn = self.has_quotas(namespace).then(|| self.inner.quota_turns.of(namespace));
        let _turn = match &turn {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        for round in 0..ATTEMPTS {
            let mut attempt = value.clone();
            if let Some(prefix) = &generated {
                attempt["metadata"]["name"] = format!("{prefix}{}", random_suffix()).into();
            }
            // When it is recorded who wrote what, the cluster's own words come later.
            let first = match options.field_manager {
                None => self.admit_first(kind, &mut attempt),
                Some(_) => Ok(false),
            };
            // With its name: some defaults are made of it.
            let (mut attempt, verdict) = decode_complete(attempt, kind, options.field_validation)?;
            let verdict = self.is_admitted(kind, &attempt, first?).then_some(verdict);
            if let Some(manager) = options.field_manager.as_deref() {
                metadata_mut(&mut attempt).remove("managedFields");
                crate::apply::record(kind, &mut attempt, &Value::Null, manager, Subresource::Main);
            }
            match self.create_once(kind, attempt, verdict, round > 0, options).await {
                Ok(Some(object)) => return Ok(object),
                // Namespace or allocations changed meanwhile.
                Ok(None) => {}
                Err(RegistryError::AlreadyExists { .. }) if generated.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        Err(busy())
    }

    /// Creates an object from its type.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_typed<T: Typed>(
        &self,
        object: &T,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, RegistryError> {
        self.create(to_value(object)?, options).await
    }

    /// `verdict`: what its kind's rules say, when nothing will be filled in any more.
    async fn create_once(
        &self,
        kind: &'static Kind,
        mut value: Value,
        verdict: Option<Result<(), Invalid>>,
        fresh: bool,
        options: &WriteOptions,
    ) -> Result<Option<Arc<Object>>, RegistryError> {
        let allocations = Allocations::for_create(self, kind, &mut value)?;
        match verdict {
            Some(verdict) => verdict?,
            None => {
                self.admit(kind, &mut value)?;
                kind.validate(&value)?;
            }
        }
        options.admit(&value)?;
        let metadata = &value["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        let key = ObjectKey::new(kind, &text("namespace"), &text("name"));
        let mut plan = Plan::default();
        plan.expect(key.store_key(), 0);
        if kind.namespaced {
            let (ns_key, revision) = self.namespace_revision(&key, fresh).await?;
            plan.expect(ns_key.store_key(), revision);
        }
        allocations.plan(&mut plan, &key);
        // After the allocations: what is found there is looked at by its place.
        let counted = self.count(&key, &value, fresh).await?;
        counted.plan(&mut plan)?;
        // Last: nobody looks at what is found there.
        if let Some((definition, revision)) = self.definition_revision(&key, fresh).await? {
            plan.expect(definition.store_key(), revision);
        }
        let stored = encode(&mut value)?;
        plan.put(key.store_key(), stored.clone());
        if options.dry_run {
            let taken = self.load(&key).await;
            if taken.is_ok() {
                return Err(already_exists(&key));
            }
            return Ok(Some(Arc::new(Object::decode(kind, &stored, 0)?)));
        }
        let (outcome, seen) = self.commit_object(&key, plan, &stored, options.fence).await?;
        match outcome {
            Outcome::Done(revision) => {
                Ok(Some(Arc::new(Object::of_stored(kind, seen, &stored, revision)?)))
            }
            Outcome::Failed(found) => {
                if found.first().is_some_and(Option::is_some) {
                    return Err(already_exists(&key));
                }
                let skip = 1 + usize::from(kind.namespaced);
                allocations.check_conflicts(kind, &key, found.get(skip..).unwrap_or_default())?;
                // The cache's idea of the namespace may be old: look at the store's.
                if let Some(namespace) = found.get(1).filter(|_| kind.namespaced) {
                    check_namespace(&key, namespace.as_ref())?;
                }
                Ok(None)
            }
        }
    }

    /// The namespace that the object will be in must exist and stay.
    async fn namespace_revision(
        &self,
        key: &ObjectKey,
        fresh: bool,
    ) -> Result<(ObjectKey, u64), RegistryError> {
        let ns_key = ObjectKey::new(&kinds::NAMESPACE, "", &key.namespace);
        let cached = self.inner.cache.get(&kinds::NAMESPACE, "", &key.namespace);
        let namespace = match cached.filter(|namespace| !fresh && !namespace.is_deleting()) {
            Some(namespace) => namespace,
            None => self.reload(&ns_key).await?.object,
        };
        if namespace.is_deleting() {
            return Err(terminating(key));
        }
        Ok((ns_key, namespace.revision))
    }

    /// The definition of the object's kind, when it has one, must stay as well.
    async fn definition_revision(
        &self,
        key: &ObjectKey,
        fresh: bool,
    ) -> Result<Option<(ObjectKey, u64)>, RegistryError> {
        if !key.kind.is_custom() {
            return Ok(None);
        }
        let kind = &kinds::CUSTOM_RESOURCE_DEFINITION;
        let definition = ObjectKey::new(kind, "", &key.kind.resource());
        let cached = self.inner.cache.get(kind, "", &definition.name).filter(|_| !fresh);
        let found = match cached {
            Some(found) => found,
            None => self.reload(&definition).await?.object,
        };
        if found.is_deleting() {
            let text = "create not allowed while custom resource definition is terminating";
            return Err(RegistryError::Forbidden(text.into()));
        }
        Ok(Some((definition, found.revision)))
    }

    /// Replaces an object, but for its status. A resourceVersion in the metadata is the
    /// precondition; without one it is replaced whatever it is.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Conflict`], [`RegistryError::Invalid`].
    pub async fn update(
        &self,
        value: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, RegistryError> {
        self.replace(value, Subresource::Main, options).await
    }

    /// Replaces an object's status; the rest of `value` is not looked at.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub async fn update_status(
        &self,
        value: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, RegistryError> {
        self.replace(value, Subresource::Status, options).await
    }

    /// Replaces one part of an object; the rest of `value` is not looked at.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub async fn replace(
        &self,
        mut value: Value,
        subresource: Subresource,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, RegistryError> {
        let kind = kind_of(&value)?;
        check_size(&mut value)?;
        let value = decode_with(value, kind, options.field_validation)?;
        let metadata = &value["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        let key = ObjectKey::new(kind, text("namespace"), text("name"));
        if key.name.is_empty() {
            let error = FieldError::required("metadata.name", "");
            return Err(Invalid::new(kind, "", vec![error]).into());
        }
        let given = precondition::revision(&key, &value)?;
        let options = WriteOptions { revision: options.revision.or(given), ..options.clone() };
        self.edit(&key, subresource, &options, &mut |old| match precondition::uid(&value) {
            Some(uid) if uid != old.uid() => Err(key.conflict(uid_mismatch(uid, old.uid()))),
            _ => Ok(Some(value.clone().into())),
        })
        .await
    }

    /// Reads, changes and writes an object (not its status) until no other writer interferes.
    /// The closure may run several times; it returns false to leave the object as it is.
    ///
    /// # Errors
    /// As [`Self::update`]; [`RegistryError::BadRequest`] when `kind` is not the type's.
    pub async fn modify<T: Typed>(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        options: &WriteOptions,
        mut change: impl FnMut(&mut T) -> bool + Send,
    ) -> Result<Arc<Object>, RegistryError> {
        let key = typed_key::<T>(kind, namespace, name)?;
        self.edit(&key, Subresource::Main, options, &mut |old| change_typed(old, &mut change)).await
    }

    /// [`Self::modify`] for the status: other changes are dropped.
    ///
    /// # Errors
    /// As [`Self::modify`].
    pub async fn modify_status<T: Typed>(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        options: &WriteOptions,
        mut change: impl FnMut(&mut T) -> bool + Send,
    ) -> Result<Arc<Object>, RegistryError> {
        let key = typed_key::<T>(kind, namespace, name)?;
        self.edit(&key, Subresource::Status, options, &mut |old| change_typed(old, &mut change))
            .await
    }

    /// The core of every change: base, edit, rules, transaction; again on a conflict.
    pub(crate) async fn edit(
        &self,
        key: &ObjectKey,
        subresource: Subresource,
        options: &WriteOptions,
        edit: &mut Edit<'_>,
    ) -> Result<Arc<Object>, RegistryError> {
        let mut base = self.load(key).await?;
        for _ in 0..ATTEMPTS {
            if let Some(wanted) = options.revision
                && base.object.revision != wanted
            {
                if base.verified || base.object.revision > wanted {
                    return Err(key.conflict(MODIFIED));
                }
                base = self.reload(key).await?;
                continue;
            }
            let edited = match edit(&base.object) {
                Ok(Some(edited)) => edited,
                Ok(None) => return Ok(base.object),
                // It may be the cache's lag that is wrong, not the request.
                Err(_) if !base.verified => {
                    base = self.reload(key).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let new = match changed(key.kind, &base.object, edited, subresource, options) {
                Ok(Some(new)) => new,
                Ok(None) if base.verified => return Ok(base.object),
                Err(error) if base.verified => return Err(error),
                _ => {
                    base = self.reload(key).await?;
                    continue;
                }
            };
            if let New::Object(new) = &new {
                options.admit(new)?;
            }
            match self.write(key, &base.object, new, options).await? {
                Ok(written) => return Ok(written),
                Err(None) => return Err(key.not_found()),
                Err(Some(object)) => base = Loaded { object, verified: true },
            }
        }
        Err(key.conflict(MODIFIED))
    }

    /// One transaction that replaces `old` by `new`. The inner error is what is there instead.
    async fn write(
        &self,
        key: &ObjectKey,
        old: &Object,
        new: New,
        options: &WriteOptions,
    ) -> Result<Result<Arc<Object>, Option<Arc<Object>>>, RegistryError> {
        let mut new = match new {
            New::Object(new) => new,
            New::Text(stored) => {
                check_length(key.kind.kind, &stored)?;
                let mut plan = Plan::default();
                plan.expect(key.store_key(), old.revision);
                plan.put(key.store_key(), stored.clone());
                let allocations = Allocations::default();
                return self.finish(key, old, plan, &stored, &allocations, options).await;
            }
        };
        // Only Services hold allotments; the others are spared the parsing.
        let old_value = if key.kind == &kinds::SERVICE { old.value() } else { Value::Null };
        let allocations = Allocations::for_update(self, key.kind, &mut new, &old_value)?;
        let gone = crate::delete::may_go(key.kind, &new);
        let mut plan = Plan::default();
        plan.expect(key.store_key(), old.revision);
        let stored = encode(&mut new)?;
        if gone {
            plan.delete(key.store_key());
            Allocations::release_all(key.kind, &old_value, &mut plan);
        } else {
            allocations.plan(&mut plan, key);
            // After the allocations: what is found there is looked at by its place.
            self.count_change(key, old, &new).await?.plan(&mut plan)?;
            plan.put(key.store_key(), stored.clone());
        }
        self.finish(key, old, plan, &stored, &allocations, options).await
    }

    async fn finish(
        &self,
        key: &ObjectKey,
        old: &Object,
        plan: Plan,
        stored: &Bytes,
        allocations: &Allocations,
        options: &WriteOptions,
    ) -> Result<Result<Arc<Object>, Option<Arc<Object>>>, RegistryError> {
        if options.dry_run {
            return Ok(Ok(Arc::new(Object::decode(key.kind, stored, old.revision)?)));
        }
        let (outcome, seen) = self.commit_object(key, plan, stored, options.fence).await?;
        match outcome {
            Outcome::Done(revision) => {
                Ok(Ok(Arc::new(Object::of_stored(key.kind, seen, stored, revision)?)))
            }
            Outcome::Failed(found) => {
                let current = decode_kv(key, found.first().and_then(Option::as_ref))?;
                if current.as_ref().is_some_and(|current| current.revision == old.revision) {
                    let found = found.get(1..).unwrap_or_default();
                    allocations.check_conflicts(key.kind, key, found)?;
                }
                Ok(Err(current))
            }
        }
    }
}

/// What an edit makes of `old`; `None` when nothing is different.
fn changed(
    kind: &'static Kind,
    old: &Object,
    edited: Edited,
    subresource: Subresource,
    options: &WriteOptions,
) -> Result<Option<New>, RegistryError> {
    let value = match edited {
        Edited::Object(value) => value,
        Edited::Part(part) => match old.with_part(&part) {
            Some(text) => return Ok(text.map(New::Text)),
            None => part.value(),
        },
    };
    let manager = options.field_manager.as_deref();
    Ok(prepare_update(kind, value, old.value(), subresource, manager)?.map(New::Object))
}

fn change_typed<T: Typed>(
    old: &Object,
    change: &mut impl FnMut(&mut T) -> bool,
) -> Result<Option<Edited>, RegistryError> {
    let mut object = T::clone(&*old.typed::<T>()?);
    if change(&mut object) { Ok(Some(to_value(&object)?.into())) } else { Ok(None) }
}

fn to_value<T: Typed>(object: &T) -> Result<Value, RegistryError> {
    object.to_value().map_err(|error| RegistryError::BadRequest(error.to_string()))
}

fn typed_key<T: Typed>(
    kind: &'static Kind,
    namespace: &str,
    name: &str,
) -> Result<ObjectKey, RegistryError> {
    if T::kind() != kind {
        return Err(RegistryError::BadRequest(format!("{} is not {}", T::kind().kind, kind.kind)));
    }
    Ok(ObjectKey::new(kind, namespace, name))
}

/// The kind of an object from its apiVersion and kind.
pub(crate) fn kind_of(value: &Value) -> Result<&'static Kind, RegistryError> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    Kind::by_gvk(api_version, kind).ok_or_else(|| {
        RegistryError::BadRequest(if kind.is_empty() {
            "Object 'Kind' is missing".into()
        } else {
            format!("no matches for kind \"{kind}\" in version \"{api_version}\"")
        })
    })
}

fn random_suffix() -> String {
    (0..5).map(|_| char::from(SUFFIX[rand::random_range(0..SUFFIX.len())])).collect()
}

fn check_namespace(key: &ObjectKey, found: Option<&KeyValue>) -> Result<(), RegistryError> {
    let ns_key = ObjectKey::new(&kinds::NAMESPACE, "", &key.namespace);
    let namespace = decode_kv(&ns_key, found)?.ok_or_else(|| ns_key.not_found())?;
    if namespace.is_deleting() { Err(terminating(key)) } else { Ok(()) }
}

fn terminating(key: &ObjectKey) -> RegistryError {
    let ObjectKey { kind, namespace, name } = key;
    RegistryError::Forbidden(format!(
        "{} \"{name}\" is forbidden: unable to create new content in namespace {namespace} \
         because it is being terminated",
        kind.resource()
    ))
}

fn already_exists(key: &ObjectKey) -> RegistryError {
    RegistryError::AlreadyExists { resource: key.kind.resource(), name: key.name.clone() }
}

pub(crate) fn busy() -> RegistryError {
    RegistryError::Unavailable {
        reason: "too many writers change the same objects; try again".into(),
        leader: None,
    }
}
