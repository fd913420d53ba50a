//! Secrets: from the environment (local use), or one secret of Secrets Manager or parameter of SSM, named by its ARN, read
//! with one signed request when first needed, without the full AWS SDK.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime},
};

use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    domain::Deadline,
    http_client::{self, Allow},
};

/// A secret is read again after this long (AWS's own cache extension keeps it as long).
const KEPT_FOR: Duration = Duration::from_secs(300);

/// The shortest secret that signs anything, in bytes (RFC 7518 §3.2, for HS256).
const SHORTEST_SECRET: usize = 32;

/// What there is to know. Never printed.
#[derive(Clone, Default, Deserialize)]
pub struct Secrets {
    /// Where the database is, with user and password.
    #[serde(alias = "DATABASE_URL")]
    pub database_url: String,
    /// The password, if the URL has none.
    #[serde(default, alias = "PGPASSWORD")]
    pub pg_password: Option<String>,
    /// More certification authorities for the database: paths of PEM files, separated by colons, or PEM itself.
    #[serde(default, alias = "PG_CA_PEM")]
    pub pg_ca_pem: Option<String>,
    /// The secret of an HS256 issuer.
    #[serde(default, alias = "JWT_SECRET")]
    pub jwt_secret: Option<String>,
    /// The master secret from which each kind's signing secret is derived.
    #[serde(default, alias = "SIGNING_SECRET")]
    pub signing_secret: Option<String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// Where secrets come from.
#[derive(Clone, Default)]
pub struct SecretSource {
    /// The database's URL, if it is given directly.
    pub database_url: Option<String>,
    /// `PGPASSWORD`: the database's password, where its URL has none.
    pub pg_password: Option<String>,
    /// `PG_CA_PEM`: more certification authorities for the database, as paths or as PEM.
    pub pg_ca_pem: Option<String>,
    /// The HS256 secret, if it is given directly.
    pub jwt_secret: Option<String>,
    /// The master signing secret, if it is given directly.
    pub signing_secret: Option<String>,
    /// The secret in Secrets Manager, or the SecureString in SSM's Parameter Store: a JSON object with `DATABASE_URL` and, as needed, `JWT_SECRET` and
    /// `SIGNING_SECRET`.
    pub arn: Option<String>,
    /// The service's endpoint; the region's own unless set (tests).
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The function's own credentials.
    pub credentials: Option<AwsCredentials>,
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSource").field("arn", &self.arn).finish_non_exhaustive()
    }
}

/// The function's own credentials, as Lambda puts them into the environment.
#[derive(Clone)]
pub struct AwsCredentials {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: String,
    /// Session token.
    pub token: Option<String>,
}

/// A secret without the line's end that an editor, `echo` or a paste has left behind it: none has one of its own.
#[must_use]
pub fn without_line_end(secret: &str) -> &str {
    secret.trim_end_matches(['\r', '\n'])
}

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the secret: {0}")]
pub struct SecretError(String);

/// A secret that signs, if it can: an empty one is none, since it signs like any other, and everybody knows
/// it.
///
/// # Errors
/// [`SecretError`] when it has fewer than 32 bytes.
pub fn vetted(name: &str, secret: Option<String>) -> Result<Option<String>, SecretError> {
    let secret = secret.filter(|secret| !secret.trim().is_empty());
    match secret.as_ref().is_some_and(|secret| secret.len() < SHORTEST_SECRET) {
        true => Err(SecretError(format!("{name} has fewer than {SHORTEST_SECRET} bytes"))),
        false => Ok(secret),
    }
}

/// Reads the secrets once and keeps them for five minutes.
#[derive(Debug)]
pub struct SecretStore {
    source: SecretSource,
    kept: Mutex<Option<(Instant, Secrets)>>,
}

impl SecretStore {
    /// A store that has read nothing yet: the first invocation does.
    #[must_use]
    pub fn new(source: SecretSource) -> Self {
        Self { source, kept: Mutex::new(None) }
    }

    /// The secrets, read if they are not at hand.
    ///
    /// # Errors
    /// [`SecretError`] when the service does not answer in time, refuses, or holds something else.
    pub async fn get(&self, deadline: Deadline) -> Result<Secrets, SecretError> {
        let mut kept = self.kept.lock().await;
        if let Some((since, secrets)) = kept.as_ref()
            && since.elapsed() < KEPT_FOR
        {
            return Ok(secrets.clone());
        }
        let mut secrets = match &self.source.arn {
            Some(arn) => self.fetch(arn, deadline).await?,
            None => Secrets::default(),
        };
        let SecretSource { database_url, pg_password, pg_ca_pem, jwt_secret, signing_secret, .. } =
            self.source.clone();
        secrets.database_url = database_url.unwrap_or(secrets.database_url);
        secrets.pg_password = pg_password.or(secrets.pg_password);
        secrets.pg_ca_pem = pg_ca_pem.or(secrets.pg_ca_pem);
        secrets.jwt_secret = jwt_secret.or(secrets.jwt_secret);
        secrets.signing_secret = signing_secret.or(secrets.signing_secret);
        for secret in [&mut secrets.pg_password, &mut secrets.jwt_secret, &mut secrets.signing_secret] {
            *secret = secret.take().map(|secret| without_line_end(&secret).to_owned());
        }
        for (name, secret) in
            [("JWT_SECRET", &mut secrets.jwt_secret), ("SIGNING_SECRET", &mut secrets.signing_secret)]
        {
            *secret = vetted(name, secret.take())?;
        }
        *kept = Some((Instant::now(), secrets.clone()));
        Ok(secrets)
    }

    /// The secrets read anew, if they are others than `known`: after a password was refused that may have been rotated.
    ///
    /// # Errors
    /// As [`SecretStore::get`].
    pub async fn changed(&self, known: &Secrets, deadline: Deadline) -> Result<Option<Secrets>, SecretError> {
        if self.source.arn.is_none() {
            return Ok(None);
        }
        *self.kept.lock().await = None;
        let now = self.get(deadline).await?;
        let same = (&now.database_url, &now.pg_password) == (&known.database_url, &known.pg_password);
        Ok((!same).then_some(now))
    }

    /// `GetSecretValue` of Secrets Manager, or `GetParameter` of SSM, signed with Signature Version 4.
    async fn fetch(&self, arn: &str, deadline: Deadline) -> Result<Secrets, SecretError> {
        let fail = |why: &dyn fmt::Display| SecretError(why.to_string());
        let region = self.source.region.as_deref().ok_or_else(|| fail(&"AWS_REGION is not set"))?;
        let keys = self.source.credentials.as_ref().ok_or_else(|| fail(&"no AWS credentials"))?;
        let (service, target, body) = match arn.split(':').nth(2) {
            Some("ssm") => ("ssm", "AmazonSSM.GetParameter", json!({ "Name": arn, "WithDecryption": true })),
            _ => ("secretsmanager", "secretsmanager.GetSecretValue", json!({ "SecretId": arn })),
        };
        let default = format!("https://{service}.{region}.amazonaws.com/");
        let endpoint = self.source.endpoint.as_deref().unwrap_or(&default);
        let body = body.to_string();

        let identity = aws_credential_types::Credentials::new(
            keys.id.clone(),
            keys.secret.clone(),
            keys.token.clone(),
            None,
            "lambda",
        )
        .into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name(service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| fail(&error))?
            .into();
        let headers = [("x-amz-target", target), ("content-type", "application/x-amz-json-1.1")];
        let signable =
            SignableRequest::new("POST", endpoint, headers.into_iter(), SignableBody::Bytes(body.as_bytes()))
                .map_err(|error| fail(&error))?;
        let (instructions, _) = sign(signable, &params).map_err(|error| fail(&error))?.into_parts();
        let mut request = http::Request::post(endpoint);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(Bytes::from(body)).map_err(|error| fail(&error))?;
        instructions.apply_to_request_http1x(&mut request);

        let response =
            http_client::send(request, Allow::Anything, 131_072, deadline.within(Duration::from_secs(3)))
                .await
                .map_err(|error| fail(&error))?;
        if !response.status().is_success() {
            return Err(fail(&format!("{service} answered {}", response.status())));
        }
        let answer: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        let text = match service {
            "ssm" => answer["Parameter"]["Value"].as_str(),
            _ => answer["SecretString"].as_str(),
        };
        serde_json::from_str(text.ok_or_else(|| fail(&"no secret in the answer"))?)
            .map_err(|_| fail(&"it must be a JSON object with DATABASE_URL, JWT_SECRET, SIGNING_SECRET"))
    }
}
