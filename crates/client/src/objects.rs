//! Calls on objects.

use bytes::Bytes;
use quorate_objects::{Kind, Typed};
use quorate_proto::v1;
use quorate_proto::v1::objects_client::ObjectsClient;
use serde_json::Value;
use tonic::transport::Channel;

use crate::call::{Repeat, call};
use crate::object::kind_ref;
use crate::{Client, ClientError, Deleted, List, MAX_ANSWER_BYTES, Object};

/// Which objects to list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Empty: all namespaces.
    pub namespace: String,
    /// `app=web,tier in (a,b)`
    pub labels: String,
    /// `metadata.name=x`
    pub fields: String,
    /// At most this many; 0: all.
    pub limit: u32,
    /// From the previous answer.
    pub continue_token: String,
    /// Take what the answering master has, even if it is old.
    pub stale: bool,
}

/// How to write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Check everything and write nothing.
    pub dry_run: bool,
    /// Drop unknown fields instead of refusing them.
    pub ignore_unknown_fields: bool,
}

/// The language of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902
    Json,
    /// RFC 7396
    Merge,
    /// Kubernetes' merge that knows the keys of lists.
    Strategic,
}

/// How to patch.
#[derive(Clone, Debug, Default)]
pub struct PatchOptions {
    /// "" or "status".
    pub subresource: String,
    /// Check everything and write nothing.
    pub dry_run: bool,
    /// Only when the object is at this revision; 0: whatever it is.
    pub revision: u64,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Only when it has this uid; empty: whichever it is.
    pub uid: String,
    /// Only when it is at this revision; 0: whatever it is.
    pub revision: u64,
    /// Seconds a pod gets to stop; unset: what the pod says.
    pub grace_seconds: Option<u32>,
    /// `Background` (also when empty), `Foreground` or `Orphan`.
    pub propagation: String,
    /// Check everything and delete nothing.
    pub dry_run: bool,
    /// Pods: only when the disruption budget allows it now; else the reason `TooManyRequests`.
    pub evict: bool,
}

fn objects(channel: Channel) -> ObjectsClient<Channel> {
    ObjectsClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}

fn json(value: &Value) -> Bytes {
    value.to_string().into()
}

fn validation(options: &WriteOptions) -> i32 {
    if options.ignore_unknown_fields {
        v1::FieldValidation::Ignore.into()
    } else {
        v1::FieldValidation::Strict.into()
    }
}

impl Client {
    /// Reads one object.
    ///
    /// # Errors
    /// `NotFound`, and what every call can meet.
    pub async fn get(&self, kind: &Kind, ns: &str, name: &str) -> Result<Object, ClientError> {
        self.get_with(kind, ns, name, false).await
    }

    /// Reads one object; with `stale`, as the answering master has it.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_with(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        stale: bool,
    ) -> Result<Object, ClientError> {
        let request = v1::GetRequest {
            kind: Some(kind_ref(kind)),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            stale,
        };
        let what = format!("get {} {name:?}", kind.resource());
        let object = call(&self.pool, &self.options, &what, Repeat::Safe, request, |c, r| async {
            objects(c).get(r).await
        });
        Object::decode(object.await?)
    }

    /// Reads one object as a type of `k8s-openapi`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_as<T: Typed>(&self, namespace: &str, name: &str) -> Result<T, ClientError> {
        self.get(T::kind(), namespace, name).await?.typed()
    }

    /// Reads the objects of a kind that match; one page when `limit` is set.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn list(&self, kind: &Kind, options: &ListOptions) -> Result<List, ClientError> {
        let request = v1::ListRequest {
            kind: Some(kind_ref(kind)),
            namespace: options.namespace.clone(),
            label_selector: options.labels.clone(),
            field_selector: options.fields.clone(),
            stale: options.stale,
            limit: options.limit,
            continue_token: options.continue_token.clone(),
        };
        let what = format!("list {}", kind.resource());
        let list = call(&self.pool, &self.options, &what, Repeat::Safe, request, |c, r| async {
            objects(c).list(r).await
        });
        let list = list.await?;
        Ok(List {
            revision: list.revision,
            items: list.items.into_iter().map(Object::decode).collect::<Result<_, _>>()?,
            continue_token: list.continue_token,
        })
    }

    /// Reads the objects of a kind that match, as a type of `k8s-openapi`.
    ///
    /// # Errors
    /// What every call can meet.
    pub async fn list_as<T: Typed>(&self, options: &ListOptions) -> Result<Vec<T>, ClientError> {
        self.list(T::kind(), options).await?.items.iter().map(Object::typed).collect()
    }

    /// Creates an object; the JSON carries apiVersion, kind and metadata.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid`, `OutcomeUnknown` when the master died meanwhile.
    pub async fn create(
        &self,
        value: &Value,
        options: &WriteOptions,
    ) -> Result<Object, ClientError> {
        let request = v1::CreateRequest {
            json: json(value),
            dry_run: options.dry_run,
            field_validation: validation(options),
        };
        let what = format!("create {}", describe(value));
        let object =
            call(&self.pool, &self.options, &what, Repeat::Unsafe, request, |c, r| async {
                objects(c).create(r).await
            });
        Object::decode(object.await?)
    }

    /// Replaces an object. A `metadata.resourceVersion` in the JSON is the precondition.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `Invalid`, `OutcomeUnknown`.
    pub async fn update(
        &self,
        value: &Value,
        options: &WriteOptions,
    ) -> Result<Object, ClientError> {
        self.replace(value, "", options).await
    }

    /// Replaces an object's status, and nothing else of it.
    ///
    /// # Errors
    /// As [`Client::update`].
    pub async fn update_status(
        &self,
        value: &Value,
        options: &WriteOptions,
    ) -> Result<Object, ClientError> {
        self.replace(value, "status", options).await
    }

    async fn replace(
        &self,
        value: &Value,
        subresource: &str,
        options: &WriteOptions,
    ) -> Result<Object, ClientError> {
        let request = v1::UpdateRequest {
            json: json(value),
            subresource: subresource.to_owned(),
            dry_run: options.dry_run,
            field_validation: validation(options),
        };
        let what = format!("update {}", describe(value));
        // With a precondition a repetition would meet its own first success as a conflict; without
        // one it could undo what somebody else has written since.
        let object =
            call(&self.pool, &self.options, &what, Repeat::Unsafe, request, |c, r| async {
                objects(c).update(r).await
            });
        Object::decode(object.await?)
    }

    /// Changes parts of an object.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `Invalid`, `OutcomeUnknown`.
    pub async fn patch(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        patch_type: PatchType,
        patch: &Value,
        options: &PatchOptions,
    ) -> Result<Object, ClientError> {
        let wire = match patch_type {
            PatchType::Json => v1::patch_request::Type::Json,
            PatchType::Merge => v1::patch_request::Type::Merge,
            PatchType::Strategic => v1::patch_request::Type::Strategic,
        };
        let request = v1::PatchRequest {
            kind: Some(kind_ref(kind)),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            r#type: wire.into(),
            patch: json(patch),
            subresource: options.subresource.clone(),
            dry_run: options.dry_run,
            revision: options.revision,
        };
        let what = format!("patch {} {name:?}", kind.resource());
        // The same merge twice is the same as once; a JSON patch may append to a list.
        let safe = patch_type == PatchType::Merge && options.revision == 0;
        let repeat = if safe { Repeat::Idempotent } else { Repeat::Unsafe };
        let object = call(&self.pool, &self.options, &what, repeat, request, |c, r| async {
            objects(c).patch(r).await
        });
        Object::decode(object.await?)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` when a precondition does not hold, `OutcomeUnknown`.
    pub async fn delete(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, ClientError> {
        let request = v1::DeleteRequest {
            kind: Some(kind_ref(kind)),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: options.uid.clone(),
            revision: options.revision,
            grace_seconds: options.grace_seconds,
            propagation: options.propagation.clone(),
            dry_run: options.dry_run,
            evict: options.evict,
        };
        let what = format!("delete {} {name:?}", kind.resource());
        let response =
            call(&self.pool, &self.options, &what, Repeat::Unsafe, request, |c, r| async {
                objects(c).delete(r).await
            });
        let response = response.await?;
        let object = Object::decode(response.object.unwrap_or_default())?;
        Ok(Deleted { object, gone: response.gone })
    }
}

/// `Deployment "web"`, for messages.
fn describe(value: &Value) -> String {
    let text = |pointer| value.pointer(pointer).and_then(Value::as_str).unwrap_or("?");
    format!("{} {:?}", text("/kind"), text("/metadata/name"))
}
