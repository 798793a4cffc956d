//! StatefulSet.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetUpdateStrategy};

use crate::error::{Errors, FieldError};
use crate::kind::{Column, Kind, Ops, ScalePaths, Typed};
use crate::{template, time};

/// StatefulSet.
pub static KIND: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    namespaced: true,
    has_status: true,
    selectable: &[],
    columns: &[
        Column::new("NAME"),
        Column::new("READY"),
        Column::new("AGE"),
        Column::wide("CONTAINERS"),
        Column::wide("IMAGES"),
    ],
    ops: Ops::of::<StatefulSet>(),
};

impl Typed for StatefulSet {
    const SCALE: Option<ScalePaths> = Some(ScalePaths::APPS);

    fn kind() -> &'static Kind {
        &KIND
    }

    fn set_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        template::default_text(&mut spec.pod_management_policy, "OrderedReady");
        let strategy = spec.update_strategy.get_or_insert_default();
        template::default_text(&mut strategy.type_, "RollingUpdate");
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            strategy.rolling_update.get_or_insert_default().partition.get_or_insert(0);
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        template::default_text(&mut retention.when_deleted, "Retain");
        template::default_text(&mut retention.when_scaled, "Retain");
        template::default_template(&mut spec.template);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            claim.set_defaults();
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        errors.non_negative("spec.replicas", spec.replicas.map(i64::from));
        errors.non_negative("spec.minReadySeconds", spec.min_ready_seconds.map(i64::from));
        errors
            .non_negative("spec.revisionHistoryLimit", spec.revision_history_limit.map(i64::from));
        errors.one_of(
            "spec.podManagementPolicy",
            spec.pod_management_policy.as_deref(),
            &["OrderedReady", "Parallel"],
        );
        let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start);
        errors.non_negative("spec.ordinals.start", start.map(i64::from));
        validate_strategy(spec.update_strategy.as_ref(), errors);
        let retention = spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
        for (field, policy) in
            [("whenDeleted", retention.when_deleted), ("whenScaled", retention.when_scaled)]
        {
            let path = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
            errors.one_of(path, policy.as_deref(), &["Retain", "Delete"]);
        }
        let claims = spec.volume_claim_templates.as_deref().unwrap_or_default();
        let mut names = std::collections::BTreeSet::new();
        for (index, claim) in claims.iter().enumerate() {
            let path = format!("spec.volumeClaimTemplates[{index}]");
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            template::label_name(name, &format!("{path}.metadata.name"), errors);
            if !name.is_empty() && !names.insert(name.to_owned()) {
                errors.push(FieldError::duplicate(format!("{path}.metadata.name"), name));
            }
            super::persistent_volume_claim::validate_spec(claim, &format!("{path}.spec"), errors);
        }
        // Their volumes come with the pod, so the template's containers may mount them.
        template::validate_template_with(&spec.selector, &spec.template, &names, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let mut allowed = old.spec.clone();
        let new = self.spec.clone();
        allowed.replicas = new.replicas;
        allowed.template = new.template.clone();
        allowed.update_strategy = new.update_strategy.clone();
        allowed.min_ready_seconds = new.min_ready_seconds;
        allowed.ordinals = new.ordinals.clone();
        allowed.revision_history_limit = new.revision_history_limit;
        let retention = new.persistent_volume_claim_retention_policy.clone();
        allowed.persistent_volume_claim_retention_policy = retention;
        if new != allowed {
            errors.push(FieldError::forbidden(
                "spec",
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
                 'template', 'updateStrategy', 'revisionHistoryLimit', \
                 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            ));
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let ready = self.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        let (containers, images) = template::shown_containers(self.spec.template.spec.as_ref());
        vec![
            self.metadata.name.clone().unwrap_or_default(),
            format!("{ready}/{}", self.spec.replicas.unwrap_or(1)),
            time::age_of(self.metadata.creation_timestamp.as_ref(), now),
            containers,
            images,
        ]
    }
}

fn validate_strategy(strategy: Option<&StatefulSetUpdateStrategy>, errors: &mut Errors) {
    let Some(strategy) = strategy else { return };
    let kind = strategy.type_.as_deref();
    errors.one_of("spec.updateStrategy.type", kind, &["OnDelete", "RollingUpdate"]);
    let Some(rolling) = &strategy.rolling_update else { return };
    let path = "spec.updateStrategy.rollingUpdate";
    if kind == Some("OnDelete") {
        let text = "only allowed for updateStrategy 'RollingUpdate'";
        errors.push(FieldError::forbidden(path, text));
    }
    errors.non_negative(format!("{path}.partition"), rolling.partition.map(i64::from));
    let path = format!("{path}.maxUnavailable");
    if template::validate_amount(rolling.max_unavailable.as_ref(), &path, errors) == Some(0) {
        errors.invalid(path, 0, "cannot be 0");
    }
}
