//! Who is calling: a user by a JWT, verified here, or one of the team's services by its token.
//!
//! The configuration chooses the algorithms, never the token: with an HS256 secret only HS256 is accepted, with a
//! key set only ES256 and RS256, so that a public key can never serve as an HMAC secret.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, JwkSet},
};
use serde_json::Value;
use shared::{
    config::AuthConfig,
    db::{
        Db,
        tokens::{ServiceToken, TOKEN_PREFIX, token_hash},
    },
    domain::Deadline,
    http_client::{self, Allow},
    secrets::SecretStore,
};
use subtle::ConstantTimeEq;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{App, error::ApiError, event::Request};

/// The longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 8_192;
/// Clocks may differ by this much.
const LEEWAY_SECONDS: u64 = 30;
/// A key set is fetched again after this long; Supabase's edge keeps it as long.
const KEYS_KEPT_FOR: Duration = Duration::from_secs(600);
/// An unknown key id fetches the set again, but no more often than this.
const KEYS_FETCHED_EVERY: Duration = Duration::from_secs(60);
/// Fetching the key set may take this long.
const KEYS_BUDGET: Duration = Duration::from_millis(1_500);
/// Service tokens are read again after this long: the latest that a revoked one still works.
const TOKENS_KEPT_FOR: Duration = Duration::from_secs(30);
/// A token that is not among them may be new: they are read again, but no more often than this.
const TOKENS_READ_EVERY: Duration = Duration::from_secs(1);

/// Who is calling.
#[derive(Debug)]
pub(crate) enum Caller {
    /// A signed-in user, or what pays for them.
    User { account_id: Uuid },
    /// One of the team's own services.
    Service { scopes: Vec<String> },
}

/// What a service token may do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scope {
    /// Queue jobs for any account, and read them.
    Enqueue,
    /// Grant credits.
    Grant,
    /// Read everything.
    Operate,
}

impl Scope {
    fn word(self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Grant => "grant",
            Self::Operate => "operate",
        }
    }
}

impl Caller {
    /// Whether this is a service with one of the scopes.
    pub(crate) fn has(&self, wanted: &[Scope]) -> bool {
        match self {
            Self::User { .. } => false,
            Self::Service { scopes } => {
                wanted.iter().any(|scope| scopes.iter().any(|has| has == scope.word()))
            }
        }
    }

    /// The account to act for: a user's own, never one that it names; a service must name one and have a scope.
    pub(crate) fn account(&self, named: Option<&str>, scopes: &[Scope]) -> Result<Uuid, ApiError> {
        match (self, named) {
            (Self::User { account_id }, None) => Ok(*account_id),
            (Self::User { .. }, Some(_)) => {
                Err(ApiError::bad("unknown_field", "Only a service names the account_id."))
            }
            (Self::Service { .. }, _) if !self.has(scopes) => {
                Err(ApiError::forbidden("This token's scopes do not allow it."))
            }
            (Self::Service { .. }, None) => Err(ApiError::bad("account_required", "Name the account_id.")),
            (Self::Service { .. }, Some(named)) => {
                uuid(named).ok_or_else(|| ApiError::invalid("invalid_account", "An account_id is a UUID."))
            }
        }
    }
}

/// A UUID in its one hyphenated form.
pub(crate) fn uuid(text: &str) -> Option<Uuid> {
    let id = (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()?;
    (!id.is_nil()).then_some(id)
}

/// The issuer's key set as it was last fetched, and when that was last tried.
#[derive(Default)]
struct Keys {
    set: Option<(Instant, JwkSet)>,
    tried: Option<Instant>,
}

/// Verifies tokens; keeps key set and service tokens between requests.
pub(crate) struct Authenticator {
    config: AuthConfig,
    secrets: Arc<SecretStore>,
    keys: Mutex<Keys>,
    tokens: Mutex<Option<(Instant, Vec<ServiceToken>)>>,
}

impl Authenticator {
    pub(crate) fn new(config: AuthConfig, secrets: Arc<SecretStore>) -> Self {
        Self { config, secrets, keys: Mutex::default(), tokens: Mutex::new(None) }
    }

    async fn user(&self, token: &str, deadline: Deadline) -> Result<Caller, ApiError> {
        let refused = || ApiError::unauthorized("This token is not accepted.");
        let header = decode_header(token).map_err(|_| refused())?;
        if is_critical(token) {
            return Err(refused());
        }
        let secrets = self.secrets.get(deadline).await.map_err(|error| {
            tracing::error!(error = %error, "secrets unavailable");
            ApiError::auth_unavailable()
        })?;
        let (key, algorithm) = match (&self.config.jwks_url, &secrets.jwt_secret) {
            (None, Some(secret)) => (DecodingKey::from_secret(secret.as_bytes()), Algorithm::HS256),
            _ => self.public_key(header.kid.as_deref(), header.alg, deadline).await?,
        };
        if header.alg != algorithm {
            return Err(refused());
        }
        let issuer = self.config.issuer.as_deref().ok_or_else(|| {
            tracing::error!("JWT_ISSUER is not set: no user can be accepted");
            refused()
        })?;
        let mut rules = Validation::new(algorithm);
        rules.leeway = LEEWAY_SECONDS;
        rules.validate_nbf = true;
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.set_issuer(&[issuer]);
        rules.set_audience(&[&self.config.audience]);
        let claims = decode::<Value>(token, &key, &rules).map_err(|_| refused())?.claims;

        // Supabase's anon and service_role keys are JWTs of the same issuer: neither is a user.
        if claims["role"] != "authenticated" {
            return Err(refused());
        }
        if self.config.refuse_anonymous && claims["is_anonymous"] == true {
            return Err(refused());
        }
        let account = match &self.config.account_claim {
            Some(claim) => &claims["app_metadata"][claim],
            None => &claims["sub"],
        };
        let sub = claims["sub"].as_str().and_then(uuid);
        let account_id = account.as_str().and_then(uuid);
        match (sub, account_id) {
            (Some(_), Some(account_id)) => Ok(Caller::User { account_id }),
            _ => Err(refused()),
        }
    }

    /// The issuer's key of that id, and the algorithm it is for.
    async fn public_key(
        &self,
        kid: Option<&str>,
        alg: Algorithm,
        deadline: Deadline,
    ) -> Result<(DecodingKey, Algorithm), ApiError> {
        let refused = || ApiError::unauthorized("This token is not accepted.");
        if !matches!(alg, Algorithm::ES256 | Algorithm::RS256) {
            return Err(refused());
        }
        let mut keys = self.keys.lock().await;
        let known = keys.set.as_ref().is_some_and(|(_, set)| pick(set, kid).is_some());
        let age = keys.set.as_ref().map(|(fetched, _)| fetched.elapsed());
        let may_try = keys.tried.is_none_or(|tried| tried.elapsed() > KEYS_FETCHED_EVERY);
        match age {
            // Known and fresh, or just looked for: what there is decides.
            Some(age) if age < KEYS_KEPT_FOR && (known || !may_try) => {}
            Some(_) | None if !may_try => return Err(ApiError::auth_unavailable()),
            Some(_) | None => {
                keys.tried = Some(Instant::now());
                match self.fetch_keys(deadline).await {
                    Ok(set) => keys.set = Some((Instant::now(), set)),
                    // The last good set serves for its ten minutes.
                    Err(error) if age.is_none_or(|age| age >= KEYS_KEPT_FOR) => return Err(error),
                    Err(_) => {}
                }
            }
        }
        let set = keys.set.as_ref().map(|(_, set)| set).ok_or_else(refused)?;
        let jwk = pick(set, kid).ok_or_else(refused)?;
        let fits = matches!(
            (&jwk.algorithm, alg),
            (AlgorithmParameters::EllipticCurve(_), Algorithm::ES256)
                | (AlgorithmParameters::RSA(_), Algorithm::RS256)
        );
        let key = DecodingKey::from_jwk(jwk).map_err(|_| refused())?;
        if fits { Ok((key, alg)) } else { Err(refused()) }
    }

    async fn fetch_keys(&self, deadline: Deadline) -> Result<JwkSet, ApiError> {
        let fail = |why: String| {
            tracing::error!(error = why, "key set unavailable");
            ApiError::auth_unavailable()
        };
        let url = match (&self.config.jwks_url, &self.config.issuer) {
            (Some(url), _) => url.clone(),
            (None, Some(issuer)) => format!("{issuer}/.well-known/jwks.json"),
            (None, None) => return Err(fail("neither JWKS_URL nor JWT_ISSUER is set".into())),
        };
        let request = http::Request::get(&url).body(Bytes::new()).map_err(|error| fail(error.to_string()))?;
        let response = http_client::send(request, Allow::Anything, 150_000, deadline.within(KEYS_BUDGET))
            .await
            .map_err(|error| fail(error.to_string()))?;
        if response.status() != http::StatusCode::OK {
            return Err(fail(format!("the issuer answered {}", response.status())));
        }
        serde_json::from_slice(response.body()).map_err(|error| fail(error.to_string()))
    }

    async fn service(&self, db: &Db, token: &str, deadline: Deadline) -> Result<Caller, ApiError> {
        let hash = token_hash(token);
        let mut kept = self.tokens.lock().await;
        let (age, known) = match kept.as_ref() {
            Some((since, tokens)) => (since.elapsed(), find(tokens, &hash).is_some()),
            None => (Duration::MAX, false),
        };
        if age > TOKENS_KEPT_FOR || (!known && age > TOKENS_READ_EVERY) {
            *kept = Some((Instant::now(), db.valid_tokens(deadline).await?));
        }
        let found = kept.as_ref().and_then(|(_, tokens)| find(tokens, &hash));
        let valid = found.ok_or_else(|| ApiError::unauthorized("This token is not accepted."))?;
        tracing::info!(service = valid.name, "service token accepted");
        Ok(Caller::Service { scopes: valid.scopes.clone() })
    }
}

/// The token with that hash. Each is compared, in constant time, whether or not one has matched.
fn find<'a>(tokens: &'a [ServiceToken], hash: &[u8]) -> Option<&'a ServiceToken> {
    let mut found = None;
    for valid in tokens {
        if bool::from(valid.sha256.ct_eq(hash)) {
            found = Some(valid);
        }
    }
    found
}

/// Whether the header names extensions that must be understood (RFC 7515 §4.1.11): none is.
fn is_critical(token: &str) -> bool {
    let header = token.split('.').next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
    header
        .and_then(|header| serde_json::from_slice::<Value>(&header).ok())
        .is_none_or(|header| header.get("crit").is_some())
}

/// The key of that id; without an id, the only key there is.
fn pick<'a>(set: &'a JwkSet, kid: Option<&str>) -> Option<&'a jsonwebtoken::jwk::Jwk> {
    match kid {
        Some(kid) => set.find(kid),
        None if set.keys.len() == 1 => set.keys.first(),
        None => None,
    }
}

/// Who sent this request.
pub(crate) async fn caller(app: &App, request: &Request, deadline: Deadline) -> Result<Caller, ApiError> {
    let missing = || ApiError::unauthorized("Send Authorization: Bearer and a token.");
    let header = request.header("authorization").map_err(|_| missing())?.ok_or_else(missing)?;
    let (scheme, token) = header.split_once(' ').ok_or_else(missing)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return Err(missing());
    }
    if token.starts_with(TOKEN_PREFIX) {
        app.auth.service(&app.db, token, deadline).await
    } else {
        app.auth.user(token, deadline).await
    }
}
