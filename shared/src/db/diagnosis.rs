//! What an error of a connection means, and what to do about it: the doctor's table as data. The first rule that fits
//! wins. Texts are those that servers and poolers send; what is matched is their code where they have one.

use serde::Serialize;

/// Where on its way a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The connection string.
    Url,
    /// The host's addresses.
    Dns,
    /// The TCP connection.
    Tcp,
    /// Encryption, and the server's certificate.
    Tls,
    /// The first message: which database, which user.
    Startup,
    /// The password.
    Auth,
    /// A connection of the pooler to the database.
    Pool,
    /// What is in force on a connection.
    Session,
    /// What is in the database.
    Schema,
    /// Who may what in it.
    Grants,
    /// The team's own credits.
    Credits,
}

/// Whether trying again helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Never: somebody must change something. Trying again can lock everybody out.
    Permanent,
    /// Later: with a pause, and some chance.
    Transient,
    /// Only if the statement may be executed twice: it may have been executed.
    Ambiguous,
}

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// In a word that a program can act on.
    pub code: &'static str,
    /// Where. A step of the doctor's says so itself.
    #[serde(skip)]
    pub stage: Stage,
    /// Why.
    pub cause: &'static str,
    /// The kind of the job: what is to be done, and at which price.
    pub fix: &'static str,
    /// Whether trying again helps.
    pub class: Class,
}

/// What was seen.
#[derive(Debug, Clone, Copy)]
pub enum Symptom<'a> {
    /// An error message of the server, or of a pooler before it.
    Server {
        /// SQLSTATE.
        code: &'a str,
        /// The text.
        message: &'a str,
    },
    /// Anything else, as text, where it was seen.
    Seen(Stage, &'a str),
}

struct Rule {
    /// SQLSTATEs, or how they begin; none for what no server said.
    states: &'static [&'static str],
    /// Where it was seen, for what no server said.
    seen: &'static [Stage],
    /// One of these must be in the text, if there are any.
    words: &'static [&'static str],
    diagnosis: Diagnosis,
}

use Class::{Ambiguous, Permanent, Transient};
use Stage::{Auth, Credits, Dns, Grants, Pool, Schema, Session, Startup, Tcp, Tls, Url};

const fn server(
    states: &'static [&'static str],
    words: &'static [&'static str],
    stage: Stage,
    class: Class,
    code: &'static str,
    cause: &'static str,
    fix: &'static str,
) -> Rule {
    Rule { states, seen: &[], words, diagnosis: Diagnosis { code, stage, cause, fix, class } }
}

const fn seen(
    seen: &'static [Stage],
    words: &'static [&'static str],
    class: Class,
    code: &'static str,
    cause: &'static str,
    fix: &'static str,
) -> Rule {
    let stage = seen[0];
    Rule { states: &[], seen, words, diagnosis: Diagnosis { code, stage, cause, fix, class } }
}

/// Of poolers that say `FATAL XX000` or `08006` of everything, the word in parentheses is the code.
#[rustfmt::skip] // a table: a rule is what is seen, why, and what to do
const RULES: &[Rule] = &[
    // Supavisor (Supabase's shared pooler), by the code in its text.
    server(&[], &["(EADDRNOTALLOWED)"], Startup, Permanent, "address_not_allowed",
        "the project's network restrictions do not allow this address",
        "allow the address in the dashboard (Database, Network restrictions); a Lambda outside a VPC has no fixed one"),
    server(&[], &["(ESSLREQUIRED)"], Tls, Permanent, "tls_required",
        "the pooler takes encrypted connections only",
        "leave sslmode out, or say sslmode=require"),
    server(&[], &["(ESSLHANDSHAKE)"], Tls, Permanent, "tls_handshake",
        "the pooler could not agree on TLS",
        "connect without a proxy in between, with sslnegotiation=postgres"),
    server(&[], &["(ENOTFOUND)", "Tenant or user not found"], Startup, Permanent, "unknown_tenant",
        "the pooler knows no such project or user: the user lacks .<ref>, or the host is another region's or cluster's",
        "copy the host from the dashboard's Connect dialog and connect as <role>.<project ref>; right after a project was resumed, wait 15 minutes"),
    server(&[], &["(ENOIDENTIFIER)"], Startup, Permanent, "user_without_ref",
        "the pooler cannot tell the project from the user's name",
        "connect as <role>.<project ref>, such as postgres.abcdefghijklmnop"),
    server(&[], &["(ECIRCUITBREAKER)"], Auth, Permanent, "circuit_breaker",
        "the pooler has locked this address out after too many wrong passwords",
        "stop every client, mend the secret, wait two minutes, then start one"),
    server(&[], &["(EAUTHQUERY)", "(EAUTHSECRETS)", "(EAUTHTIMEOUT)", "failed to retrieve database credentials"], Auth, Transient, "pooler_cannot_authenticate",
        "the pooler cannot ask the database for the role's password: it is down, overloaded, or the role has no SCRAM secret",
        "look after the database; set the role's password anew under password_encryption = scram-sha-256"),
    server(&[], &["(EMAXCONNSESSION)", "max clients reached in session mode"], Pool, Permanent, "session_mode",
        "this is the session pooler: each client keeps a database connection, so there are as few as the pool has",
        "use the transaction pooler: the same host on port 6543"),
    server(&[], &["(EMAXCONN)", "Max client connections reached", "max client connections reached"], Pool, Transient, "pooler_full",
        "the pooler has all the clients that it may have",
        "lower the functions' concurrency, so that their sum and a fifth fit, or take a larger compute"),
    server(&[], &["(ECHECKOUTTIMEOUT)", "unable to check out"], Pool, Transient, "pool_exhausted",
        "all of the pooler's database connections are busy",
        "find the long transactions in pg_stat_activity, or raise the pool size"),
    server(&[], &["(EDBHANDLEREXITED)", "(EPOOLTERMINATING)"], Pool, Ambiguous, "pooler_lost_the_database",
        "the pooler's connection to the database broke",
        "try again; look into the database's log for the reason"),
    server(&[], &["(EBANNED)"], Startup, Permanent, "tenant_banned",
        "the platform has banned the project",
        "ask its support"),
    server(&[], &["(ESTARTUPPACKETTOOLARGE)", "(ESTARTUPMESSAGE)", "(EINVALIDUSERINFO)"], Startup, Permanent, "startup_refused",
        "the pooler refuses the first message: too long, or odd names",
        "shorten application_name and options; name user and database plainly"),
    server(&[], &["(EPREPAREDNOTFOUND)", "(EPREPAREDDUP)", "(EPSSIMPLEQUERY)", "(EMAXPREPARED"], Session, Permanent, "named_statements",
        "statements with a name do not survive a transaction pooler",
        "send unnamed statements (query_typed), as Punchcard does; turn statement caches off in what else connects"),
    server(&[], &["(EMAXPOOLSREACHED)", "(EWORKERNOTFOUND)", "(ESUBSCRIBERETRIES)", "(EPOOLCONFIGNOTFOUND)", "(EPROXY", "(ECHECKOUTRETRIES)"], Pool, Transient, "pooler_routing",
        "the pooler itself is being moved or restarted",
        "try again in some seconds, three times at most"),
    // PgBouncer, by its texts.
    server(&["08P01"], &["unsupported startup parameter"], Startup, Permanent, "startup_parameter",
        "the pooler takes no such parameter at the start, mostly options",
        "take options out of the connection string; set time-outs by ALTER ROLE … SET"),
    server(&["08P01"], &["query_wait_timeout"], Pool, Transient, "pool_exhausted",
        "all of the pooler's database connections are busy",
        "find the long transactions in pg_stat_activity, or raise default_pool_size"),
    server(&["08P01"], &["no more connections allowed"], Pool, Transient, "pooler_full",
        "the pooler has all the clients that it may have (max_client_conn)",
        "lower the functions' concurrency, so that their sum and a fifth fit, or raise max_client_conn"),
    server(&["08P01"], &["server login has been failing", "server_login_retry"], Pool, Transient, "database_down",
        "the database behind the pooler is down, or refuses the pooler",
        "look after the database; the pooler tries again after server_login_retry (15 s)"),
    server(&["08P01"], &["pooler is shutting down", "server shutting down"], Pool, Ambiguous, "pooler_restarting",
        "the pooler is being restarted",
        "connect again"),
    server(&["08P01"], &["client_idle_timeout", "client_login_timeout", "idle_transaction_timeout", "transaction_timeout"], Session, Ambiguous, "pooler_timeout",
        "the pooler closed a connection that took or idled too long",
        "connect again; keep transactions short"),
    server(&["08P01"], &["no such database", "database does not exist"], Startup, Permanent, "no_such_database",
        "the pooler knows no such database",
        "mend the database's name in the connection string"),
    server(&["08P01"], &["no such user", "SASL authentication failed", "password authentication failed", "auth failed"], Auth, Permanent, "wrong_password",
        "the pooler refuses user or password",
        "mend the secret; try it with one process only"),
    server(&["08P01"], &["not allowed", "paused"], Pool, Transient, "pooler_paused",
        "the pooler has been paused",
        "RESUME it in its console"),
    // PgCat and PgDog.
    server(&["58000"], &["could not get connection from the pool", "pool statement timeout", "idle transaction timeout", "is down"], Pool, Transient, "pool_exhausted",
        "the pooler has no database connection to give",
        "look after the database; raise the pool's size"),
    server(&["58000"], &["No pool configured"], Startup, Permanent, "unknown_tenant",
        "the pooler has no pool for this database and user",
        "mend the names in the connection string, or the pooler's configuration"),
    server(&["57P05"], &[], Session, Transient, "pooler_timeout",
        "the connection was closed for idling",
        "connect again"),
    server(&["08004"], &["TLS"], Tls, Permanent, "tls_required",
        "the pooler takes encrypted connections only",
        "leave sslmode out, or say sslmode=require"),
    // Neon and RDS Proxy.
    server(&[], &["endpoint ID is not specified"], Startup, Permanent, "no_sni",
        "the proxy cannot tell the project: the connection carries no server name",
        "connect by the host's name, not by its address, with TLS"),
    // PostgreSQL.
    server(&["28P01"], &[], Auth, Permanent, "wrong_password",
        "the password is wrong, or a pooler still has the one before its rotation",
        "mend the secret; try it with one process only: poolers lock addresses out after some wrong passwords"),
    server(&["28000"], &["SSL off", "no encryption"], Tls, Permanent, "tls_required",
        "the server takes encrypted connections only",
        "leave sslmode out, or say sslmode=require"),
    server(&["28000"], &[], Startup, Permanent, "role_refused",
        "there is no such role, or pg_hba.conf has no line for it from here",
        "mend the user's name, or allow it in pg_hba.conf"),
    server(&["3D000"], &[], Startup, Permanent, "no_such_database",
        "there is no such database",
        "mend the database's name in the connection string"),
    server(&["53300"], &[], Pool, Transient, "server_full",
        "the database has all the connections that it may have",
        "connect through its pooler, and lower the functions' concurrency"),
    server(&["53100"], &[], Session, Transient, "disk_full",
        "the database's disk is full",
        "make room or take a larger disk; what runs goes on once there is room"),
    server(&["57P03"], &[], Startup, Transient, "starting_up",
        "the database is starting up or recovering",
        "try again in some seconds"),
    server(&["57P01", "57P02"], &[], Session, Ambiguous, "connection_ended",
        "the database ended the connection: a restart, a crash, or an administrator",
        "connect again; what was under way may have been done"),
    server(&["57014"], &[], Session, Transient, "statement_timeout",
        "the statement took longer than the role may",
        "see which statement_timeout is in force (ALTER ROLE … SET), and what the statement waited for"),
    server(&["55P03"], &[], Session, Transient, "lock_timeout",
        "another transaction kept the row locked for too long",
        "try again; find the long transaction in pg_stat_activity"),
    server(&["25P03"], &[], Session, Ambiguous, "idle_in_transaction",
        "a transaction was left open",
        "something else than Punchcard, which opens none, uses this connection"),
    server(&["25006"], &[], Session, Permanent, "read_only",
        "this is a replica, or the database has been made read-only, perhaps for want of disk",
        "connect to the primary; look at the disk; then ALTER DATABASE … RESET default_transaction_read_only"),
    server(&["26000", "42P05"], &[], Session, Permanent, "named_statements",
        "statements with a name do not survive a transaction pooler",
        "send unnamed statements (query_typed), as Punchcard does; turn statement caches off in what else connects"),
    server(&["42501"], &["permission denied for database"], Startup, Permanent, "may_not_connect",
        "the right to connect to this database was taken from everybody, and not given to this role",
        "run `punchcard roles` as an administrator, or GRANT CONNECT ON DATABASE … TO the role"),
    server(&["42501"], &[], Schema, Permanent, "permission_denied",
        "the role lacks a grant",
        "run `punchcard migrate` as the owner; connect the functions as punchcard_app"),
    server(&["42P01", "42883", "3F000"], &[], Schema, Permanent, "not_migrated",
        "the schema is not there, or older than this program",
        "run `punchcard migrate` as the owner, connected directly"),
    // What no server says.
    seen(&[Url], &["must escape"], Permanent, "unescaped_password",
        "the password has a character that ends it in a URL",
        "write it percent-encoded, or leave it out and set PGPASSWORD"),
    seen(&[Url], &["sslmode"], Permanent, "bad_sslmode",
        "the connection string asks for a TLS mode that is not known or not allowed",
        "leave sslmode out: away from the loopback connections are always encrypted and verified"),
    seen(&[Url], &[], Permanent, "bad_connection_string",
        "the connection string cannot be used",
        "copy it from the provider's dashboard, and do as the message says"),
    seen(&[Dns], &["no answer"], Transient, "resolver_silent",
        "no name server answers: from a VPC mostly DNS support that is off, or no way to it",
        "look at the VPC's DNS settings and the group's egress to port 53; try again"),
    seen(&[Dns], &["only IPv6"], Permanent, "ipv6_only",
        "the name has IPv6 addresses only, and there is no IPv6 from here",
        "use the pooler's host (aws-N-<region>.pooler.supabase.com:6543), the IPv4 add-on, or a dual-stack VPC"),
    seen(&[Dns], &[], Permanent, "unknown_host",
        "the name has no address: a typo, or a project that was paused or deleted",
        "copy the host from the dashboard; resume the project"),
    seen(&[Tcp], &["only IPv6"], Permanent, "ipv6_only",
        "there is no way to the address from here, mostly because it is IPv6",
        "use the pooler's host (aws-N-<region>.pooler.supabase.com:6543), the IPv4 add-on, or a dual-stack VPC"),
    seen(&[Tcp], &["refused"], Permanent, "connection_refused",
        "nobody listens there: a wrong port, a paused project, or this address is banned for wrong passwords",
        "compare the port with the dashboard; `supabase network-bans get`; stop trying meanwhile, a ban lasts 30 minutes"),
    seen(&[Tcp], &[], Permanent, "no_route",
        "the host does not answer: from a VPC mostly no NAT, or a security group without egress to 5432 and 6543",
        "give the subnet a NAT gateway and the group the egress, or take the function out of the VPC"),
    seen(&[Tls], &["does not support TLS"], Permanent, "tls_unsupported",
        "the server does not encrypt",
        "turn TLS on at the server: away from the loopback nothing else is accepted"),
    seen(&[Tls], &["UnknownIssuer", "self-signed"], Permanent, "unknown_authority",
        "the certificate is of an authority that is not among the web's: Supabase and RDS have their own",
        "download the provider's certificate (README: Deploy) and name its file in PG_CA_PEM"),
    seen(&[Tls], &["NotValidForName", "not valid for"], Permanent, "wrong_host_name",
        "the certificate is for another name: the host was given as an address or an alias",
        "use the host of the dashboard"),
    seen(&[Tls], &["expires soon"], Transient, "certificate_expires_soon",
        "the server's certificate ends within 30 days",
        "renew it, or see to it that your provider does; a new authority goes into PG_CA_PEM beside the old one"),
    seen(&[Tls], &["Expired", "expired"], Permanent, "certificate_expired",
        "the server's certificate has expired, or the clock here is wrong",
        "renew the certificate; look at the clock"),
    seen(&[Tls], &["invalid message", "corrupt", "InvalidContentType"], Permanent, "tls_handshake",
        "the peer does not speak TLS as PostgreSQL does",
        "connect without a proxy in between, with sslnegotiation=postgres"),
    seen(&[Tls], &[], Transient, "tls_handshake",
        "TLS could not be agreed on",
        "try again; compare the host with the dashboard"),
    seen(&[Startup, Auth], &["bytes remaining on stream", "invalid message", "unexpected message"], Permanent, "not_postgresql",
        "what listens there is not PostgreSQL",
        "mend the port: 5432, or 6543 for Supabase's transaction pooler"),
    seen(&[Startup, Auth], &["channel binding"], Permanent, "channel_binding",
        "the connection string requires channel binding, which this server or pooler does not offer",
        "take channel_binding out of the connection string"),
    seen(&[Pool], &["session mode"], Permanent, "session_mode",
        "this is the session pooler: each client keeps a database connection, so there are as few as the pool has",
        "use the transaction pooler: the same host on port 6543"),
    seen(&[Pool], &["too many"], Permanent, "too_many_connections",
        "each execution environment is a client, and a deployment beside the old one needs a fifth more",
        "lower the functions' reserved concurrency, or take a larger compute"),
    seen(&[Session], &["timeout is in force"], Transient, "no_timeouts",
        "what a function that has died left behind goes on, or waits, for as long as it likes",
        "run `punchcard roles` as an administrator, and connect as punchcard_app"),
    seen(&[Session], &["SET LOCAL"], Permanent, "set_local",
        "a pooler between loses what a transaction sets",
        "Punchcard needs no SET LOCAL; look at the pooler's pool mode, which must be transaction or session"),
    seen(&[Session], &["the server is PostgreSQL"], Permanent, "server_too_old",
        "views with the rights of whoever asks need PostgreSQL 15",
        "upgrade the server, or connect to a newer one"),
    seen(&[Session], &["encoding"], Permanent, "encoding",
        "JSON and names beyond ASCII cannot be kept in it",
        "create a database with ENCODING 'UTF8' TEMPLATE template0, and migrate that"),
    seen(&[Session], &["synchronous_commit is off"], Permanent, "lost_commits",
        "a crash of the server loses purchases that were answered 202, and what jobs came to",
        "`punchcard roles` as an administrator sets it for punchcard_app; else ALTER ROLE … SET, then connect anew"),
    seen(&[Session], &["fsync is off", "full_page_writes is off"], Transient, "unsafe_storage",
        "a crash of the machine loses what was answered 202, or breaks the database",
        "turn it on in the server's configuration, unless its storage sees to it, as Neon's and Aurora's do"),
    seen(&[Session], &["must be"], Permanent, "setting",
        "the database, or the role, sets what the statements cannot work under",
        "`punchcard roles` as an administrator sets it for punchcard_app; else ALTER ROLE … SET, then connect anew"),
    seen(&[Session], &["superuser"], Permanent, "too_mighty_role",
        "whoever finds the functions' secret may do everything",
        "run `punchcard roles` as an administrator, and connect the functions as punchcard_app"),
    seen(&[Schema], &["row security hides"], Permanent, "hidden_rows",
        "the policies are for another owner, or this role is none that they name: to it nothing is there, and nothing wrong",
        "run `punchcard migrate` as the owner, which makes them anew (after a restore, or REASSIGN OWNED)"),
    seen(&[Grants], &["no answer"], Transient, "silence",
        "the database did not say in time who may what: it is busy, or has very many objects",
        "try again"),
    seen(&[Credits], &["no answer"], Transient, "silence",
        "the database did not say in time what functions and tables it has: it is busy, or has very many",
        "try again"),
    seen(&[Grants], &["temporary objects"], Permanent, "temporary_objects",
        "a function whose search_path is not pinned takes them for what it means",
        "as the database's owner: REVOKE TEMPORARY ON DATABASE … FROM PUBLIC, then grant it to those who need it; \
         `punchcard roles --own-database` does both"),
    seen(&[Schema], &["nobody claims the kind"], Permanent, "unclaimed_jobs",
        "no worker that runs serves the kind, or the poller does not run, or other kinds keep it busy",
        "give the kind a url, or its Rust code to the deployed worker, and `punchcard apply`; look whether the poller is invoked"),
    seen(&[Schema], &["a snapshot has been held"], Transient, "old_snapshot",
        "a transaction is open, or a dump, a replica or a slot keeps one",
        "end it (pg_terminate_backend, ROLLBACK PREPARED, pg_drop_replication_slot); set idle_in_transaction_session_timeout"),
    seen(&[Grants], &["row security is not", "the policy"], Permanent, "open_rows",
        "row security does not keep strangers from the rows",
        "as the owner: ALTER TABLE … ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; drop policies that are not Punchcard's"),
    seen(&[Grants], &["security_invoker"], Permanent, "open_view",
        "whoever may read the view reads through it as its owner does",
        "as the owner: ALTER VIEW … SET (security_invoker = on)"),
    seen(&[Grants], &["search_path"], Permanent, "open_search_path",
        "a temporary table or function shadows what the function names",
        "as the owner: ALTER FUNCTION … SET search_path = pg_catalog, pg_temp (what else it needs goes between the two)"),
    seen(&[Grants], &["calls Punchcard"], Permanent, "open_function",
        "any user may call it, and it acts with its owner's rights",
        "REVOKE EXECUTE ON FUNCTION … FROM PUBLIC, anon, authenticated"),
    seen(&[Grants], &["Data API exposes"], Permanent, "exposed_schema",
        "PostgREST serves what is in the schema",
        "take punchcard out of the exposed schemas; punchcard_api is the one to expose"),
    seen(&[Grants], &["the role "], Permanent, "too_mighty_role",
        "the functions' role may more than the functions do",
        "take it away (ALTER ROLE punchcard_app …, REVOKE …); `punchcard roles` sets the time-outs"),
    seen(&[Grants], &[], Permanent, "open_grant",
        "somebody was granted more than is meant, by hand or by default privileges",
        "as the owner, call punchcard.grant_access()"),
    seen(&[Credits], &["the credit source"], Permanent, "credit_source_failed",
        "purchases that must draw from it are answered 503, and refunds wait",
        "put the table or function back, with the rights that it had; or `punchcard credits source use` another, or `drop`"),
    seen(&[Credits], &[], Permanent, "broken_credit_shape",
        "this shape is known to lose credits or to make them",
        "let Punchcard keep the credits, or mend it before `punchcard credits source use`"),
    seen(&[Startup, Auth, Pool, Session, Schema, Grants], &["no answer", "timed out", "took too long"], Transient, "silence",
        "it listens and says nothing: a paused or hung pooler, a port for TLS only, or a database that is waking up",
        "try again; RESUME a pooler that was paused; compare the port with the dashboard"),
    seen(&[Session], &["pinned"], Permanent, "rds_proxy_pinning",
        "RDS Proxy keeps a database connection for each client: something sets session state or names statements",
        "send unnamed statements and no SET outside of a transaction, as Punchcard does"),
    seen(&[Startup, Auth, Pool, Session, Schema], &[], Ambiguous, "connection_lost",
        "the connection broke",
        "connect again; what was under way may have been done"),
];

/// What it means, if it is known.
#[must_use]
pub fn diagnose(symptom: Symptom<'_>) -> Option<Diagnosis> {
    RULES.iter().find(|rule| rule.fits(symptom)).map(|rule| rule.diagnosis)
}

/// What to do about a schema that is not there, is older than this program, or is not this role's to use, in
/// one line with the server's word; `None` of anything else.
#[must_use]
pub fn schema_fault(code: &str, message: &str) -> Option<String> {
    let found = diagnose(Symptom::Server { code, message }).filter(|found| found.stage == Schema)?;
    Some(format!("{}: {} ({message})", found.cause, found.fix))
}

impl Rule {
    fn fits(&self, symptom: Symptom<'_>) -> bool {
        let (text, fits) = match symptom {
            Symptom::Server { code, message } => {
                let known = self.states.is_empty() || self.states.iter().any(|state| code.starts_with(state));
                (message, self.seen.is_empty() && known)
            }
            Symptom::Seen(stage, text) => (text, self.seen.contains(&stage)),
        };
        fits && (self.words.is_empty() || self.words.iter().any(|word| text.contains(word)))
    }
}
