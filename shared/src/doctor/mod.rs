//! Walks the way of a connection, step by step, each within its own budget, and says where it ends, why, and what to do.
//! The password is sent once before it is known to be right. For `punchcard doctor`, and for the poller where it is
//! allowed: what it finds helps an intruder too.

mod checks;
mod network;
mod report;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use tokio::time::{timeout, timeout_at};
use tokio_postgres::Client;

use crate::{
    db::{
        connect::{self, ConnectError},
        connection_string::ConnectionString,
        diagnosis::Stage,
    },
    domain::Deadline,
    secrets::Secrets,
};

use network::{Network, System};
use report::{Failed, said, seen};
pub use report::{Report, Step};

/// What one step may take.
const BUDGET: Duration = Duration::from_secs(5);
/// A certificate that ends sooner is worth a warning.
const RENEW_WITHIN: Duration = Duration::from_secs(30 * 24 * 3_600);

/// What is deployed, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deployment {
    /// Connections at once: the sum of the functions' reserved concurrency, with the poller's twice.
    pub clients: Option<u32>,
    /// How many clients the pooler takes.
    pub max_clients: Option<u32>,
    /// RDS Proxy's metric `DatabaseConnectionsCurrentlySessionPinned`.
    pub pinned: Option<u32>,
}

/// A sum such as `100+2+20`, as a template can write it. A 0 in it reserves nothing, and so bounds nothing: then the sum
/// is [`u32::MAX`].
///
/// # Errors
/// One line, if it is none.
pub fn sum(text: &str) -> Result<u32, String> {
    let parts = text.split('+').map(|part| part.trim().parse::<u32>());
    let parts = parts.map(|part| part.map(|part| if part == 0 { u32::MAX } else { part }));
    let sum = parts.reduce(|sum, part| Ok(sum?.saturating_add(part?)));
    sum.and_then(Result::ok).ok_or_else(|| format!("{text} is no sum of whole numbers, such as 100+2+20"))
}

/// Walks as far as the way goes, and time; `grants` also looks who may what.
pub async fn examine(secrets: &Secrets, deployment: &Deployment, grants: bool, deadline: Deadline) -> Report {
    examine_in(&System, secrets, deployment, grants, deadline).await
}

async fn examine_in(
    network: &impl Network,
    secrets: &Secrets,
    deployment: &Deployment,
    grants: bool,
    deadline: Deadline,
) -> Report {
    let mut report = Report { endpoint: "unknown", steps: Vec::new() };
    let walk = walk(&mut report, network, secrets, deployment, grants);
    let ended = timeout_at(deadline.instant(), walk).await;
    if let Err(failed) = ended.unwrap_or_else(|_| Err(report.out_of_time())) {
        report.fail(failed);
    }
    report
}

async fn walk(
    report: &mut Report,
    network: &impl Network,
    secrets: &Secrets,
    deployment: &Deployment,
    grants: bool,
) -> Result<(), Failed> {
    let string = ConnectionString::parse(&secrets.database_url, secrets.pg_password.as_deref());
    let string = string.map_err(|error| seen(Stage::Url, error.to_string()))?;
    report.endpoint = endpoint(&string.host(), string.port());
    report.pass(Stage::Url, describe(&string));

    if !string.host().starts_with('/') {
        let addresses = resolve(network, &string).await?;
        report
            .pass(Stage::Dns, addresses.iter().map(|it| it.ip().to_string()).collect::<Vec<_>>().join(", "));
        let (address, took) = reach(network, &addresses).await?;
        report.pass(Stage::Tcp, format!("{address} answers after {} ms", took.as_millis()));
        if string.is_encrypted() {
            let tls = connect::tls(&string, secrets.pg_ca_pem.as_deref());
            let tls = tls.map_err(|error| seen(Stage::Url, error.to_string()))?;
            encryption(report, &string, tls, address).await?;
        }
    }
    if !string.is_encrypted() {
        report.pass(Stage::Tls, "not encrypted: on the loopback");
    }

    let begin = Instant::now();
    let client = open(secrets).await?;
    report.pass(Stage::Auth, format!("connected after {} ms", begin.elapsed().as_millis()));

    let other = open(secrets).await?;
    let pooled = checks::pool(report, &client, &other).await?;
    let of_database = checks::session(report, &client).await?;
    checks::statements(report, secrets, &other, pooled).await?;
    checks::schema(report, &client).await?;
    checks::operations(report, &client).await?;
    checks::credits(report, &client).await?;
    checks::deployment(report, deployment, pooled, of_database);
    if grants {
        checks::grants(report, &client).await?;
    }
    Ok(())
}

/// What kind of endpoint a host and a port are.
fn endpoint(host: &str, port: u16) -> &'static str {
    let ends = |suffix| host.ends_with(suffix);
    match port {
        6543 if ends(".pooler.supabase.com") => "Supabase's shared pooler, transaction mode",
        _ if ends(".pooler.supabase.com") => "Supabase's shared pooler, session mode",
        6543 if ends(".supabase.co") => "Supabase's dedicated pooler, transaction mode",
        _ if ends(".supabase.co") => "Supabase, direct",
        _ if ends(".neon.tech") && host.contains("-pooler") => "Neon's pooler, transaction mode",
        _ if ends(".neon.tech") => "Neon, direct",
        _ if ends(".rds.amazonaws.com") && host.contains(".proxy-") => "RDS Proxy",
        _ if ends(".rds.amazonaws.com") => "RDS, direct",
        _ => "PostgreSQL, or a pooler of your own",
    }
}

/// Never the password.
fn describe(string: &ConnectionString) -> String {
    let config = &string.config;
    let mut text = format!(
        "user {}, database {}, at {}:{}",
        config.get_user().unwrap_or_default(),
        config.get_dbname().or(config.get_user()).unwrap_or_default(),
        string.host(),
        string.port()
    );
    if !string.ignored.is_empty() {
        text += &format!("; without meaning here: {}", string.ignored.join(", "));
    }
    text
}

async fn resolve(network: &impl Network, string: &ConnectionString) -> Result<Vec<SocketAddr>, Failed> {
    let host = string.host();
    let addresses = timeout(BUDGET, network.resolve(&host, string.port())).await;
    let addresses = addresses.map_err(|_| seen(Stage::Dns, format!("{host}: no answer in time")))?;
    let why = match addresses {
        Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
        Ok(_) => "No address".into(),
        Err(error) => error.to_string(),
    };
    // The name is there, but has nothing for a resolver that asks for IPv4 alone.
    let hint = match endpoint(&host, string.port()) {
        "Supabase, direct" if why.contains("No address") => " (direct hosts of Supabase have only IPv6)",
        _ => "",
    };
    Err(seen(Stage::Dns, format!("{host}: {why}{hint}")))
}

async fn reach(network: &impl Network, addresses: &[SocketAddr]) -> Result<(SocketAddr, Duration), Failed> {
    let mut errors = Vec::new();
    for address in addresses {
        let begin = Instant::now();
        match timeout(BUDGET, network.reach(*address)).await {
            Ok(Ok(())) => return Ok((*address, begin.elapsed())),
            Ok(Err(error)) => errors.push(format!("{address}: {error}")),
            Err(_) => errors.push(format!("{address}: no answer in time")),
        }
    }
    let only_ipv6 =
        addresses.iter().all(|address| matches!(address.ip(), IpAddr::V6(ip) if !ip.is_loopback()));
    let hint = if only_ipv6 { " (it has only IPv6)" } else { "" };
    Err(seen(Stage::Tcp, format!("{}{hint}", errors.join("; "))))
}

async fn encryption(
    report: &mut Report,
    string: &ConnectionString,
    tls: ClientConfig,
    address: SocketAddr,
) -> Result<(), Failed> {
    let shown = timeout(BUDGET, network::certificate(&string.host(), tls, address)).await;
    let shown = shown.map_err(|_| seen(Stage::Startup, "no answer in time"))?;
    match shown.map_err(|error| seen(Stage::Tls, error.to_string()))? {
        Some(certificate) => {
            let days = certificate.left.as_secs() / 86_400;
            let found =
                format!("encrypted and verified; certificate of {}, for {days} days", certificate.issuer);
            match certificate.left < RENEW_WITHIN {
                true => report.warn(Stage::Tls, format!("{found}: expires soon")),
                false => report.pass(Stage::Tls, found),
            }
        }
        None => report.pass(Stage::Tls, "left to the driver"),
    }
    Ok(())
}

async fn open(secrets: &Secrets) -> Result<Client, Failed> {
    match timeout(BUDGET, connect::client(secrets)).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(ConnectError::Unusable(why))) => Err(seen(Stage::Url, why)),
        Ok(Err(ConnectError::Driver(error))) => Err(said(Stage::Startup, &error)),
        Err(_) => Err(seen(Stage::Startup, "no answer in time")),
    }
}
