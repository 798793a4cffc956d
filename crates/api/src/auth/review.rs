//! The reviews with which clients ask who they are and what they may do.

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Map, Value, json};

use super::{Attributes, Auth, User, rbac};

/// A review that can be asked for by creating it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Review {
    SelfSubjectAccess,
    SubjectAccess,
    LocalSubjectAccess,
    SelfSubjectRules,
    SelfSubject,
    Token,
}

const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";

impl Review {
    /// All of them: group, resource, kind.
    pub(crate) const ALL: [(Self, &'static str, &'static str, &'static str); 6] = [
        (Self::Token, AUTHENTICATION, "tokenreviews", "TokenReview"),
        (Self::SelfSubject, AUTHENTICATION, "selfsubjectreviews", "SelfSubjectReview"),
        (
            Self::LocalSubjectAccess,
            AUTHORIZATION,
            "localsubjectaccessreviews",
            "LocalSubjectAccessReview",
        ),
        (
            Self::SelfSubjectAccess,
            AUTHORIZATION,
            "selfsubjectaccessreviews",
            "SelfSubjectAccessReview",
        ),
        (
            Self::SelfSubjectRules,
            AUTHORIZATION,
            "selfsubjectrulesreviews",
            "SelfSubjectRulesReview",
        ),
        (Self::SubjectAccess, AUTHORIZATION, "subjectaccessreviews", "SubjectAccessReview"),
    ];

    /// By group and resource, all in version 1.
    pub(crate) fn of(group: &str, version: &str, resource: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, g, r, _)| (*g, *r) == (group, resource));
        found.filter(|_| version == "v1").map(|(review, ..)| *review)
    }

    /// Is it asked for in a namespace?
    pub(crate) fn namespaced(self) -> bool {
        self == Self::LocalSubjectAccess
    }

    /// apiVersion and kind.
    fn names(self) -> (String, &'static str) {
        let found = Self::ALL.iter().find(|(review, ..)| *review == self);
        // The table has all of them.
        found.map(|(_, group, _, kind)| (format!("{group}/v1"), *kind)).unwrap_or_default()
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Auth {
    /// Answers a review: `body` with its status filled in.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub(crate) fn review(
        &self,
        review: Review,
        user: &User,
        namespace: &str,
        mut body: Value,
    ) -> Result<Value, String> {
        let (api_version, kind) = review.names();
        if !body["metadata"].is_object() {
            body["metadata"] = Value::Object(Map::new());
        }
        body["apiVersion"] = api_version.into();
        body["kind"] = kind.into();
        let spec = body["spec"].clone();
        body["status"] = match review {
            Review::SelfSubject => json!({"userInfo": user_info(user)}),
            Review::SelfSubjectAccess => self.access(user, &attributes(&spec)?),
            Review::SubjectAccess | Review::LocalSubjectAccess => {
                let about = User {
                    name: text(&spec, "user"),
                    uid: text(&spec, "uid"),
                    groups: texts(&spec["groups"]),
                    ..User::default()
                };
                if about.name.is_empty() && about.groups.is_empty() {
                    return Err("spec.user: Required value: at least one of user or group must \
                                be specified"
                        .into());
                }
                let wanted = attributes(&spec)?;
                if review == Review::LocalSubjectAccess && wanted.namespace != namespace {
                    return Err("spec.resourceAttributes.namespace: Invalid value: must match \
                                metadata.namespace"
                        .into());
                }
                self.access(&about, &wanted)
            }
            Review::SelfSubjectRules => {
                let namespace = text(&spec, "namespace");
                if namespace.is_empty() {
                    return Err("no namespace on request".into());
                }
                self.rules(user, &namespace)
            }
            Review::Token => self.token_status(&spec),
        };
        Ok(body)
    }

    fn access(&self, user: &User, wanted: &Attributes) -> Value {
        let decision = self.authorize(user, wanted);
        let mut status = json!({"allowed": decision.allowed});
        if !decision.reason.is_empty() {
            status["reason"] = decision.reason.into();
        }
        status
    }

    fn rules(&self, user: &User, namespace: &str) -> Value {
        let all = || PolicyRule {
            api_groups: Some(vec!["*".into()]),
            resources: Some(vec!["*".into()]),
            verbs: vec!["*".into()],
            ..PolicyRule::default()
        };
        let everywhere = || PolicyRule {
            non_resource_urls: Some(vec!["*".into()]),
            verbs: vec!["*".into()],
            ..PolicyRule::default()
        };
        let mut rules: Vec<PolicyRule> = Vec::new();
        if user.is_in(super::MASTERS) {
            rules.extend([all(), everywhere()]);
        }
        let granted = self.registry.cache().read(|view| rbac::rules_of(view, user, namespace));
        rules.extend(granted);
        let (mut resource, mut path) = (Vec::new(), Vec::new());
        for rule in rules {
            if let Some(urls) = rule.non_resource_urls.filter(|urls| !urls.is_empty()) {
                path.push(json!({"verbs": rule.verbs, "nonResourceURLs": urls}));
                continue;
            }
            let mut one = json!({
                "verbs": rule.verbs,
                "apiGroups": rule.api_groups.unwrap_or_default(),
                "resources": rule.resources.unwrap_or_default(),
            });
            if let Some(names) = rule.resource_names.filter(|names| !names.is_empty()) {
                one["resourceNames"] = json!(names);
            }
            resource.push(one);
        }
        json!({
            "resourceRules": resource, "nonResourceRules": path,
            // What an agent may do depends on its pods and is no list of rules.
            "incomplete": user.node().is_some(),
        })
    }

    fn token_status(&self, spec: &Value) -> Value {
        let wanted = match texts(&spec["audiences"]) {
            none if none.is_empty() => vec![super::token::AUDIENCE.to_owned()],
            some => some,
        };
        match self.tokens.check(&text(spec, "token"), &wanted) {
            Ok((user, audiences)) => {
                json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
            }
            Err(error) => json!({"authenticated": false, "error": error.to_string()}),
        }
    }
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// `resourceAttributes` or `nonResourceAttributes` of a review.
fn attributes(spec: &Value) -> Result<Attributes, String> {
    match (spec.get("resourceAttributes"), spec.get("nonResourceAttributes")) {
        (Some(resource), None) => Ok(Attributes {
            verb: text(resource, "verb"),
            group: text(resource, "group"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            namespace: text(resource, "namespace"),
            name: text(resource, "name"),
            path: String::new(),
        }),
        (None, Some(path)) => Ok(Attributes::path(&text(path, "verb"), &text(path, "path"))),
        _ => {
            Err("exactly one of nonResourceAttributes or resourceAttributes must be specified"
                .into())
        }
    }
}
