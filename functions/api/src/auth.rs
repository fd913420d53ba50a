//! Who is calling: a user by a JWT, verified here, or one of the team's services by its token.
//!
//! The configuration chooses the algorithms, never the token: with an HS256 secret only HS256 is accepted, with a
//! key set only ES256 and RS256, so that a public key can never serve as an HMAC secret.
//!
//! Why a token is refused is for the log, in a word, with what tells one issuer's tokens from another's; its sender hears 401.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, Jwk, JwkSet},
};
use serde::Deserialize;
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
/// A key set is fetched again after this long,
const KEYS_FRESH_FOR: Duration = Duration::from_secs(300);
/// and serves for so long where that fails; Supabase's edge keeps it as long.
const KEYS_KEPT_FOR: Duration = Duration::from_secs(600);
/// An unknown key id fetches the set again, but no more often than this: whoever makes them up burdens the issuer no more, and
/// keeps nobody out for longer whose key is new.
const KEYS_FETCHED_EVERY: Duration = Duration::from_secs(10);
/// After a fetch that failed the next one waits this long, twice as long after each other one, and no longer than
/// `KEYS_FETCHED_EVERY`.
const KEYS_TRIED_AFTER: Duration = Duration::from_secs(1);
/// Fetching the key set may take this long.
const KEYS_BUDGET: Duration = Duration::from_millis(1_500);
/// What is logged of a token is cut at so many characters each.
const LOGGED_CHARS: usize = 200;
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
                Err(ApiError::bad("unknown_parameter", "Only a service names the account_id.")
                    .of_parameter("account_id"))
            }
            (Self::Service { .. }, _) if !self.has(scopes) => {
                Err(ApiError::forbidden("This token's scopes do not allow it."))
            }
            (Self::Service { .. }, None) => {
                Err(ApiError::bad("account_required", "Name the account_id.").of_parameter("account_id"))
            }
            (Self::Service { .. }, Some(named)) => uuid(named).ok_or_else(|| {
                ApiError::invalid("invalid_account", "An account_id is a UUID.").of_parameter("account_id")
            }),
        }
    }
}

/// A UUID in its one hyphenated form.
pub(crate) fn uuid(text: &str) -> Option<Uuid> {
    let id = (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()?;
    (!id.is_nil()).then_some(id)
}

/// Why a token does not say who is calling.
#[derive(Debug)]
enum Denied {
    /// It is refused: the reason, in a word, is for the log.
    Refused(&'static str),
    /// It cannot be found out now.
    Unavailable,
}

/// What an `iss` that is not ours is called, and one that is but for a slash at its end.
const OTHER_ISSUER: &str = "issuer";
const SLASHED_ISSUER: &str = "issuer_differs_by_a_slash";

/// The issuer's key set as it was last fetched, when fetching it was last tried, and how often that has failed since.
#[derive(Default)]
struct Keys {
    set: Option<(Instant, JwkSet)>,
    tried: Option<Instant>,
    failures: u32,
}

/// What is to be done about the key set for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetch {
    /// What there is decides.
    No,
    /// It is to be fetched; if that fails, what there is decides.
    Wanted,
    /// Nothing can be said without fetching it.
    Needed,
    /// Nor can it be fetched yet.
    NotYet,
}

impl Keys {
    fn fetch(&self, kid: Option<&str>) -> Fetch {
        let known = self.set.as_ref().is_some_and(|(_, set)| pick(set, kid).is_some());
        let age = self.set.as_ref().map(|(fetched, _)| fetched.elapsed());
        fetch(known, age, self.tried.map(|tried| tried.elapsed()), self.failures)
    }
}

/// By whether the token's key is in the set, the age of that, how long ago fetching it ended, and how often that failed.
fn fetch(known: bool, age: Option<Duration>, tried: Option<Duration>, failures: u32) -> Fetch {
    let usable = age.is_some_and(|age| age < KEYS_KEPT_FOR);
    let rest = match failures {
        0 if usable && !known => KEYS_FETCHED_EVERY,
        0 => Duration::ZERO,
        _ if usable => KEYS_FETCHED_EVERY,
        failures => KEYS_TRIED_AFTER.saturating_mul(1 << (failures - 1).min(8)).min(KEYS_FETCHED_EVERY),
    };
    let may = tried.is_none_or(|tried| tried >= rest);
    match (usable, may) {
        (true, _) if known && age.is_some_and(|age| age < KEYS_FRESH_FOR) => Fetch::No,
        (true, false) => Fetch::No,
        (true, true) => Fetch::Wanted,
        (false, true) => Fetch::Needed,
        (false, false) => Fetch::NotYet,
    }
}

/// Verifies tokens; keeps key set and service tokens between requests.
pub(crate) struct Authenticator {
    config: AuthConfig,
    secrets: Arc<SecretStore>,
    keys: std::sync::Mutex<Keys>,
    /// Held by whoever fetches them: the others wait for what comes of it, or need not.
    fetching: Mutex<()>,
    tokens: Mutex<Option<(Instant, Vec<ServiceToken>)>>,
}

impl Authenticator {
    pub(crate) fn new(config: AuthConfig, secrets: Arc<SecretStore>) -> Self {
        let keys = std::sync::Mutex::default();
        Self { config, secrets, keys, fetching: Mutex::new(()), tokens: Mutex::new(None) }
    }

    async fn user(&self, token: &str, deadline: Deadline) -> Result<Caller, Denied> {
        let header = decode_header(token).map_err(|error| Denied::Refused(reason(error.kind())))?;
        if is_critical(token) {
            return Err(Denied::Refused("critical_header"));
        }
        let secrets = self.secrets.get(deadline).await.map_err(|error| {
            tracing::error!(error = %error, "secrets unavailable");
            Denied::Unavailable
        })?;
        let (key, algorithm) = match (&self.config.jwks_url, &secrets.jwt_secret) {
            (None, Some(secret)) => (DecodingKey::from_secret(secret.as_bytes()), Algorithm::HS256),
            _ => self.public_key(header.kid.as_deref(), header.alg, deadline).await?,
        };
        if header.alg != algorithm {
            return Err(Denied::Refused("algorithm"));
        }
        let issuer = self.config.issuer.as_deref().ok_or_else(|| {
            tracing::error!("JWT_ISSUER is not set: no user can be accepted");
            Denied::Refused(OTHER_ISSUER)
        })?;
        let mut rules = Validation::new(algorithm);
        rules.leeway = LEEWAY_SECONDS;
        rules.validate_nbf = true;
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.set_issuer(&[issuer]);
        rules.set_audience(&[&self.config.audience]);
        let claims = decode::<Value>(token, &key, &rules);
        let claims = claims.map_err(|error| Denied::Refused(reason(error.kind())))?.claims;

        // Supabase's anon and service_role keys are JWTs of the same issuer: neither is a user.
        if claims["role"] != "authenticated" {
            return Err(Denied::Refused("role"));
        }
        if self.config.refuse_anonymous && claims["is_anonymous"] == true {
            return Err(Denied::Refused("anonymous"));
        }
        let account = match &self.config.account_claim {
            Some(claim) => &claims["app_metadata"][claim],
            None => &claims["sub"],
        };
        claims["sub"].as_str().and_then(uuid).ok_or(Denied::Refused("subject"))?;
        let account_id = account.as_str().and_then(uuid).ok_or(Denied::Refused("account_claim"))?;
        Ok(Caller::User { account_id })
    }

    /// Logs that a token is refused: why, and whose it says it is. Nothing of it is vetted, and nothing else of it is shown.
    fn note(&self, reason: &'static str, token: &str) {
        let part = |n: usize| {
            let part = URL_SAFE_NO_PAD.decode(token.split('.').nth(n)?).ok()?;
            serde_json::from_slice::<Value>(&part).ok()
        };
        let (header, claims) = match token.len() {
            0..=MAX_TOKEN_BYTES => (part(0).unwrap_or_default(), part(1).unwrap_or_default()),
            _ => (Value::Null, Value::Null),
        };
        let issuer = logged(&claims["iss"]);
        let mut reason = reason;
        let ours = self.config.issuer.as_deref();
        if reason == OTHER_ISSUER
            && ours
                .zip(issuer.as_deref())
                .is_some_and(|(ours, its)| ours.trim_end_matches('/') == its.trim_end_matches('/'))
        {
            reason = SLASHED_ISSUER;
        }
        let expected = match reason {
            OTHER_ISSUER | SLASHED_ISSUER => ours,
            "audience" => Some(self.config.audience.as_str()),
            _ => None,
        };
        let (audience, algorithm) = (logged(&claims["aud"]), logged(&header["alg"]));
        let key_id = logged(&header["kid"]);
        tracing::warn!(reason, expected, issuer, audience, algorithm, key_id, "token refused");
    }

    /// The issuer's key of that id, and the algorithm it is for.
    async fn public_key(
        &self,
        kid: Option<&str>,
        alg: Algorithm,
        deadline: Deadline,
    ) -> Result<(DecodingKey, Algorithm), Denied> {
        if !matches!(alg, Algorithm::ES256 | Algorithm::RS256) {
            return Err(Denied::Refused("algorithm"));
        }
        self.fetch_if_due(kid, deadline).await?;
        let keys = self.keys();
        let set = keys.set.as_ref().map(|(_, set)| set).ok_or(Denied::Unavailable)?;
        let jwk = pick(set, kid).ok_or(Denied::Refused("unknown_key"))?;
        let fits = matches!(
            (&jwk.algorithm, alg),
            (AlgorithmParameters::EllipticCurve(_), Algorithm::ES256)
                | (AlgorithmParameters::RSA(_), Algorithm::RS256)
        );
        let key = DecodingKey::from_jwk(jwk).map_err(|_| Denied::Refused("unusable_key"))?;
        if fits { Ok((key, alg)) } else { Err(Denied::Refused("algorithm")) }
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch_if_due(&self, kid: Option<&str>, deadline: Deadline) -> Result<(), Denied> {
        let due = self.keys().fetch(kid);
        let _fetching = match due {
            Fetch::No => return Ok(()),
            Fetch::NotYet => return Err(Denied::Unavailable),
            Fetch::Needed => self.fetching.lock().await,
            Fetch::Wanted => match self.fetching.try_lock() {
                Ok(fetching) => fetching,
                // Somebody is at it already, and a key that is known does until then.
                Err(_) if self.keys().set.as_ref().is_some_and(|(_, set)| pick(set, kid).is_some()) => {
                    return Ok(());
                }
                Err(_) => self.fetching.lock().await,
            },
        };
        // Whoever has waited finds what came of it.
        match self.keys().fetch(kid) {
            Fetch::No => return Ok(()),
            Fetch::NotYet => return Err(Denied::Unavailable),
            Fetch::Wanted | Fetch::Needed => {}
        }
        let fetched = self.fetch_keys(deadline).await;
        let mut keys = self.keys();
        keys.tried = Some(Instant::now());
        match fetched {
            Ok(set) => (keys.set, keys.failures) = (Some((Instant::now(), set)), 0),
            Err(why) => {
                keys.failures = keys.failures.saturating_add(1);
                tracing::error!(error = why, failures = keys.failures, "key set unavailable");
                if keys.set.as_ref().is_none_or(|(fetched, _)| fetched.elapsed() >= KEYS_KEPT_FOR) {
                    return Err(Denied::Unavailable);
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// Why there is none, for the log.
    async fn fetch_keys(&self, deadline: Deadline) -> Result<JwkSet, String> {
        let url = match (&self.config.jwks_url, &self.config.issuer) {
            (Some(url), _) => url.clone(),
            (None, Some(issuer)) => format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/')),
            (None, None) => return Err("neither JWKS_URL nor JWT_ISSUER is set".into()),
        };
        let request = http::Request::get(&url).body(Bytes::new()).map_err(|error| error.to_string())?;
        let response = http_client::send(request, Allow::Anything, 150_000, deadline.within(KEYS_BUDGET))
            .await
            .map_err(|error| error.to_string())?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("the issuer answered {}", response.status()));
        }
        /// One by one: a key of a sort that nobody knows yet is no reason to refuse the others.
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set =
            serde_json::from_slice(response.body()).map_err(|_| "the issuer's answer is no key set")?;
        let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        Ok(JwkSet { keys: keys.collect() })
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
        let valid = found.ok_or_else(|| {
            tracing::warn!(reason = "unknown_service_token", "token refused");
            ApiError::unauthorized("This token is not accepted.")
        })?;
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

/// What is logged of a refusal, in a word.
fn reason(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::InvalidSignature => "signature",
        ErrorKind::ExpiredSignature => "expired",
        ErrorKind::ImmatureSignature => "not_yet_valid",
        ErrorKind::InvalidIssuer => OTHER_ISSUER,
        ErrorKind::InvalidAudience => "audience",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            "algorithm"
        }
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => match claim.as_str()
        {
            "exp" => "no_exp",
            "iss" => "no_iss",
            "aud" => "no_aud",
            "sub" => "no_sub",
            _ => "malformed_claim",
        },
        _ => "malformed",
    }
}

/// What is logged of a part of a token: a text, or a list of them, up to a length. JSON escapes what is no letter.
fn logged(part: &Value) -> Option<String> {
    let text = match part {
        Value::String(text) => text.clone(),
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).take(10).collect::<Vec<_>>().join(" "),
        _ => return None,
    };
    Some(text.chars().take(LOGGED_CHARS).collect())
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
    let bearer = header.split_once(' ').map(|(scheme, token)| (scheme, token.trim()));
    let token = match bearer {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() => token,
        _ => {
            tracing::warn!(reason = "no_bearer", "token refused");
            return Err(missing());
        }
    };
    if token.len() > MAX_TOKEN_BYTES {
        tracing::warn!(reason = "too_long", bytes = token.len(), "token refused");
        return Err(missing());
    }
    if token.starts_with(TOKEN_PREFIX) {
        return app.auth.service(&app.db, token, deadline).await;
    }
    app.auth.user(token, deadline).await.map_err(|denied| match denied {
        Denied::Unavailable => ApiError::auth_unavailable(),
        Denied::Refused(reason) => {
            app.auth.note(reason, token);
            ApiError::unauthorized("This token is not accepted.")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn the_key_set_is_fetched_again_soon_after_it_failed_and_seldom_otherwise() {
        for (known, age, tried, failures, expected) in [
            (false, None, None, 0, Fetch::Needed),
            // The issuer is away at a cold start.
            (false, None, Some(Duration::from_millis(900)), 1, Fetch::NotYet),
            (false, None, s(1), 1, Fetch::Needed),
            (false, None, s(1), 2, Fetch::NotYet),
            (false, None, s(2), 2, Fetch::Needed),
            (false, None, s(9), 5, Fetch::NotYet),
            (false, None, s(10), 5, Fetch::Needed),
            (false, None, s(10), u32::MAX, Fetch::Needed),
            // It is there.
            (true, s(0), s(0), 0, Fetch::No),
            (true, s(299), s(299), 0, Fetch::No),
            (true, s(300), s(300), 0, Fetch::Wanted),
            (true, s(900), s(900), 0, Fetch::Needed),
            // It goes away: what there is serves for its time.
            (true, s(301), s(1), 1, Fetch::No),
            (true, s(310), s(10), 1, Fetch::Wanted),
            (true, s(599), s(10), 20, Fetch::Wanted),
            (true, s(600), s(1), 1, Fetch::Needed),
            (true, s(600), s(9), 20, Fetch::NotYet),
            // Somebody makes key ids up.
            (false, s(5), s(5), 0, Fetch::No),
            (false, s(10), s(10), 0, Fetch::Wanted),
            (false, s(10), s(1), 1, Fetch::No),
        ] {
            assert_eq!(fetch(known, age, tried, failures), expected, "{known} {age:?} {tried:?} {failures}");
        }
    }

    #[test]
    fn of_a_token_little_is_logged() {
        assert_eq!(logged(&serde_json::json!("x".repeat(5_000))).map(|text| text.len()), Some(LOGGED_CHARS));
        assert_eq!(logged(&serde_json::json!(["a", 1, "b"])).as_deref(), Some("a b"));
        assert_eq!((logged(&serde_json::json!({ "a": 1 })), logged(&Value::Null)), (None, None));
    }
}
