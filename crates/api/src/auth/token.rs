//! Bearer tokens: of service accounts (JWTs that the cluster signs) and for joining.

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use quorate_objects::kinds;
use quorate_registry::{DEFAULT_SERVICE_ACCOUNT, Object, Registry, RegistryError, WriteOptions};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{SERVICE_ACCOUNT_PREFIX, User};

/// Whom tokens are for when the request does not say.
pub(crate) const AUDIENCE: &str = "https://kubernetes.default.svc";
const ISSUER: &str = AUDIENCE;
/// Seconds that a token lives when the request does not say.
const DEFAULT_SECONDS: i64 = 3600;
/// Kubernetes' bounds on what may be asked for.
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// Seconds by which clocks of masters may differ.
const LEEWAY: i64 = 5;
/// Verified tokens that are remembered: so many workloads use the API at once.
const MAX_KNOWN: usize = 4096;
/// Where the key is kept: the same for all masters, and replicated like everything else.
const KEY_NAMESPACE: &str = "kube-system";
const KEY_SECRET: &str = "service-account-key";
const KEY_FIELD: &str = "key.der";
/// Groups that tokens for joining may give.
const BOOTSTRAPPERS_PREFIX: &str = "system:bootstrappers:";
const BOOTSTRAP_TYPE: &str = "bootstrap.kubernetes.io/token";

/// Why there is no token, or why it does not count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The token is not valid; what is wrong is for the log only.
    #[error("the token is not valid: {0}")]
    Invalid(String),
    /// The request for one is wrong.
    #[error("{field}: Invalid value: {value}: {message}")]
    Request { field: &'static str, value: String, message: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("the key of service accounts is broken: {0}")]
    Key(String),
}

/// What a token says. Times are in seconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    iss: String,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Bound {
    namespace: String,
    serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
}

/// An object that must still be there.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reference {
    name: String,
    uid: String,
}

/// A request for a token.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub namespace: String,
    pub account: String,
    pub audiences: Vec<String>,
    pub seconds: Option<i64>,
    /// Name and uid of the pod with which it ends.
    pub pod: Option<(String, String)>,
}

/// A token, and when it is over.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub token: String,
    pub expires: Timestamp,
    pub audiences: Vec<String>,
    pub seconds: i64,
}

/// SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Digest([u8; 32]);

impl Digest {
    fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        // SHA-256 has 32 bytes.
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }
}

struct Keys {
    /// Revision of the Secret.
    revision: u64,
    /// Tokens that these keys have verified, and what they say.
    known: Mutex<HashMap<Digest, Arc<Claims>>>,
    signing: EncodingKey,
    verifying: DecodingKey,
}

pub(crate) struct Tokens {
    registry: Registry,
    keys: Mutex<Option<Arc<Keys>>>,
}

/// The groups of every service account in a namespace.
pub(crate) fn account_groups(namespace: &str) -> [String; 2] {
    ["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]
}

impl Tokens {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry, keys: Mutex::new(None) }
    }

    /// Whose token this is.
    pub(crate) fn authenticate(&self, token: &str) -> Result<User, TokenError> {
        self.check(token, &[AUDIENCE.to_owned()]).map(|(user, _)| user)
    }

    /// Whose token this is when it is for one of `audiences`, and for which of them it is.
    pub(crate) fn check(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), TokenError> {
        if !token.contains("..") && token.matches('.').count() == 1 {
            return self.bootstrap(token).map(|user| (user, Vec::new()));
        }
        let claims = self.verified(token)?;
        let now = quorate_objects::time::timestamp().as_second();
        if claims.exp + LEEWAY < now || claims.nbf - LEEWAY > now {
            return Err(invalid("it has expired, or is not valid yet"));
        }
        let fitting = claims.aud.iter().filter(|aud| audiences.contains(aud));
        let fitting: Vec<String> = fitting.cloned().collect();
        if fitting.is_empty() {
            return Err(invalid("it is for somebody else"));
        }
        Ok((self.bound_user(&claims)?, fitting))
    }

    /// What a token with a good signature says. Whether that still holds is not looked at: the
    /// answer is kept, because the same token comes with each request of its owner.
    fn verified(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        let keys = self.stored_keys()?.ok_or_else(|| invalid("no token was ever given out"))?;
        let digest = Digest::of(token);
        if let Some(claims) = keys.known.lock().get(&digest) {
            return Ok(Arc::clone(claims));
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.validate_exp = false;
        validation.validate_aud = false;
        let data = jsonwebtoken::decode::<Claims>(token, &keys.verifying, &validation)
            .map_err(|error| invalid(error.to_string()))?;
        let claims = Arc::new(data.claims);
        let mut known = keys.known.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(digest, Arc::clone(&claims));
        Ok(claims)
    }

    /// The account, and what else the token is bound to, must still be the same objects.
    fn bound_user(&self, claims: &Claims) -> Result<User, TokenError> {
        let Bound { namespace, serviceaccount: account, pod } = &claims.bound;
        let same = |kind, reference: &Reference| {
            let found = self.registry.cache().get(kind, namespace, &reference.name);
            found.is_some_and(|object| object.uid() == reference.uid)
        };
        if !same(&kinds::SERVICE_ACCOUNT, account) {
            return Err(invalid("its service account is gone"));
        }
        if pod.as_ref().is_some_and(|pod| !same(&kinds::POD, pod)) {
            return Err(invalid("its pod is gone"));
        }
        let mut user = User {
            name: format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{}", account.name),
            uid: account.uid.clone(),
            ..User::default()
        };
        if let Some(pod) = pod {
            let extra = [("pod-name", &pod.name), ("pod-uid", &pod.uid)];
            for (key, value) in extra {
                user.extra
                    .insert(format!("authentication.kubernetes.io/{key}"), vec![value.clone()]);
            }
        }
        Ok(user.with_groups(account_groups(namespace)))
    }

    /// `ID.SECRET`, as in the Secret `bootstrap-token-ID` of kube-system.
    fn bootstrap(&self, token: &str) -> Result<User, TokenError> {
        let (id, secret) = token.split_once('.').ok_or_else(|| invalid("no such token"))?;
        let name = format!("bootstrap-token-{id}");
        let object = self.registry.cache().get(&kinds::SECRET, KEY_NAMESPACE, &name);
        let object = object.ok_or_else(|| invalid("no such token"))?;
        let stored = object.typed::<Secret>()?;
        let text = |field: &str| {
            let data = stored.data.as_ref().and_then(|data| data.get(field));
            data.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
        };
        let usable = stored.type_.as_deref() == Some(BOOTSTRAP_TYPE)
            && text("token-id") == id
            && text("usage-bootstrap-authentication") == "true"
            && same_secret(&text("token-secret"), secret);
        let expires = text("expiration");
        let over = !expires.is_empty()
            && expires
                .parse::<Timestamp>()
                .map_or(true, |until| until <= quorate_objects::time::timestamp());
        if !usable || over || secret.is_empty() {
            return Err(invalid("no such token"));
        }
        let extra = text("auth-extra-groups");
        // Others would make everybody who may write Secrets there a member of any group.
        let extra = extra.split(',').map(str::trim);
        let extra = extra.filter(|group| group.starts_with(BOOTSTRAPPERS_PREFIX));
        let groups = ["system:bootstrappers"].into_iter().chain(extra).map(str::to_owned);
        let user = User { name: format!("system:bootstrap:{id}"), ..User::default() };
        Ok(user.with_groups(groups))
    }

    /// Makes a token; for the agent of `node`, when that is given.
    pub(super) async fn issue(
        &self,
        wanted: &Wanted,
        node: Option<&str>,
    ) -> Result<Issued, TokenError> {
        let seconds = wanted.seconds.unwrap_or(DEFAULT_SECONDS);
        let wrong = |message: &str| TokenError::Request {
            field: "spec.expirationSeconds",
            value: seconds.to_string(),
            message: message.into(),
        };
        if seconds < MIN_SECONDS {
            return Err(wrong("may not specify a duration less than 10 minutes"));
        }
        if seconds > MAX_SECONDS {
            return Err(wrong("may not specify a duration larger than 2^32 seconds"));
        }
        let account =
            self.existing(&kinds::SERVICE_ACCOUNT, &wanted.namespace, &wanted.account).await?;
        let pod = match &wanted.pod {
            None if node.is_some() => {
                return Err(forbidden(wanted, "node requested token not bound to a pod"));
            }
            None => None,
            Some((name, uid)) => {
                let pod = self.existing(&kinds::POD, &wanted.namespace, name).await?;
                if node.is_some_and(|node| pod.field("spec.nodeName") != Some(node)) {
                    let text = "node requested token bound to a pod scheduled on a different node";
                    return Err(forbidden(wanted, text));
                }
                if !uid.is_empty() && pod.uid() != uid {
                    return Err(TokenError::Registry(RegistryError::Conflict {
                        resource: "pods".into(),
                        name: name.clone(),
                        message: format!(
                            "the UID in the bound object reference ({uid}) does not match the \
                             UID in record ({})",
                            pod.uid()
                        ),
                    }));
                }
                let own = account_of(&pod)?;
                if own != wanted.account {
                    return Err(TokenError::Registry(RegistryError::BadRequest(format!(
                        "cannot bind token for serviceaccount {:?} to pod running with different \
                         serviceaccount name {own:?}",
                        wanted.account
                    ))));
                }
                Some(Reference { name: name.clone(), uid: pod.uid().to_owned() })
            }
        };
        let audiences = match wanted.audiences.as_slice() {
            [] => vec![AUDIENCE.to_owned()],
            some => some.to_vec(),
        };
        let now = quorate_objects::time::timestamp().as_second();
        let claims = Claims {
            aud: audiences.clone(),
            exp: now + seconds,
            iat: now,
            nbf: now,
            iss: ISSUER.into(),
            sub: format!("{SERVICE_ACCOUNT_PREFIX}{}:{}", wanted.namespace, wanted.account),
            bound: Bound {
                namespace: wanted.namespace.clone(),
                serviceaccount: Reference {
                    name: wanted.account.clone(),
                    uid: account.uid().to_owned(),
                },
                pod,
            },
        };
        let keys = self.ensured_keys().await?;
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &keys.signing)
            .map_err(|error| TokenError::Key(error.to_string()))?;
        let expires = Timestamp::from_second(claims.exp)
            .map_err(|error| TokenError::Key(error.to_string()))?;
        Ok(Issued { token, expires, audiences, seconds })
    }

    async fn existing(
        &self,
        kind: &'static quorate_objects::Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Object>, RegistryError> {
        self.registry.get(kind, namespace, name, quorate_registry::Consistency::Linearizable).await
    }

    fn stored_keys(&self) -> Result<Option<Arc<Keys>>, TokenError> {
        let cache = self.registry.cache();
        let stored = cache.get(&kinds::SECRET, KEY_NAMESPACE, KEY_SECRET);
        stored.map(|object| self.parse(&object)).transpose()
    }

    /// The keys of the Secret, parsed once.
    fn parse(&self, object: &Object) -> Result<Arc<Keys>, TokenError> {
        let mut known = self.keys.lock();
        if let Some(keys) = known.as_ref().filter(|keys| keys.revision == object.revision) {
            return Ok(Arc::clone(keys));
        }
        let secret = object.typed::<Secret>()?;
        let der = secret.data.as_ref().and_then(|data| data.get(KEY_FIELD));
        let der = der.ok_or_else(|| TokenError::Key(format!("it has no {KEY_FIELD}")))?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der.0, &random)
            .map_err(|error| TokenError::Key(error.to_string()))?;
        let keys = Arc::new(Keys {
            revision: object.revision,
            known: Mutex::default(),
            signing: EncodingKey::from_ec_der(&der.0),
            verifying: DecodingKey::from_ec_der(pair.public_key().as_ref()),
        });
        *known = Some(Arc::clone(&keys));
        Ok(keys)
    }

    /// The keys; made when there are none. When two masters make them at once, the first counts.
    async fn ensured_keys(&self) -> Result<Arc<Keys>, TokenError> {
        if let Some(keys) = self.stored_keys()? {
            return Ok(keys);
        }
        let der =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|_| TokenError::Key("no key could be made".into()))?;
        let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der.as_ref());
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "quorate.dev/service-account-key",
            "metadata": {"name": KEY_SECRET, "namespace": KEY_NAMESPACE},
            "data": {KEY_FIELD: data},
        });
        match self.registry.create(secret, &WriteOptions::default()).await {
            Ok(object) => self.parse(&object),
            Err(RegistryError::AlreadyExists { .. }) => {
                let object = self.existing(&kinds::SECRET, KEY_NAMESPACE, KEY_SECRET).await?;
                self.parse(&object)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The name of the service account that a pod runs with.
pub(crate) fn account_of(pod: &Object) -> Result<String, RegistryError> {
    let pod = pod.typed::<Pod>()?;
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    Ok(account.unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.to_owned()))
}

fn forbidden(wanted: &Wanted, text: &str) -> TokenError {
    let text = format!("serviceaccounts {:?} is forbidden: {text}", wanted.account);
    TokenError::Registry(RegistryError::Forbidden(text))
}

fn invalid(reason: impl Into<String>) -> TokenError {
    TokenError::Invalid(reason.into())
}

/// Compares without telling by its duration where they differ.
fn same_secret(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    one.len() == other.len()
        && one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}
