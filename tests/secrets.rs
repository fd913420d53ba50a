//! Secrets and key sets fetched over HTTP, as the deployed functions fetch them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use local::{
    lambda::Function,
    scripted::{Response, ScriptedServer},
};
use serde_json::json;

use crate::support::{Bench, ISSUER, JWT_SECRET, SIGNING_SECRET, bearer, binary, event};

#[tokio::test(flavor = "multi_thread")]
async fn the_database_url_comes_from_the_secret_by_one_signed_request() {
    let bench = Bench::new().await;
    let account = bench.account(7).await;
    let secret =
        json!({ "DATABASE_URL": bench.url, "JWT_SECRET": JWT_SECRET, "SIGNING_SECRET": SIGNING_SECRET })
            .to_string();
    let manager =
        ScriptedServer::start(move |_| Response::json(200, json!({ "SecretString": secret }))).await.unwrap();
    let env = [
        ("SECRET_ARN", "arn:aws:secretsmanager:eu-central-1:1:secret:punchcard"),
        ("SECRETS_ENDPOINT", &manager.url("/")),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_SESSION_TOKEN", "session"),
        ("JWT_ISSUER", ISSUER),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let api = Function::new(binary("api"), env.to_vec());
    for _ in 0..2 {
        let get = event("GET", "/api/credits", &[("authorization", &bearer(account))], None);
        let answer = api.invoke(&get).await.unwrap();
        assert_eq!(answer["statusCode"], 200, "{answer}");
    }
    let requests = manager.requests();
    assert_eq!(requests.len(), 1, "read once, then kept");
    let header = |name: &str| requests[0].headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-amz-target"), "secretsmanager.GetSecretValue");
    assert_eq!(header("x-amz-security-token"), "session");
    let signature = header("authorization");
    assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{signature}");
    assert!(signature.contains("/eu-central-1/secretsmanager/aws4_request"), "{signature}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_set_no_hmac_token_is_accepted_and_unknown_keys_fetch_it_once() {
    let bench = Bench::new().await;
    let account = bench.account(7).await;
    let issuer = ScriptedServer::start(|_| Response::json(200, json!({ "keys": [] }))).await.unwrap();
    let mut env = crate::support::environment(&bench.url);
    env.push(("JWKS_URL".into(), issuer.url("/.well-known/jwks.json")));
    let api = Function::new(binary("api"), env);
    let get = async |header: String| {
        let answer =
            api.invoke(&event("GET", "/api/credits", &[("authorization", &header)], None)).await.unwrap();
        answer["statusCode"].as_u64().unwrap()
    };
    assert_eq!(get(bearer(account)).await, 401, "HS256 beside a key set");
    assert_eq!(issuer.requests().len(), 0);
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for kid in ["one", "two", "../three"] {
        let head = part(json!({ "alg": "ES256", "typ": "JWT", "kid": kid }));
        let token = format!(
            "Bearer {head}.{}.{}",
            part(crate::support::claims(account)),
            URL_SAFE_NO_PAD.encode([1; 64])
        );
        assert_eq!(get(token).await, 401, "{kid}");
    }
    assert_eq!(issuer.requests().len(), 1, "a flood of unknown keys is not passed on");
}
