//! What no server says, by a network that a test has made: names, routes, and a metric.

use std::io;

use super::*;
use crate::db::diagnosis::Stage;

/// A resolver and routes.
struct Made {
    addresses: Result<&'static [&'static str], &'static str>,
    route: Option<io::ErrorKind>,
}

impl Network for Made {
    async fn resolve(&self, _: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses = self.addresses.map_err(io::Error::other)?;
        Ok(addresses.iter().map(|it| SocketAddr::new(it.parse().expect("an address"), port)).collect())
    }

    /// Silence, unless there is an error to give.
    async fn reach(&self, _: SocketAddr) -> io::Result<()> {
        match self.route {
            Some(kind) => Err(kind.into()),
            None => std::future::pending().await,
        }
    }
}

const DIRECT: &str = "postgres://postgres:p@db.abcdefghijklmnop.supabase.co:5432/postgres";
const NXDOMAIN: &str = "failed to lookup address information: Name or service not known";
const NODATA: &str = "failed to lookup address information: No address associated with hostname";

#[tokio::test(start_paused = true)]
async fn names_and_routes_are_diagnosed() {
    let v6: &[&str] = &["2600:1f18::1"];
    let v4: &[&str] = &["3.65.151.229"];
    const BOTH: &[&str] = &["3.65.151.229", "2600:1f18::1"];
    let cases = [
        (4, DIRECT, Err(NXDOMAIN), None, "unknown_host", Stage::Dns),
        (4, "postgres://u:p@db.example.org/d", Err(NXDOMAIN), None, "unknown_host", Stage::Dns),
        (4, DIRECT, Err(NODATA), None, "ipv6_only", Stage::Dns),
        (4, DIRECT, Ok(&[] as &[&str]), None, "ipv6_only", Stage::Dns),
        (5, DIRECT, Ok(v6), Some(io::ErrorKind::NetworkUnreachable), "ipv6_only", Stage::Tcp),
        (5, DIRECT, Ok(v6), Some(io::ErrorKind::HostUnreachable), "ipv6_only", Stage::Tcp),
        (5, DIRECT, Ok(v6), None, "ipv6_only", Stage::Tcp),
        (6, DIRECT, Ok(v4), Some(io::ErrorKind::ConnectionRefused), "connection_refused", Stage::Tcp),
        (7, "postgres://u:p@db.example.org/d", Ok(v4), None, "no_route", Stage::Tcp),
        (
            7,
            "postgres://u:p@db.example.org/d",
            Ok(BOTH),
            Some(io::ErrorKind::NetworkUnreachable),
            "no_route",
            Stage::Tcp,
        ),
    ];
    for (row, url, addresses, route, code, stage) in cases {
        let secrets = Secrets { database_url: url.to_owned(), ..Secrets::default() };
        let later = Deadline::after(Duration::from_secs(60));
        let network = Made { addresses, route };
        let report = examine_in(&network, &secrets, &Deployment::default(), false, later).await;
        let last = report.steps.last().expect("a step");
        let diagnosis = last.diagnosis.expect("a diagnosis");
        assert_eq!((diagnosis.code, last.stage), (code, stage), "row {row}: {last:?}");
        assert!(!diagnosis.fix.is_empty() && report.exit_code() == 10 + stage as u8, "row {row}");
    }
}

fn examined(endpoint: &'static str, deployment: Deployment) -> Report {
    let mut report = Report { endpoint, steps: Vec::new() };
    checks::deployment(&mut report, &deployment, endpoint.contains("transaction mode"), 57);
    report
}

#[test]
fn a_pinned_connection_of_rds_proxy_is_found_by_its_metric() {
    let pinned = |pinned| examined("RDS Proxy", Deployment { pinned, ..Deployment::default() });
    let report = pinned(Some(3));
    assert_eq!(report.steps[0].diagnosis.expect("a diagnosis").code, "rds_proxy_pinning");
    assert_eq!((pinned(Some(0)).exit_code(), pinned(None).exit_code()), (0, 0));
    assert!(pinned(None).steps[0].found.contains("DatabaseConnectionsCurrentlySessionPinned"));
}

#[test]
fn what_is_deployed_must_fit_with_a_fifth_to_spare() {
    let fits = |endpoint, clients, max_clients| {
        examined(endpoint, Deployment { clients: Some(clients), max_clients, pinned: None }).exit_code()
    };
    let transaction = "Supabase's shared pooler, transaction mode";
    assert_eq!((fits(transaction, 166, Some(200)), fits(transaction, 167, Some(200))), (0, 16));
    assert_eq!(fits(transaction, 5_000, None), 0, "not known, and said");
    assert_eq!((fits("Supabase, direct", 47, None), fits("Supabase, direct", 48, None)), (0, 16));
    assert_eq!(fits("Supabase, direct", 102, Some(200)), 16, "no pooler makes more of its connections");
    assert_eq!((sum("100+2+20"), sum("0+2")), (Ok(122), Ok(u32::MAX)));
    assert!(sum("100+x").is_err() && sum("").is_err());
    let unbounded = examined(transaction, Deployment { clients: Some(u32::MAX), ..Deployment::default() });
    assert!(unbounded.exit_code() == 0 && unbounded.steps[0].diagnosis.is_some(), "{unbounded:?}");
}

#[tokio::test(start_paused = true)]
async fn a_diagnosis_ends_with_the_invocation() {
    let secrets = Secrets { database_url: DIRECT.to_owned(), ..Secrets::default() };
    let network = Made { addresses: Ok(&["3.65.151.229"; 9]), route: None };
    let soon = Deadline::after(Duration::from_secs(12));
    let report = examine_in(&network, &secrets, &Deployment::default(), false, soon).await;
    assert!(report.steps.last().is_some_and(|step| step.found.contains("time was up")), "{report:?}");
    assert_ne!(report.exit_code(), 0);
}

#[test]
fn endpoints_are_told_apart() {
    for (host, port, what) in [
        ("aws-0-eu-central-1.pooler.supabase.com", 6543, "Supabase's shared pooler, transaction mode"),
        ("aws-0-eu-central-1.pooler.supabase.com", 5432, "Supabase's shared pooler, session mode"),
        ("db.abcdefghijklmnop.supabase.co", 6543, "Supabase's dedicated pooler, transaction mode"),
        ("db.abcdefghijklmnop.supabase.co", 5432, "Supabase, direct"),
        ("ep-cool-name-a1-pooler.eu-central-1.aws.neon.tech", 5432, "Neon's pooler, transaction mode"),
        ("ep-cool-name-a1.eu-central-1.aws.neon.tech", 5432, "Neon, direct"),
        ("p.proxy-abc.eu-central-1.rds.amazonaws.com", 5432, "RDS Proxy"),
        ("p.abc.eu-central-1.rds.amazonaws.com", 5432, "RDS, direct"),
        ("127.0.0.1", 5432, "PostgreSQL, or a pooler of your own"),
    ] {
        assert_eq!(endpoint(host, port), what, "{host}");
    }
}
