//! Connection strings as people have them: a URL or keywords, with what libpq, Prisma and Supabase put into them.
//! Each parameter is obeyed, known to be without meaning here, or named in the error.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use tokio_postgres::{
    Config,
    config::{ChannelBinding, Host, SslMode, TargetSessionAttrs},
};

use crate::secrets::without_line_end;

/// A connection string that cannot be used: one line that says why and what to do. It never shows the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadConnectionString(String);

/// Where and how to connect.
#[derive(Debug, Clone)]
pub struct ConnectionString {
    /// For the driver; its TLS mode is what [`ConnectionString::is_encrypted`] says.
    pub config: Config,
    /// `sslrootcert`: a file of more certification authorities to trust.
    pub root_certificates: Option<PathBuf>,
    /// Parameters that mean nothing here, such as Prisma's `pgbouncer`.
    pub ignored: Vec<String>,
    encrypted: bool,
}

/// Parameters of others that change nothing here: pools and statement caches that we do not have, and libpq's own.
const MEANINGLESS: &[&str] = &[
    "pgbouncer",
    "connection_limit",
    "pool_timeout",
    "statement_cache_size",
    "socket_timeout",
    "supa",
    "workaround",
    "gssencmode",
    "krbsrvname",
    "sslcompression",
    "sslcrl",
    "sslsni",
    "ssl_min_protocol_version",
    "client_encoding",
    "fallback_application_name",
];

type Pairs = Vec<(String, String)>;

impl ConnectionString {
    /// Reads a URL (`postgres://…`) or keywords (`host=… user=…`); `password` where the string has none (`PGPASSWORD`).
    /// Away from the loopback TLS is always on and always verified, whatever `sslmode` says short of `disable`, which is
    /// refused.
    ///
    /// # Errors
    /// [`BadConnectionString`] names the first thing that is wrong.
    pub fn parse(text: &str, password: Option<&str>) -> Result<Self, BadConnectionString> {
        let text = text.trim();
        let pairs = match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
            Some(rest) => url(rest)?,
            None if text.contains("://") => {
                return bad("the URL must begin with postgres:// or postgresql://");
            }
            None => keywords(text)?,
        };
        let mut builder = Builder::default();
        for (name, value) in pairs {
            builder.set(&name, value)?;
        }
        builder.finish(password)
    }

    /// Whether the connection is by TLS, verified.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The first host, as it was given.
    #[must_use]
    pub fn host(&self) -> String {
        match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        }
    }

    /// The first port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.config.get_ports().first().copied().unwrap_or(5432)
    }
}

fn bad<T>(why: impl Into<String>) -> Result<T, BadConnectionString> {
    Err(BadConnectionString(why.into()))
}

/// What stands behind the scheme, as keywords.
fn url(rest: &str) -> Result<Pairs, BadConnectionString> {
    const UNESCAPED: &str = "the password has a character that a URL must escape: write @ as %40, : as %3A, / as %2F, ? as \
         %3F, # as %23 and % as %25, or leave it out and set PGPASSWORD";
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let before_query = tail.split('?').next().unwrap_or_default();
    // An @ behind the first / ? or # was meant to end the password.
    if authority.matches('@').count() > 1
        || (!authority.contains('@') && tail.contains('@') && authority.contains(':'))
        || before_query.contains('@')
        || tail.contains('#')
    {
        return bad(UNESCAPED);
    }
    let mut pairs = Pairs::new();
    let hosts = match authority.rsplit_once('@') {
        Some((user, hosts)) => {
            let (user, password) = user.split_once(':').map_or((user, None), |(user, it)| (user, Some(it)));
            pairs.push(("user".into(), decode(user).ok_or(BadConnectionString(UNESCAPED.into()))?));
            if let Some(password) = password {
                pairs.push((
                    "password".into(),
                    decode(password).ok_or(BadConnectionString(UNESCAPED.into()))?,
                ));
            }
            hosts
        }
        None => authority,
    };
    let decoded = |text: &str| match decode(text) {
        Some(text) => Ok(text),
        None => bad(format!("{text}: a % must be followed by two hexadecimal digits")),
    };
    if !hosts.is_empty() {
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let (name, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
                Some((address, port)) => (address.to_owned(), port.strip_prefix(':').unwrap_or_default()),
                None => {
                    host.split_once(':').map_or((host.to_owned(), ""), |(name, port)| (name.to_owned(), port))
                }
            };
            names.push(decoded(&name)?);
            ports.push(if port.is_empty() { "5432" } else { port });
        }
        pairs.push(("host".into(), names.join(",")));
        pairs.push(("port".into(), ports.join(",")));
    }
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let database = decoded(path.trim_start_matches('/'))?;
    if !database.is_empty() {
        pairs.push(("dbname".into(), database));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((decoded(name)?, decoded(value)?));
    }
    Ok(pairs)
}

/// `%40` to `@`; nothing if a `%` is not followed by two hexadecimal digits, or the whole is no UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let hex = after.get(..2).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit))?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// libpq's `keyword = value`, a value with spaces in single quotes, `\` before a quote or a backslash.
fn keywords(text: &str) -> Result<Pairs, BadConnectionString> {
    let mut pairs = Pairs::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((name, value)) = rest.split_once('=') else {
            return bad(
                "a connection string is a URL (postgres://…) or keywords (host=… user=… password=… dbname=…)",
            );
        };
        let mut chars = value.trim_start().char_indices();
        let value = value.trim_start();
        let quoted = value.starts_with('\'');
        if quoted {
            chars.next();
        }
        let (mut parsed, mut end) = (String::new(), None);
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' => parsed.extend(chars.next().map(|(_, escaped)| escaped)),
                '\'' if quoted => {
                    end = Some(at + 1);
                    break;
                }
                char if !quoted && char.is_whitespace() => {
                    end = Some(at);
                    break;
                }
                char => parsed.push(char),
            }
        }
        if quoted && end.is_none() {
            return bad(format!("{}: the closing quote is missing", name.trim()));
        }
        pairs.push((name.trim().to_owned(), parsed));
        rest = end.map_or("", |end| value[end..].trim_start());
    }
    match pairs.is_empty() {
        true => bad("the connection string is empty"),
        false => Ok(pairs),
    }
}

#[derive(Default)]
struct Builder {
    config: Config,
    hosts: Vec<String>,
    ports: Vec<u16>,
    user: bool,
    password: bool,
    sslmode: Option<String>,
    root_certificates: Option<PathBuf>,
    ignored: Vec<String>,
}

impl Builder {
    fn set(&mut self, name: &str, value: String) -> Result<(), BadConnectionString> {
        let wrong = |allowed: &str| bad(format!("{name}={value} is not one of {allowed}"));
        match name {
            "host" => self.hosts = value.split(',').map(str::to_owned).collect(),
            "port" => {
                let ports: Result<_, _> = value.split(',').map(str::parse).collect();
                self.ports = ports.or_else(|_| bad(format!("port={value} is not a port number")))?;
            }
            "hostaddr" => {
                for address in value.split(',') {
                    let address =
                        address.parse().or_else(|_| bad(format!("hostaddr={address} is no IP address")))?;
                    self.config.hostaddr(address);
                }
            }
            "user" | "username" => {
                self.user = true;
                self.config.user(value);
            }
            "password" => {
                self.password = true;
                self.config.password(value);
            }
            "dbname" | "database" => {
                self.config.dbname(value);
            }
            "application_name" => {
                self.config.application_name(value);
            }
            "options" => {
                self.config.options(value);
            }
            "sslmode" => match value.as_str() {
                "disable" | "allow" | "prefer" | "require" | "verify-ca" | "verify-full" => {
                    self.sslmode = Some(value)
                }
                "no-verify" => {
                    return bad(
                        "sslmode=no-verify is refused: give the authority's certificate by sslrootcert or PG_CA_PEM",
                    );
                }
                _ => return wrong("disable, allow, prefer, require, verify-ca, verify-full"),
            },
            "sslrootcert" if value == "system" => self.ignored.push(name.to_owned()),
            "sslrootcert" => self.root_certificates = Some(value.into()),
            "sslcert" | "sslkey" | "sslidentity" | "sslpassword" => {
                return bad(format!("{name}: client certificates are not supported: use a password"));
            }
            "sslaccept" if value == "strict" => self.ignored.push(name.to_owned()),
            "sslaccept" => {
                return bad("sslaccept: certificates are always verified: leave it out, or say strict");
            }
            "sslnegotiation" if value == "postgres" => self.ignored.push(name.to_owned()),
            "sslnegotiation" => {
                return bad("sslnegotiation=direct is not supported: leave it out, or say postgres");
            }
            "channel_binding" => match value.as_str() {
                "disable" => {
                    self.config.channel_binding(ChannelBinding::Disable);
                }
                "prefer" => {
                    self.config.channel_binding(ChannelBinding::Prefer);
                }
                "require" => {
                    self.config.channel_binding(ChannelBinding::Require);
                }
                _ => return wrong("disable, prefer, require"),
            },
            "target_session_attrs" => match value.as_str() {
                "any" => {
                    self.config.target_session_attrs(TargetSessionAttrs::Any);
                }
                "read-write" | "primary" => {
                    self.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
                }
                _ => return wrong("any, read-write"),
            },
            "connect_timeout" => {
                let seconds =
                    value.parse().or_else(|_| bad(format!("connect_timeout={value} is not in seconds")))?;
                if seconds > 0 {
                    self.config.connect_timeout(Duration::from_secs(seconds));
                }
            }
            "schema" if value == "public" || value == "punchcard" => self.ignored.push(name.to_owned()),
            "schema" => {
                return bad(
                    "schema: everything of ours is in the schema punchcard, named in each statement: leave it out",
                );
            }
            name if MEANINGLESS.contains(&name)
                || name.starts_with("keepalives")
                || name == "tcp_user_timeout" =>
            {
                self.ignored.push(name.to_owned());
            }
            _ => return bad(format!("{name} is not a parameter that is known here: leave it out")),
        }
        Ok(())
    }

    fn finish(mut self, password: Option<&str>) -> Result<ConnectionString, BadConnectionString> {
        if self.hosts.is_empty() {
            return bad("there is no host");
        }
        if !self.user {
            return bad("there is no user");
        }
        for host in &self.hosts {
            self.config.host(host);
        }
        for port in &self.ports {
            self.config.port(*port);
        }
        if let (false, Some(password)) = (self.password, password) {
            self.config.password(without_line_end(password));
        }
        if self.config.get_application_name().is_none() {
            self.config.application_name("punchcard");
        }
        let local = self.hosts.iter().all(|host| is_local(host));
        let sslmode = self.sslmode.as_deref().unwrap_or("prefer");
        if !local && sslmode == "disable" {
            return bad(
                "sslmode=disable is refused: away from the loopback connections are encrypted and verified",
            );
        }
        let encrypted = !local || matches!(sslmode, "require" | "verify-ca" | "verify-full");
        self.config.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
        let Self { config, root_certificates, ignored, .. } = self;
        Ok(ConnectionString { config, root_certificates, ignored, encrypted })
    }
}

fn is_local(host: &str) -> bool {
    host.starts_with('/')
        || host == "localhost"
        || host.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ConnectionString {
        ConnectionString::parse(text, None).unwrap()
    }

    fn refused(text: &str) -> String {
        ConnectionString::parse(text, None).unwrap_err().to_string()
    }

    #[test]
    fn urls_and_keywords_say_the_same() {
        let url = parse(
            "postgresql://postgres.abc:p%40ss%2Fw@aws-0-eu.pooler.supabase.com:6543/postgres?sslmode=verify-full",
        );
        let keywords = parse(
            r"host=aws-0-eu.pooler.supabase.com port=6543 user=postgres.abc password='p@ss/w' dbname=postgres sslmode = require",
        );
        for it in [&url, &keywords] {
            assert_eq!((it.host().as_str(), it.port()), ("aws-0-eu.pooler.supabase.com", 6543));
            assert_eq!(it.config.get_user(), Some("postgres.abc"));
            assert_eq!(it.config.get_password(), Some(b"p@ss/w".as_slice()));
            assert_eq!(it.config.get_dbname(), Some("postgres"));
            assert!(it.is_encrypted() && it.config.get_ssl_mode() == SslMode::Require);
        }
        assert_eq!(parse(r"host=h user=u password='it\'s' ").config.get_password(), Some(b"it's".as_slice()));
        assert_eq!(parse("postgres://u@[::1]:7/d").port(), 7);
        let two = parse("postgres://u@a:1,b/d");
        assert_eq!((two.config.get_hosts().len(), two.config.get_ports()), (2, [1, 5432].as_slice()));
    }

    #[test]
    fn what_others_put_in_is_understood() {
        let prisma = parse(
            "postgres://u:p@h:6543/d?pgbouncer=true&connection_limit=1&schema=public&pool_timeout=0&supa=base-pooler.x",
        );
        assert_eq!(prisma.ignored, ["pgbouncer", "connection_limit", "schema", "pool_timeout", "supa"]);
        let neon = parse("postgres://u:p@ep-x-pooler.neon.tech/d?sslmode=require&channel_binding=require");
        assert_eq!(neon.config.get_channel_binding(), ChannelBinding::Require);
        let rds = parse("postgres://u:p@h/d?sslrootcert=/opt/rds.pem&connect_timeout=3");
        assert_eq!(rds.root_certificates.as_deref(), Some(std::path::Path::new("/opt/rds.pem")));
        assert!(parse("postgres://u:p@h/d?sslmode=prefer").is_encrypted(), "away from the loopback always");
        assert!(!parse("postgres://u:p@127.0.0.1/d").is_encrypted());
        assert!(parse("postgres://u:p@127.0.0.1/d?sslmode=verify-full").is_encrypted());
    }

    #[test]
    fn a_password_from_elsewhere_is_used_where_there_is_none() {
        let with = |text| {
            ConnectionString::parse(text, Some("other\r\n"))
                .unwrap()
                .config
                .get_password()
                .map(<[u8]>::to_vec)
        };
        assert_eq!(with("postgres://u@h/d").as_deref(), Some(b"other".as_slice()), "but not its line's end");
        assert_eq!(with("postgres://u:own@h/d").as_deref(), Some(b"own".as_slice()));
    }

    #[test]
    fn what_is_wrong_is_named_and_the_password_is_not_shown() {
        for url in [
            "postgres://u:p@ss@h/d",
            "postgres://u:pa/ss@h/d",
            "postgres://u:pa?ss@h/d",
            "postgres://u:pa#ss@h/d",
            "postgres://u:pa%ss@h/d",
        ] {
            let why = refused(url);
            assert!(
                why.contains("%40") && why.contains("PGPASSWORD") && !why.contains("ss@"),
                "{url}: {why}"
            );
        }
        for (text, word) in [
            ("", "empty"),
            ("nonsense", "keywords"),
            ("mysql://u@h/d", "postgres://"),
            ("postgres://u@h:x/d", "port=x"),
            ("postgres:///d", "no host"),
            ("postgres://h/d", "no user"),
            ("postgres://u@h/d?sslmode=maybe", "verify-full"),
            ("postgres://u@h/d?sslmode=disable", "refused"),
            ("postgres://u@h/d?sslmode=no-verify", "sslrootcert"),
            ("postgres://u@h/d?frobnicate=1", "frobnicate"),
            ("postgres://u@h/d?schema=other", "punchcard"),
            ("postgres://u@h/d?sslcert=x", "client certificates"),
            ("postgres://u@h/d?channel_binding=yes", "prefer"),
            ("host=h user='u", "quote"),
        ] {
            assert!(refused(text).contains(word), "{text}: {}", refused(text));
        }
    }
}
