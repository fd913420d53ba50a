//! Who is let in.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Bench, claims, event, now, sign};

#[tokio::test(flavor = "multi_thread")]
async fn only_a_signed_in_users_token_is_accepted() {
    let bench = Bench::new().await;
    let account = Uuid::new_v4();
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = claims(account);
        claims[name] = value;
        sign(&claims)
    };
    let without = |name: &str| {
        let mut claims = claims(account);
        claims.as_object_mut().unwrap().remove(name);
        sign(&claims)
    };
    let foreign =
        encode(&Header::default(), &claims(account), &EncodingKey::from_secret(b"another")).unwrap();
    let hs384 = encode(
        &Header::new(Algorithm::HS384),
        &claims(account),
        &EncodingKey::from_secret(crate::support::JWT_SECRET.as_bytes()),
    )
    .unwrap();
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = format!("{}.{}.", part(json!({ "alg": "none", "typ": "JWT" })), part(claims(account)));
    // Signed as it should be, but for a header that says: understand this or refuse.
    let critical = {
        let signed = format!(
            "{}.{}",
            part(json!({ "alg": "HS256", "typ": "JWT", "crit": ["exp"], "exp": 1 })),
            part(claims(account))
        );
        let key = EncodingKey::from_secret(crate::support::JWT_SECRET.as_bytes());
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{signed}.{signature}")
    };
    let bad = [
        ("alg none", none),
        ("another secret", foreign),
        ("another algorithm", hs384),
        ("expired", with("exp", json!(now() - 120))),
        ("not yet valid", with("nbf", json!(now() + 600))),
        ("another issuer", with("iss", json!("https://issuer.test/auth/v1/"))),
        ("another audience", with("aud", json!("anon"))),
        ("anon", with("role", json!("anon"))),
        ("service role", with("role", json!("service_role"))),
        ("no uuid", with("sub", json!("me"))),
        ("no exp", without("exp")),
        ("no sub", without("sub")),
        ("no role", without("role")),
        ("a critical extension", critical),
        ("nonsense", "a.b.c".into()),
        ("too long", "x".repeat(9_000)),
    ];
    for (why, token) in bad {
        let header = format!("Bearer {token}");
        let answer = bench.request(event("GET", "/api/credits", &[("authorization", &header)], None)).await;
        assert_eq!(answer.status, 401, "{why}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let good = [
        format!("Bearer {}", sign(&claims(account))),
        format!("bearer  {} ", sign(&claims(account))),
        format!("Bearer {}", with("aud", json!(["other", "authenticated"]))),
    ];
    for header in good {
        let answer = bench.request(event("GET", "/api/credits", &[("authorization", &header)], None)).await;
        assert_eq!(answer.status, 200, "{header}");
    }
    for header in ["Basic eDp5", "Bearer", "Bearer ", ""] {
        let answer = bench.request(event("GET", "/api/credits", &[("authorization", header)], None)).await;
        assert_eq!(answer.status, 401, "{header:?}");
    }
    assert_eq!(bench.request(event("GET", "/api/credits", &[], None)).await.status, 401);
}
