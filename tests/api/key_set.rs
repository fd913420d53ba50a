//! The issuer's key set when the issuer is away, and when somebody makes key ids up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use local::{
    lambda::Function,
    scripted::{Response, ScriptedServer},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    secrets::{KEY, X, Y},
    support::{Bench, binary, claims, environment, event},
};

fn jwk(kid: &str) -> Value {
    json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": X, "y": Y })
}

/// One environment of the API, whose key set is there.
fn api(bench: &Bench, issuer: &ScriptedServer) -> Function {
    let mut env = environment(&bench.url);
    env.push(("JWKS_URL".into(), issuer.url("/keys")));
    Function::new(binary("api"), env).max_concurrency(1)
}

async fn status(api: &Function, kid: &str) -> u64 {
    let key = EncodingKey::from_ec_der(&URL_SAFE_NO_PAD.decode(KEY).unwrap());
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
    let bearer = format!("Bearer {}", encode(&header, &claims(Uuid::new_v4()), &key).unwrap());
    let answer =
        api.invoke(&event("GET", "/api/credits", &[("authorization", &bearer)], None)).await.unwrap();
    answer["statusCode"].as_u64().unwrap()
}

/// Asks until the answer is 200; fails if it never is in well under a minute.
async fn until_accepted(api: &Function, kid: &str, meanwhile: u64) {
    let begin = Instant::now();
    loop {
        match status(api, kid).await {
            200 => return,
            other => assert_eq!(other, meanwhile),
        }
        assert!(begin.elapsed() < Duration::from_secs(40), "kept out for long");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_was_away_for_a_moment_keeps_nobody_out_for_long() {
    let bench = Bench::new().await;
    let away = Arc::new(AtomicBool::new(true));
    let absent = Arc::clone(&away);
    let issuer = ScriptedServer::start(move |_| match absent.load(Ordering::SeqCst) {
        true => Response::json(503, json!({})),
        false => Response::json(200, json!({ "keys": [jwk("one")] })),
    });
    let issuer = issuer.await.unwrap();
    let api = api(&bench, &issuer);
    let begin = Instant::now();
    for _ in 0..20 {
        assert_eq!(status(&api, "one").await, 503);
    }
    let (asked, seconds) = (issuer.requests().len(), begin.elapsed().as_secs());
    assert!((1..=2 + seconds as usize).contains(&asked), "{asked} times in {seconds} s: it is spared");
    away.store(false, Ordering::SeqCst);
    until_accepted(&api, "one", 503).await;
    away.store(true, Ordering::SeqCst);
    let asked = issuer.requests().len();
    assert_eq!(
        (status(&api, "one").await, issuer.requests().len()),
        (200, asked),
        "and then it is not needed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_makes_key_ids_up_keeps_nobody_out_whose_key_is_new() {
    let bench = Bench::new().await;
    let rotated = Arc::new(AtomicBool::new(false));
    let new = Arc::clone(&rotated);
    let issuer = ScriptedServer::start(move |_| {
        let keys = if new.load(Ordering::SeqCst) { vec![jwk("one"), jwk("two")] } else { vec![jwk("one")] };
        Response::json(200, json!({ "keys": keys }))
    });
    let issuer = issuer.await.unwrap();
    let api = api(&bench, &issuer);
    assert_eq!(status(&api, "one").await, 200);
    // Makes them up without a pause, so that whenever the set may be fetched, it is for these.
    let flood = async {
        for n in 0.. {
            assert_eq!(status(&api, &format!("made-up-{n}")).await, 401);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let user = async {
        while issuer.requests().len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let begin = Instant::now();
        rotated.store(true, Ordering::SeqCst);
        until_accepted(&api, "two", 401).await;
        begin
    };
    let begin = tokio::select! { () = flood => unreachable!("it goes on"), begin = user => begin };
    let seconds = begin.elapsed().as_secs() as usize;
    assert!(issuer.requests().len() <= 4 + seconds / 5, "{} in {seconds} s", issuer.requests().len());
    assert_eq!(status(&api, "one").await, 200, "and the old key is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_an_unknown_sort_spoils_no_other() {
    let bench = Bench::new().await;
    let keys = json!({ "keys": [{ "kty": "NEW", "kid": 7 }, 5, jwk("one"), { "kty": "EC" }] });
    let issuer = ScriptedServer::start(move |_| Response::json(200, keys.clone())).await.unwrap();
    let api = api(&bench, &issuer);
    assert_eq!((status(&api, "one").await, status(&api, "none").await), (200, 401));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_whose_name_ends_with_a_slash_is_asked_at_its_own_path() {
    let bench = Bench::new().await;
    let issuer = ScriptedServer::start(|request| match request.path.as_str() {
        "/tenant/.well-known/jwks.json" => Response::json(200, json!({ "keys": [jwk("one")] })),
        _ => Response::json(404, json!({})),
    });
    let issuer = issuer.await.unwrap();
    let name = issuer.url("/tenant/");
    let mut env = environment(&bench.url);
    env.retain(|(setting, _)| setting != "JWT_SECRET" && setting != "JWT_ISSUER");
    env.push(("JWT_ISSUER".into(), name.clone()));
    let api = Function::new(binary("api"), env);
    let key = EncodingKey::from_ec_der(&URL_SAFE_NO_PAD.decode(KEY).unwrap());
    let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::ES256) };
    for (iss, status) in [(name.as_str(), 200), (name.trim_end_matches('/'), 401)] {
        let mut claims = claims(Uuid::new_v4());
        claims["iss"] = json!(iss);
        let bearer = format!("Bearer {}", encode(&header, &claims, &key).unwrap());
        let get = event("GET", "/api/credits", &[("authorization", &bearer)], None);
        assert_eq!(api.invoke(&get).await.unwrap()["statusCode"], status, "{iss}");
    }
    assert!(api.logs().await.contains(r#""reason":"issuer_differs_by_a_slash""#));
}
