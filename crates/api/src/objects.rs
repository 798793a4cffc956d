//! `quorate.v1.Objects`: decode, call, encode.

use std::sync::Arc;

use futures::stream::BoxStream;
use quorate_objects::{Kind, kinds};
use quorate_proto::v1;
use quorate_proto::v1::objects_server::Objects;
use quorate_registry::{
    Admission, DeleteOptions, EventKind, ListOptions, ObjectEvent, ObjectWatcher, PatchKind,
    Propagation, Registry, Subresource, WatchOptions, WriteOptions,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use crate::auth::{Attributes, Auth, User, judged_in};
use crate::convert::{
    consistency, field_validation, fields, json, kind, labels, object, some, some_revision,
};
use crate::error::{bad_request, registry_status, status, unavailable};
use crate::limits::{Effect, within};

pub(crate) struct ObjectsService {
    pub registry: Registry,
    pub auth: Arc<Auth>,
    /// Ends watches when the master shuts down.
    pub cancel: CancellationToken,
}

#[tonic::async_trait]
impl Objects for ObjectsService {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::Object>, Status> {
        let caller = caller(&request);
        let (metadata, _, r) = request.into_parts();
        let kind = kind(r.kind.as_ref())?;
        self.require(caller.as_deref(), kind, ["get", &r.namespace, &r.name, ""])?;
        let read = self.registry.get(kind, &r.namespace, &r.name, consistency(r.stale));
        let found = within(&metadata, Effect::Read, async { read.await.map_err(registry_status) });
        Ok(Response::new(object(&*found.await?)))
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let caller = caller(&request);
        let (metadata, _, r) = request.into_parts();
        let kind = kind(r.kind.as_ref())?;
        self.require(caller.as_deref(), kind, ["list", &r.namespace, "", ""])?;
        let options = ListOptions {
            labels: labels(&r.label_selector)?,
            fields: fields(&r.field_selector)?,
            limit: r.limit as usize,
            continue_token: some(r.continue_token),
            ..ListOptions::default()
        };
        let read = self.registry.list(kind, Some(&r.namespace), &options, consistency(r.stale));
        let read = async { read.await.map_err(registry_status) };
        let list = within(&metadata, Effect::Read, read).await?;
        Ok(Response::new(v1::ListResponse {
            revision: list.revision,
            items: list.items.iter().map(|item| object(item)).collect(),
            continue_token: list.continue_token.unwrap_or_default(),
        }))
    }

    type WatchStream = BoxStream<'static, Result<v1::WatchEvent, Status>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(&request);
        let r = request.into_inner();
        let kind = kind(r.kind.as_ref())?;
        self.require(caller.as_deref(), kind, ["watch", &r.namespace, "", ""])?;
        let options = WatchOptions {
            kind: Some(kind),
            namespace: some(r.namespace),
            labels: labels(&r.label_selector)?,
            fields: fields(&r.field_selector)?,
            from_revision: r.revision,
        };
        let watcher = self.registry.watch_with(options).map_err(registry_status)?;
        Ok(Response::new(events(watcher, self.cancel.clone())))
    }

    async fn create(
        &self,
        request: Request<v1::CreateRequest>,
    ) -> Result<Response<v1::Object>, Status> {
        let caller = caller(&request);
        let (metadata, _, r) = request.into_parts();
        let value = json(&r.json, "the object")?;
        let kind = self.require_write(caller.as_deref(), "create", &value, "")?;
        let write = async {
            let options = WriteOptions {
                admission: self.admission(caller.as_ref(), kind).await?,
                ..write_options(r.dry_run, r.field_validation(), 0)
            };
            self.registry.create(value, &options).await.map_err(registry_status)
        };
        let created = within(&metadata, Effect::Write, write).await?;
        Ok(Response::new(object(&created)))
    }

    async fn update(
        &self,
        request: Request<v1::UpdateRequest>,
    ) -> Result<Response<v1::Object>, Status> {
        let caller = caller(&request);
        let (metadata, _, r) = request.into_parts();
        let value = json(&r.json, "the object")?;
        let kind = self.require_write(caller.as_deref(), "update", &value, &r.subresource)?;
        let part = subresource(&r.subresource)?;
        let write = async {
            let options = WriteOptions {
                admission: self.admission(caller.as_ref(), kind).await?,
                ..write_options(r.dry_run, r.field_validation(), 0)
            };
            let updated = if part == Subresource::Status {
                self.registry.update_status(value, &options).await
            } else {
                self.registry.update(value, &options).await
            };
            updated.map_err(registry_status)
        };
        Ok(Response::new(object(&*within(&metadata, Effect::Write, write).await?)))
    }

    async fn patch(
        &self,
        request: Request<v1::PatchRequest>,
    ) -> Result<Response<v1::Object>, Status> {
        let caller = caller(&request);
        let (metadata, _, r) = request.into_parts();
        let kind = kind(r.kind.as_ref())?;
        let target = ["patch", &r.namespace, &r.name, &r.subresource];
        self.require(caller.as_deref(), kind, target)?;
        let how = patch_kind(r.r#type())?;
        let part = subresource(&r.subresource)?;
        let registry = &self.registry;
        let write = async {
            let options = WriteOptions {
                admission: self.admission(caller.as_ref(), kind).await?,
                ..write_options(r.dry_run, v1::FieldValidation::Strict, r.revision)
            };
            let write = registry.patch(kind, &r.namespace, &r.name, how, &r.patch, part, &options);
            write.await.map_err(registry_status)
        };
        Ok(Response::new(object(&*within(&metadata, Effect::Write, write).await?)))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let caller = caller(&request);
        let (metadata, _, r) = request.into_parts();
        let kind = kind(r.kind.as_ref())?;
        let (verb, part) = if r.evict { ("create", "eviction") } else { ("delete", "") };
        self.require(caller.as_deref(), kind, [verb, &r.namespace, &r.name, part])?;
        let options = DeleteOptions {
            uid: some(r.uid),
            revision: some_revision(r.revision),
            grace_seconds: r.grace_seconds,
            propagation: propagation(&r.propagation)?,
            fence: None,
            dry_run: r.dry_run,
        };
        if r.evict && *kind != kinds::POD {
            return Err(bad_request(format!("only pods can be evicted, not {}", kind.plural)));
        }
        let write = async {
            let deleted = if r.evict {
                self.registry.evict(&r.namespace, &r.name, &options).await
            } else {
                self.registry.delete(kind, &r.namespace, &r.name, &options).await
            };
            deleted.map_err(registry_status)
        };
        let deleted = within(&metadata, Effect::Write, write).await?;
        let object = Some(object(&deleted.object));
        Ok(Response::new(v1::DeleteResponse { object, gone: deleted.gone }))
    }
}

/// Who sends a request; the gate has found it out.
pub(crate) fn caller<T>(request: &Request<T>) -> Option<Arc<User>> {
    request.extensions().get::<Arc<User>>().cloned()
}

impl ObjectsService {
    /// May the caller do this? `target`: verb, namespace, name, subresource.
    fn require(&self, caller: Option<&User>, kind: &Kind, target: [&str; 4]) -> Result<(), Status> {
        let [verb, namespace, name, subresource] = target;
        let namespace = if kind.namespaced { namespace } else { "" };
        let wanted = Attributes {
            verb: verb.to_owned(),
            group: kind.group.to_owned(),
            resource: kind.plural.to_owned(),
            subresource: subresource.to_owned(),
            namespace: judged_in(kind.group, kind.plural, namespace, name).to_owned(),
            name: name.to_owned(),
            path: String::new(),
        };
        require(&self.auth, caller, &wanted)
    }

    /// The same for a write of this object, whose kind is returned.
    fn require_write(
        &self,
        caller: Option<&User>,
        verb: &str,
        value: &serde_json::Value,
        subresource: &str,
    ) -> Result<&'static Kind, Status> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let wanted =
            v1::KindRef { api_version: text(&value["apiVersion"]), kind: text(&value["kind"]) };
        let kind = kind(Some(&wanted))?;
        let metadata = &value["metadata"];
        let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
        let name = if verb == "create" { "" } else { name.as_str() };
        self.require(caller, kind, [verb, &namespace, name, subresource])?;
        Ok(kind)
    }

    async fn admission(
        &self,
        caller: Option<&Arc<User>>,
        kind: &Kind,
    ) -> Result<Option<Admission>, Status> {
        let Some(caller) = caller else { return Ok(None) };
        self.auth.admission(caller, kind).await.map_err(registry_status)
    }
}

/// May the caller do this? Without a caller nothing is allowed.
pub(crate) fn require(
    auth: &Auth,
    caller: Option<&User>,
    wanted: &Attributes,
) -> Result<(), Status> {
    let caller =
        caller.ok_or_else(|| status(Code::Unauthenticated, "Unauthorized", "Unauthorized"))?;
    auth.require(caller, wanted).map_err(|text| status(Code::PermissionDenied, "Forbidden", text))
}

fn write_options(dry_run: bool, validation: v1::FieldValidation, revision: u64) -> WriteOptions {
    WriteOptions {
        dry_run,
        field_validation: field_validation(validation),
        revision: some_revision(revision),
        ..WriteOptions::default()
    }
}

fn subresource(name: &str) -> Result<Subresource, Status> {
    match name {
        "" => Ok(Subresource::Main),
        "status" => Ok(Subresource::Status),
        other => Err(bad_request(format!("no subresource {other:?}; there is \"status\""))),
    }
}

fn patch_kind(wanted: v1::patch_request::Type) -> Result<PatchKind, Status> {
    match wanted {
        v1::patch_request::Type::Json => Ok(PatchKind::Json),
        v1::patch_request::Type::Merge => Ok(PatchKind::Merge),
        v1::patch_request::Type::Strategic => Ok(PatchKind::Strategic),
        v1::patch_request::Type::Unspecified => Err(bad_request("the patch has no type")),
    }
}

fn propagation(text: &str) -> Result<Propagation, Status> {
    match text {
        "" | "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        "Orphan" => Ok(Propagation::Orphan),
        other => Err(bad_request(format!(
            "propagation {other:?} is none of Background, Foreground, Orphan"
        ))),
    }
}

/// The watcher as a stream that ends with its first error, or with the master.
fn events(
    watcher: ObjectWatcher,
    cancel: CancellationToken,
) -> BoxStream<'static, Result<v1::WatchEvent, Status>> {
    let next = |state: Option<(ObjectWatcher, CancellationToken)>| async move {
        let (mut watcher, cancel) = state?;
        let event = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(unavailable("this master is shutting down")),
            event = watcher.next() => event.map_err(registry_status),
        };
        match event {
            Ok(event) => Some((Ok(encode(&event)), Some((watcher, cancel)))),
            Err(status) => Some((Err(status), None)),
        }
    };
    Box::pin(futures::stream::unfold(Some((watcher, cancel)), next))
}

fn encode(event: &ObjectEvent) -> v1::WatchEvent {
    use v1::watch_event::Type;
    let kind = match event.kind {
        EventKind::Added => Type::Added,
        EventKind::Modified => Type::Modified,
        EventKind::Deleted => Type::Deleted,
        EventKind::Bookmark => Type::Bookmark,
    };
    v1::WatchEvent {
        r#type: kind.into(),
        object: event.object.as_deref().map(object),
        revision: event.revision,
    }
}
