//! What is derived from the one master secret, so that nothing is stored and each can be rotated by its version: the secrets
//! that sign what we send (Standard Webhooks), and the tokens that let others call back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use http::{Request, header};
use sha2::Sha256;
use standardwebhooks::Webhook;
use uuid::Uuid;

/// Bytes of a token before its seal: a job's id and a run's lease token.
const TOKEN_BYTES: usize = 24;
/// Bytes of its seal: HMAC-SHA-256 cut to half, as RFC 2104 §5 allows.
const SEAL_BYTES: usize = 16;

/// The signing secret of a kind, as the owner of its HTTP target is given it: `whsec_…`.
#[must_use]
pub fn kind_secret(master: &str, kind: &str, version: u32) -> String {
    webhook_secret(master, &format!("kind:{kind}:v{version}"))
}

/// The signing secret of an account's webhooks, as its owner is given it: `whsec_…`.
#[must_use]
pub fn account_secret(master: &str, account_id: Uuid, version: u32) -> String {
    webhook_secret(master, &format!("account:{account_id}:v{version}"))
}

fn webhook_secret(master: &str, purpose: &str) -> String {
    format!("whsec_{}", STANDARD.encode(derived(master, purpose)))
}

/// A key for one purpose, by HKDF-SHA-256 (RFC 5869).
fn derived(master: &str, purpose: &str) -> [u8; 32] {
    let mut key = [0_u8; 32];
    Hkdf::<Sha256>::new(Some(b"punchcard"), master.as_bytes())
        .expand(purpose.as_bytes(), &mut key)
        .expect("32 bytes are within what HKDF-SHA-256 can give");
    key
}

/// A signed POST, as Standard Webhooks has it: `id` is the same each time it is sent; whoever checks takes any of the secrets'
/// signatures. The clock is this machine's: receivers allow minutes.
///
/// # Errors
/// What is wrong: the URL is malformed, or a secret is.
pub fn signed_post(id: &str, url: &str, secrets: &[String], body: Vec<u8>) -> Result<Request<Bytes>, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let sign = |secret: &String| {
        Webhook::new(secret).and_then(|webhook| webhook.sign(id, now.try_into().unwrap_or(i64::MAX), &body))
    };
    let signatures = secrets.iter().map(sign).collect::<Result<Vec<_>, _>>();
    let signatures = signatures.map_err(|error| format!("it cannot be signed: {error}"))?;
    Request::post(url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "punchcard")
        .header("webhook-id", id)
        .header("webhook-timestamp", now)
        .header("webhook-signature", signatures.join(" "))
        .body(Bytes::from(body))
        .map_err(|_| "the URL is malformed".to_owned())
}

/// The right to call back for one run of a job, for whoever does its work outside: 54 characters of a URL. It says which run
/// that is, and is sealed; the database knows how long that run may be called back for, and that it is once.
#[must_use]
pub fn callback_token(master: &str, job_id: Uuid, lease_token: i64) -> String {
    let mut token = [job_id.as_bytes().as_slice(), &lease_token.to_be_bytes()].concat();
    let seal = sealer(master).chain_update(&token).finalize().into_bytes();
    token.extend_from_slice(&seal[..SEAL_BYTES]);
    URL_SAFE_NO_PAD.encode(token)
}

/// The job and the lease token that a token is for; `None` if we did not seal it.
#[must_use]
pub fn open_callback_token(master: &str, token: &str) -> Option<(Uuid, i64)> {
    let token = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (said, seal) = token.split_at_checked(TOKEN_BYTES)?;
    let (job_id, lease_token) = said.split_at(16);
    // In constant time; a shorter seal is none.
    (seal.len() == SEAL_BYTES && sealer(master).chain_update(said).verify_truncated_left(seal).is_ok())
        .then_some(())?;
    Some((Uuid::from_slice(job_id).ok()?, i64::from_be_bytes(lease_token.try_into().ok()?)))
}

fn sealer(master: &str) -> Hmac<Sha256> {
    <Hmac<Sha256> as Mac>::new_from_slice(&derived(master, "callback"))
        .expect("HMAC takes a key of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_and_every_version_has_a_secret_of_its_own() {
        let account = Uuid::nil();
        let secrets = [
            kind_secret("m", "a", 1),
            kind_secret("m", "a", 2),
            kind_secret("m", "b", 1),
            kind_secret("n", "a", 1),
            account_secret("m", account, 1),
            account_secret("m", account, 2),
            account_secret("m", Uuid::max(), 1),
        ];
        for (i, one) in secrets.iter().enumerate() {
            assert!(one.starts_with("whsec_"));
            assert!(secrets.iter().skip(i + 1).all(|other| other != one));
        }
        assert_eq!(kind_secret("m", "a", 1), secrets[0]);
    }

    #[test]
    fn a_token_opens_for_who_sealed_it_and_as_it_was_sealed() {
        let (job, lease) = (Uuid::max(), 7);
        let token = callback_token("m", job, lease);
        assert_eq!((token.len(), open_callback_token("m", &token)), (54, Some((job, lease))));
        assert_eq!(open_callback_token("n", &token), None);
        assert_ne!(callback_token("m", job, 8), token);
        let bytes = URL_SAFE_NO_PAD.decode(&token).expect("base64");
        for i in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[i] ^= 1;
            assert_eq!(open_callback_token("m", &URL_SAFE_NO_PAD.encode(&forged)), None, "byte {i}");
            assert_eq!(open_callback_token("m", &URL_SAFE_NO_PAD.encode(&bytes[..i])), None, "{i} bytes");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(open_callback_token("m", &URL_SAFE_NO_PAD.encode(longer)), None);
        for nonsense in ["", "a", "../..", "ä"] {
            assert_eq!(open_callback_token("m", nonsense), None);
        }
    }

    #[test]
    fn a_signed_post_is_verified_by_either_secret_of_a_rotation() {
        let secrets = [kind_secret("m", "a", 2), kind_secret("m", "a", 1)];
        let post = signed_post("id-1", "https://example.com/x", &secrets, b"{}".to_vec()).expect("a request");
        for secret in &secrets {
            let webhook = Webhook::new(secret).expect("a secret");
            webhook.verify(post.body(), post.headers()).expect("signed");
        }
        let other = Webhook::new(&kind_secret("m", "a", 3)).expect("a secret");
        assert!(other.verify(post.body(), post.headers()).is_err());
        assert!(signed_post("id-1", "https://exa mple", &secrets, Vec::new()).is_err());
    }
}
