//! TLS against a real server, with a certification authority of these tests' own.

use std::path::PathBuf;

use local::{
    lambda::Function,
    postgres::{Options, Postgres},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use serde_json::Value;

use crate::support::{binary, environment, event};

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `name` and its key, valid until the first of January of that year.
    pub(super) fn issue(&self, name: &str, until: i32) -> (String, String) {
        self.issue_until(name, date_time_ymd(until, 1, 1))
    }

    pub(super) fn issue_until(&self, name: &str, until: time::OffsetDateTime) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = until;
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

fn start(tls: Option<(&str, &str)>) -> Postgres {
    Postgres::start_embedded(Options { tls, ..Options::default() }).expect("a server")
}

/// What the health route of an API says that connects so, and what it logs.
async fn health(url: &str, more: &[(&str, &str)]) -> (u64, String) {
    let mut env = environment(url);
    env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let api = Function::new(binary("api"), env);
    let answer: Value = api.invoke(&event("GET", "/api/health", &[], None)).await.unwrap();
    (answer["statusCode"].as_u64().unwrap(), api.logs().await)
}

async fn migrated(postgres: &Postgres) -> String {
    shared::db::migrate::apply(&postgres.url("postgres")).await.expect("migrations");
    format!("{}?sslmode=verify-full", postgres.url("postgres"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_once_it_is_named_and_not_before() {
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    let (certificate, key) = authority.issue("127.0.0.1", 2099);
    let postgres = start(Some((&certificate, &key)));
    let url = migrated(&postgres).await;
    let (status, logs) = health(&url, &[]).await;
    assert!(status == 503 && logs.contains("UnknownIssuer"), "{status} {logs}");
    let (status, logs) = health(&url, &[("PG_CA_PEM", &other.pem())]).await;
    assert!(status == 503 && logs.contains("UnknownIssuer"), "{status} {logs}");
    // As PEM; as files, one of them of somebody else; and named in the URL.
    assert_eq!(health(&url, &[("PG_CA_PEM", &authority.pem())]).await.0, 200);
    let files: Vec<PathBuf> = [&other, &authority]
        .iter()
        .map(|authority| {
            let file = std::env::temp_dir().join(format!("pc-ca-{}.pem", uuid::Uuid::new_v4().simple()));
            std::fs::write(&file, authority.pem()).unwrap();
            file
        })
        .collect();
    let paths = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
    assert_eq!(health(&url, &[("PG_CA_PEM", &paths.join(":"))]).await.0, 200);
    assert_eq!(health(&format!("{url}&sslrootcert={}", paths[1]), &[]).await.0, 200);
    for file in files {
        std::fs::remove_file(file).unwrap();
    }
    let (status, logs) = health(&url, &[("PG_CA_PEM", "/nowhere/ca.pem")]).await;
    assert!(status == 503 && logs.contains("/nowhere/ca.pem"), "{logs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_and_one_for_another_name_are_refused() {
    let authority = Authority::new("ours");
    for (name, until, word) in
        [("127.0.0.1", 2020, "certificate expired"), ("db.example.com", 2099, "not valid for name")]
    {
        let (certificate, key) = authority.issue(name, until);
        let postgres = start(Some((&certificate, &key)));
        let url = format!("{}?sslmode=require", postgres.url("postgres"));
        let (status, logs) = health(&url, &[("PG_CA_PEM", &authority.pem())]).await;
        assert!(status == 503 && logs.contains(word), "{word}: {logs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_encrypt_is_refused_where_encryption_is_asked_for() {
    let postgres = start(None);
    let (status, logs) = health(&format!("{}?sslmode=require", postgres.url("postgres")), &[]).await;
    assert!(status == 503 && logs.contains("server does not support TLS"), "{logs}");
}
