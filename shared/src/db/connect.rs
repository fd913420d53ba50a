//! Opening a connection: TLS, verified, to anything but the loopback; roots are the web's, and what PEM files add.

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{DbError, connection_string::ConnectionString, diagnosis::schema_fault};
use crate::secrets::Secrets;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection string, or a certificate file, cannot be used: one line that says which and why.
    #[error("{0}")]
    Unusable(String),
    /// The driver's word, with the server's if it said one.
    #[error("{}", reason(.0))]
    Driver(tokio_postgres::Error),
}

/// The socket behind a client, closed on drop. The driver would keep it until what was sent is answered: where no answer
/// comes, a statement that arrived in part would hold its locks for as long.
#[derive(Debug)]
pub(crate) struct Socket(JoinHandle<()>);

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects as the secrets say.
///
/// # Errors
/// [`DbError::Denied`] when the server refuses user or password, and would again; else [`DbError::Unavailable`].
pub(crate) async fn open(secrets: &Secrets) -> Result<(Client, Socket), DbError> {
    let opened = start(secrets).await.map(|(client, task)| (client, Socket(task)));
    opened.map_err(|error| match &error {
        ConnectError::Driver(driver) if is_denied(driver) => DbError::Denied(error.to_string()),
        ConnectError::Driver(_) | ConnectError::Unusable(_) => DbError::Unavailable(error.to_string()),
    })
}

/// Connects as the secrets say, and says in full why not.
///
/// # Errors
/// [`ConnectError`].
pub async fn client(secrets: &Secrets) -> Result<Client, ConnectError> {
    start(secrets).await.map(|(client, _)| client)
}

async fn start(secrets: &Secrets) -> Result<(Client, JoinHandle<()>), ConnectError> {
    let password = secrets.pg_password.as_deref();
    let string = ConnectionString::parse(&secrets.database_url, password)
        .map_err(|error| ConnectError::Unusable(format!("DATABASE_URL: {error}")))?;
    let tls = MakeRustlsConnect::new(tls(&string, secrets.pg_ca_pem.as_deref())?);
    let (client, connection) = string.config.connect(tls).await.map_err(ConnectError::Driver)?;
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "database connection ended");
        }
    });
    Ok((client, task))
}

/// What poolers lock an address out for, if it is tried again and again: a wrong password (PostgreSQL and PgBouncer), an
/// unknown tenant, an open circuit breaker (Supavisor).
fn is_denied(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| {
        let of_pooler =
            ["(ECIRCUITBREAKER)", "(ENOTFOUND)", "Tenant or user not found", "SASL authentication failed"];
        [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION].contains(db.code())
            || of_pooler.iter().any(|word| db.message().contains(word))
    })
}

pub(crate) fn tls(string: &ConnectionString, more: Option<&str>) -> Result<ClientConfig, ConnectError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = &string.root_certificates {
        trust(&mut roots, &file.display().to_string())?;
    }
    match more {
        Some(pem) if pem.trim_start().starts_with("-----") => {
            trust_all(&mut roots, CertificateDer::pem_slice_iter(pem.as_bytes()), "PG_CA_PEM")?;
        }
        Some(files) => {
            files.split(':').filter(|file| !file.is_empty()).try_for_each(|file| trust(&mut roots, file))?
        }
        None => {}
    }
    Ok(crate::http_client::tls_trusting(roots))
}

fn trust(roots: &mut RootCertStore, file: &str) -> Result<(), ConnectError> {
    let certificates = CertificateDer::pem_file_iter(file);
    let certificates = certificates.map_err(|error| ConnectError::Unusable(format!("{file}: {error}")))?;
    trust_all(roots, certificates, file)
}

fn trust_all(
    roots: &mut RootCertStore,
    certificates: impl Iterator<Item = Result<CertificateDer<'static>, rustls::pki_types::pem::Error>>,
    name: &str,
) -> Result<(), ConnectError> {
    let unusable = |why: String| ConnectError::Unusable(format!("{name}: {why}"));
    let mut any = false;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        any = true;
    }
    if any { Ok(()) } else { Err(unusable("there is no certificate in it".into())) }
}

/// The error with its causes; of a schema that is not there, or not this role's to use, what to do.
#[must_use]
pub fn reason(error: &tokio_postgres::Error) -> String {
    let server = error.as_db_error();
    if let Some(fault) = server.and_then(|said| schema_fault(said.code().code(), said.message())) {
        return fault;
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
