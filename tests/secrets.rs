//! Secrets and key sets fetched over HTTP, as the deployed functions fetch them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use local::{
    lambda::Function,
    scripted::{Response, ScriptedServer},
};
use serde_json::json;

use crate::support::{Bench, JWT_SECRET, SIGNING_SECRET, bearer, binary, event, secret_environment};

#[tokio::test(flavor = "multi_thread")]
async fn the_database_url_comes_from_the_secret_by_one_signed_request() {
    let bench = Bench::new().await;
    let account = bench.account(7).await;
    let secret =
        json!({ "DATABASE_URL": bench.url, "JWT_SECRET": JWT_SECRET, "SIGNING_SECRET": SIGNING_SECRET })
            .to_string();
    let manager =
        ScriptedServer::start(move |_| Response::json(200, json!({ "SecretString": secret }))).await.unwrap();
    let env = secret_environment("arn:aws:secretsmanager:eu-central-1:1:secret:punchcard", &manager.url("/"));
    let api = Function::new(binary("api"), env);
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
async fn the_secret_may_be_a_parameter_of_ssm() {
    let bench = Bench::new().await;
    let secret = json!({ "DATABASE_URL": bench.url, "JWT_SECRET": JWT_SECRET }).to_string();
    let ssm =
        ScriptedServer::start(move |_| Response::json(200, json!({ "Parameter": { "Value": secret } })));
    let ssm = ssm.await.unwrap();
    let arn = "arn:aws:ssm:eu-central-1:123456789012:parameter/punchcard/prod";
    let env = secret_environment(arn, &ssm.url("/"));
    let api = Function::new(binary("api"), env);
    assert_eq!(api.invoke(&event("GET", "/api/health", &[], None)).await.unwrap()["statusCode"], 200);
    let request = ssm.requests().remove(0);
    assert_eq!(request.headers["x-amz-target"], "AmazonSSM.GetParameter");
    assert!(request.headers["authorization"].to_str().unwrap().contains("/eu-central-1/ssm/aws4_request"));
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body, json!({ "Name": arn, "WithDecryption": true }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_end_behind_a_secret_is_no_part_of_it() {
    let bench = Bench::new().await;
    let account = bench.account(7).await;
    let (before, after) = bench.url.split_once('@').unwrap();
    let (user, password) = before.rsplit_once(':').unwrap();
    for end in ["\n", "\r\n"] {
        let with = |secret: &str| format!("{secret}{end}");
        let secret = json!({
            "DATABASE_URL": with(&format!("{user}@{after}")), "PGPASSWORD": with(password),
            "JWT_SECRET": with(JWT_SECRET), "SIGNING_SECRET": with(SIGNING_SECRET),
        });
        let secret = secret.to_string();
        let manager = ScriptedServer::start(move |_| Response::json(200, json!({ "SecretString": secret })));
        let manager = manager.await.unwrap();
        let arn = "arn:aws:secretsmanager:eu-central-1:1:secret:punchcard";
        let api = Function::new(binary("api"), secret_environment(arn, &manager.url("/")));
        let get = async |function: &Function| {
            let get = event("GET", "/api/webhook", &[("authorization", &bearer(account))], None);
            let answer = function.invoke(&get).await.unwrap();
            assert_eq!(answer["statusCode"], 200, "{end:?}: {answer}");
            let body: serde_json::Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
            body["secret"].clone()
        };
        assert_eq!(get(&api).await, get(&bench.api).await, "and it signs the same");
    }
    let printed = |master: &str| {
        let mut command = std::process::Command::new(binary("punchcard"));
        command.args(["kinds", "secret", "qr.svg", "--version", "1"]).env("SIGNING_SECRET", master);
        command.output().unwrap().stdout
    };
    let secret = printed(SIGNING_SECRET);
    assert!(secret.starts_with(b"whsec_") && printed(&format!("{SIGNING_SECRET}\n")) == secret);
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
    let begin = std::time::Instant::now();
    for kid in ["one", "two", "../three"] {
        let head = part(json!({ "alg": "ES256", "typ": "JWT", "kid": kid }));
        let token = format!(
            "Bearer {head}.{}.{}",
            part(crate::support::claims(account)),
            URL_SAFE_NO_PAD.encode([1; 64])
        );
        assert_eq!(get(token).await, 401, "{kid}");
    }
    let most = 1 + begin.elapsed().as_secs() as usize / 10;
    assert!((1..=most).contains(&issuer.requests().len()), "a flood of unknown keys is not passed on");
}

/// A P-256 key of these tests alone: PKCS #8, and its public point.
pub(crate) const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgVA5JgT-OkTg56ZSNIvgSv9qBJwWNqHPYuRhS4Jw8THmhRANCAARd6rK2M5Mwsdzis_PfztdLkTwCQYI-qVxSCP3pL8tlGGA5GIVFQbusPBOjXhP4S-sxZc5aWaen9rQjvhuTrU-I";
pub(crate) const X: &str = "XeqytjOTMLHc4rPz387XS5E8AkGCPqlcUgj96S_LZRg";
pub(crate) const Y: &str = "YDkYhUVBu6w8E6NeE_hL6zFlzlpZp6f2tCO-G5OtT4g";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_signed_with_es256_is_accepted_by_the_issuers_key_set() {
    let bench = Bench::new().await;
    let account = bench.account(7).await;
    let jwk = |kid: &str| json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": X, "y": Y });
    let keys = json!({ "keys": [jwk("one"), jwk("two")] });
    let issuer = ScriptedServer::start(move |_| Response::json(200, keys.clone())).await.unwrap();
    let mut env = crate::support::environment(&bench.url);
    env.push(("JWKS_URL".into(), issuer.url("/.well-known/jwks.json")));
    let api = Function::new(binary("api"), env);
    let key = EncodingKey::from_ec_der(&URL_SAFE_NO_PAD.decode(KEY).unwrap());
    let get = async |kid: Option<&str>, claims: serde_json::Value| {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::ES256) };
        let bearer = format!("Bearer {}", encode(&header, &claims, &key).unwrap());
        let answer =
            api.invoke(&event("GET", "/api/credits", &[("authorization", &bearer)], None)).await.unwrap();
        answer["statusCode"].as_u64().unwrap()
    };
    let claims = crate::support::claims(account);
    assert_eq!(get(Some("one"), claims.clone()).await, 200);
    assert_eq!(get(Some("two"), claims.clone()).await, 200);
    assert_eq!(get(Some("three"), claims.clone()).await, 401, "no such key");
    assert_eq!(get(None, claims.clone()).await, 401, "which of the two?");
    let mut late = claims;
    late["exp"] = json!(crate::support::now() - 120);
    assert_eq!(get(Some("one"), late).await, 401, "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_or_short_secret_verifies_nobody() {
    let bench = Bench::new().await;
    let account = bench.account(7).await;
    for (secret, status) in [("", 503), ("short", 503)] {
        let value = json!({ "DATABASE_URL": bench.url, "JWT_SECRET": secret }).to_string();
        let manager = ScriptedServer::start(move |_| Response::json(200, json!({ "SecretString": value })))
            .await
            .unwrap();
        let arn = "arn:aws:secretsmanager:eu-central-1:1:secret:punchcard";
        let env = secret_environment(arn, &manager.url("/"));
        let api = Function::new(binary("api"), env);
        let key = EncodingKey::from_secret(secret.as_bytes());
        let forged = encode(&Header::new(Algorithm::HS256), &crate::support::claims(account), &key).unwrap();
        let get = event("GET", "/api/credits", &[("authorization", &format!("Bearer {forged}"))], None);
        let answer = api.invoke(&get).await.unwrap();
        let refused = answer["statusCode"].as_u64().unwrap();
        assert!(refused == 401 || refused == status, "{secret:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_key_set_serves_while_the_issuer_is_away() {
    let bench = Bench::new().await;
    let account = bench.account(7).await;
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let jwk =
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "one", "x": X, "y": Y });
    let issuer =
        ScriptedServer::start(move |_| match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Response::json(200, json!({ "keys": [jwk] })),
            _ => Response::json(500, json!({})),
        })
        .await
        .unwrap();
    let mut env = crate::support::environment(&bench.url);
    env.push(("JWKS_URL".into(), issuer.url("/")));
    env.push(("REFUSE_ANONYMOUS".into(), "true".into()));
    let api = Function::new(binary("api"), env);
    let key = EncodingKey::from_ec_der(&URL_SAFE_NO_PAD.decode(KEY).unwrap());
    let get = async |header: Header, claims: serde_json::Value| {
        let bearer = format!("Bearer {}", encode(&header, &claims, &key).unwrap());
        let answer =
            api.invoke(&event("GET", "/api/credits", &[("authorization", &bearer)], None)).await.unwrap();
        answer["statusCode"].as_u64().unwrap()
    };
    let of = |kid: &str| Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
    let claims = crate::support::claims(account);
    assert_eq!(get(of("one"), claims.clone()).await, 200);
    assert_eq!(get(of("two"), claims.clone()).await, 401, "it may be new, but it cannot be looked for");
    assert_eq!(get(of("one"), claims.clone()).await, 200);
    let mut anonymous = claims;
    anonymous["is_anonymous"] = json!(true);
    assert_eq!(get(of("one"), anonymous).await, 401);
}
