//! Other versions of kinds, for clients that speak them: converted on their way in and out.
//! A kind is stored in one version only. Versions of custom kinds differ in their name alone.

use quorate_objects::{Kind, custom, kinds};
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// A version of a kind beside the stored one.
#[derive(Clone, Copy)]
pub(super) struct Version {
    pub version: &'static str,
    /// The kind as it is stored.
    pub kind: &'static Kind,
    /// Whose columns are shown.
    pub shown: &'static Kind,
    /// From this version to the stored one, but for the apiVersion.
    to_stored: fn(&mut Value),
    /// And back.
    from_stored: fn(&mut Value),
    /// Adds the version's schema to a generator's definitions, and refers to it; that of `shown`
    /// when there is none.
    schema: Option<fn(&mut SchemaGenerator) -> Schema>,
}

/// Those of the kinds that are built in.
static BUILTIN: &[Version] = &[Version {
    version: "v1",
    kind: &kinds::HORIZONTAL_POD_AUTOSCALER,
    shown: &kinds::HORIZONTAL_POD_AUTOSCALER,
    to_stored: autoscaler_to_v2,
    from_stored: autoscaler_to_v1,
    schema: Some(
        SchemaGenerator::subschema_for::<k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler>,
    ),
}];

/// Where what version 1 cannot say of an autoscaler is kept, so that nothing is lost when an
/// object is read, changed and written by a client of that version.
const KEPT: &str = "autoscaling.alpha.kubernetes.io/";

impl Version {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let custom = custom::other_versions().into_iter().map(|other| Self {
            version: other.kind.version,
            kind: other.stored,
            shown: other.kind,
            to_stored: |_| {},
            from_stored: |_| {},
            schema: None,
        });
        BUILTIN.iter().copied().chain(custom).collect()
    }

    pub fn find(group: &str, version: &str, plural: &str) -> Option<Self> {
        Self::all().into_iter().find(|one| {
            one.version == version && one.kind.group == group && one.kind.plural == plural
        })
    }

    /// Adds the version's schema to a generator's definitions, and refers to it.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        match self.schema {
            Some(schema) => schema(generator),
            None => self.shown.schema(generator),
        }
    }

    pub fn api_version(&self) -> String {
        format!("{}/{}", self.kind.group, self.version)
    }

    pub fn store(&self, value: &mut Value) {
        (self.to_stored)(value);
        value["apiVersion"] = self.kind.api_version().into();
    }

    pub fn serve(&self, value: &mut Value) {
        (self.from_stored)(value);
        value["apiVersion"] = self.api_version().into();
    }
}

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"]["target"]["type"] == "Utilization"
}

fn take(value: &mut Value, part: &str, field: &str) -> Option<Value> {
    value.get_mut(part)?.as_object_mut()?.remove(field)
}

fn autoscaler_to_v2(value: &mut Value) {
    let mut metrics = Vec::new();
    if let Some(percent) = take(value, "spec", "targetCPUUtilizationPercentage") {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        metrics.push(json!({
            "type": "Resource", "resource": {"name": "cpu", "target": target},
        }));
    }
    let mut kept = |field: &str| {
        let annotations = value.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
        let text = annotations.remove(&format!("{KEPT}{field}"))?;
        serde_json::from_str::<Value>(text.as_str()?).ok()
    };
    let (others, behavior) = (kept("metrics"), kept("behavior"));
    metrics.extend(others.as_ref().and_then(Value::as_array).into_iter().flatten().cloned());
    // What is no object is refused by those who decode it.
    let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if !metrics.is_empty() {
        spec.insert("metrics".into(), metrics.into());
    }
    if let Some(behavior) = behavior {
        spec.insert("behavior".into(), behavior);
    }
}

fn autoscaler_to_v1(value: &mut Value) {
    let metrics = take(value, "spec", "metrics");
    let metrics = metrics.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    let behavior = take(value, "spec", "behavior");
    let percent = metrics.iter().find(|metric| is_cpu(metric));
    let percent = percent.map(|cpu| cpu["resource"]["target"]["averageUtilization"].clone());
    let others: Vec<Value> = match metrics.iter().position(is_cpu) {
        Some(cpu) => {
            metrics.iter().enumerate().filter(|(i, _)| *i != cpu).map(|(_, m)| m.clone()).collect()
        }
        None => metrics,
    };
    if let Some(percent) = percent {
        value["spec"]["targetCPUUtilizationPercentage"] = percent;
    }
    let others =
        Some(Value::from(others)).filter(|others| others.as_array().is_some_and(|o| !o.is_empty()));
    for (field, content) in [("metrics", others), ("behavior", behavior)] {
        if let Some(content) = content {
            let metadata = &mut value["metadata"];
            if !metadata["annotations"].is_object() {
                metadata["annotations"] = Value::Object(Map::new());
            }
            metadata["annotations"][format!("{KEPT}{field}")] = content.to_string().into();
        }
    }
    let current = take(value, "status", "currentMetrics");
    let current = current.as_ref().and_then(Value::as_array).into_iter().flatten();
    let mut current =
        current.filter(|one| one["type"] == "Resource" && one["resource"]["name"] == "cpu");
    if let Some(cpu) = current.next() {
        let percent = cpu["resource"]["current"]["averageUtilization"].clone();
        if !percent.is_null() {
            value["status"]["currentCPUUtilizationPercentage"] = percent;
        }
    }
    take(value, "status", "conditions");
}

#[cfg(test)]
#[path = "versions_test.rs"]
mod tests;
