//! A token that is refused: its sender hears 401, and the log says why, and whose it says it is, and nothing else of it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use local::lambda::Function;
use serde_json::{Value, json};
use shared::db::tokens::TOKEN_PREFIX;
use uuid::Uuid;

use crate::support::{Bench, ISSUER, JWT_SECRET, binary, claims, environment, event, now};

fn signed(claims: &Value, header: &Header, secret: &str) -> String {
    encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// Sends a token; answers what the log said of it.
async fn refused(api: &Function, token: &str, scheme: &str) -> Value {
    let lines = async || {
        let logs = api.logs().await;
        let said = logs.lines().filter(|line| line.contains(r#""message":"token refused""#));
        said.map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON")).collect::<Vec<_>>()
    };
    let before = lines().await.len();
    let header = format!("{scheme}{token}");
    let answer =
        api.invoke(&event("GET", "/api/credits", &[("authorization", &header)], None)).await.unwrap();
    assert_eq!(
        (&answer["statusCode"], &answer["headers"]["www-authenticate"]),
        (&json!(401), &json!("Bearer"))
    );
    let said = answer["body"].as_str().unwrap();
    let code = serde_json::from_str::<Value>(said).unwrap()["code"].clone();
    assert_eq!(code, "unauthorized", "and no reason: {said}");
    let mut lines = lines().await;
    assert_eq!(lines.len(), before + 1, "one line each");
    let line = lines.pop().unwrap();
    assert_eq!(line["level"], "WARN");
    // Neither the token, nor its signature, nor whom it is for.
    let text = line.to_string();
    for part in token.split('.').filter(|part| part.len() > 20) {
        assert!(!text.contains(part), "{text}");
    }
    assert!(!text.contains("somebody@example.com"), "{text}");
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_why_and_whose() {
    let bench = Bench::new().await;
    let account = Uuid::new_v4();
    let mut env = environment(&bench.url);
    env.extend(
        [("REFUSE_ANONYMOUS", "true"), ("ACCOUNT_CLAIM", "org")]
            .map(|(name, value)| (name.into(), value.into())),
    );
    let strict = Function::new(binary("api"), env);
    let mut sound = claims(account);
    sound["email"] = json!("somebody@example.com");
    let with = |name: &str, value: Value| {
        let mut claims = sound.clone();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = sound.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let header = Header { kid: Some("key-1".into()), ..Header::new(Algorithm::HS256) };
    let hs384 = Header { kid: Some("key-1".into()), ..Header::new(Algorithm::HS384) };
    let ours = |claims: &Value| signed(claims, &header, JWT_SECRET);
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = format!("{}.{}.", part(json!({ "alg": "none" })), part(sound.clone()));
    let cases = [
        (&bench.api, "signature", signed(&sound, &header, "another secret")),
        (&bench.api, "algorithm", signed(&sound, &hs384, JWT_SECRET)),
        (&bench.api, "expired", ours(&with("exp", json!(now() - 120)))),
        (&bench.api, "not_yet_valid", ours(&with("nbf", json!(now() + 600)))),
        (&bench.api, "issuer", ours(&with("iss", json!("https://elsewhere.test/")))),
        (&bench.api, "issuer_differs_by_a_slash", ours(&with("iss", json!(format!("{ISSUER}/"))))),
        (&bench.api, "audience", ours(&with("aud", json!(["one", "two"])))),
        (&bench.api, "role", ours(&without("role"))),
        (&bench.api, "role", ours(&with("role", json!("service_role")))),
        (&bench.api, "subject", ours(&with("sub", json!("auth0|123")))),
        (&bench.api, "no_exp", ours(&without("exp"))),
        (&bench.api, "no_iss", ours(&without("iss"))),
        (&bench.api, "no_aud", ours(&without("aud"))),
        (&bench.api, "no_sub", ours(&without("sub"))),
        (&strict, "anonymous", ours(&with("is_anonymous", json!(true)))),
        (&strict, "account_claim", ours(&sound)),
        (&bench.api, "malformed", "nonsense".into()),
    ];
    for (api, reason, token) in cases {
        let line = refused(api, &token, "Bearer ").await;
        assert_eq!(line["reason"], reason, "{line}");
        if reason == "malformed" {
            continue;
        }
        assert_eq!((&line["key_id"], line["algorithm"].is_string()), (&json!("key-1"), true), "{line}");
        let claims: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap())
                .unwrap();
        assert_eq!(line["issuer"], claims["iss"], "{line}");
        if reason == "audience" {
            assert_eq!((&line["audience"], &line["expected"]), (&json!("one two"), &json!("authenticated")));
        }
        if reason.starts_with("issuer") {
            assert_eq!(line["expected"], ISSUER);
        }
    }
    assert_eq!(refused(&bench.api, &none, "Bearer ").await["algorithm"], "none");
    assert_eq!(refused(&bench.api, &"x".repeat(9_000), "Bearer ").await["reason"], "too_long");
    assert_eq!(
        refused(&bench.api, &ours(&sound), "").await["reason"],
        "no_bearer",
        "as some clients send it"
    );
    assert_eq!(
        refused(&bench.api, &format!("{TOKEN_PREFIX}0123456789"), "Bearer ").await["reason"],
        "unknown_service_token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_says_is_bounded_and_stays_one_line() {
    let bench = Bench::new().await;
    let mut odd = claims(Uuid::new_v4());
    odd["iss"] = json!(format!("https://x.test/\r\n{{\"level\":\"ERROR\"}}{}", "i".repeat(3_000)));
    odd["aud"] = json!((0..50).map(|n| format!("{n}-{}", "a".repeat(30))).collect::<Vec<_>>());
    let kid = format!("../..\n\u{1b}[31m{}", "k".repeat(1_000));
    let header = Header { kid: Some(kid), ..Header::new(Algorithm::HS256) };
    let line = refused(&bench.api, &signed(&odd, &header, JWT_SECRET), "Bearer ").await;
    for name in ["issuer", "audience", "key_id"] {
        assert!((1..=200).contains(&line[name].as_str().unwrap().chars().count()), "{name}: {line}");
    }
    let logs = bench.api.logs().await;
    assert!(logs.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{logs}");
}
