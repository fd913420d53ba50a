//! What an error of PostgreSQL's, or of a pooler's before it, is about: one table, by SQLSTATE
//! (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).

/// What an error is about, and so what mends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This statement, now: others were in its way and it was rolled back. The connection is sound.
    Statement,
    /// This connection: another may do. `perhaps_done`: the statement may have been committed all the same.
    Connection {
        /// Whether the statement may have been committed before the connection ended.
        perhaps_done: bool,
    },
    /// This server, as it is now: short of something, or not set up for this statement. Nothing was done.
    Server,
    /// This statement with these values, whenever and wherever it is sent. Nothing was done.
    Never,
}

const LOST: Fault = Fault::Connection { perhaps_done: true };
const USELESS: Fault = Fault::Connection { perhaps_done: false };

/// Codes and, of two characters, their classes. The longest that fits counts.
const FAULTS: &[(&str, Fault)] = &[
    ("08", LOST),                // connection exception; 08P01 is all that PgBouncer says
    ("0A", USELESS),             // feature not supported: "cached plan must not change result type"
    ("09", Fault::Never),        // triggered action exception
    ("20", Fault::Never),        // case not found
    ("21", Fault::Never),        // cardinality violation
    ("22", Fault::Never),        // data exception
    ("23", Fault::Never),        // integrity constraint violation
    ("24", USELESS),             // invalid cursor state
    ("25", USELESS), // invalid transaction state: read-only (25006, a demoted primary), in a failed one
    ("26", USELESS), // invalid statement name: a pooler gave this session to others meanwhile
    ("27", Fault::Never), // triggered data change violation
    ("28", Fault::Server), // invalid authorization
    ("34", USELESS), // invalid cursor name
    ("38", Fault::Never), // external routine exception
    ("39", Fault::Never), // external routine invocation exception
    ("3D", Fault::Server), // invalid catalog name
    ("3F", Fault::Server), // invalid schema name
    ("40", Fault::Statement), // transaction rollback: serialization failure, deadlock
    ("40003", LOST), // statement completion unknown
    ("42", Fault::Server), // undefined function or table, no privilege: the schema or the grants are not ours
    ("44", Fault::Never), // WITH CHECK OPTION violation
    ("53", Fault::Server), // insufficient resources: disk, memory, connections
    ("54", Fault::Never), // program limit exceeded
    ("55", Fault::Server), // object not in prerequisite state: starting up, in recovery
    ("55006", Fault::Statement), // object in use
    ("55P03", Fault::Statement), // lock not available: lock_timeout
    ("57", LOST),    // operator intervention: shutdown, crash, idle too long
    ("57014", Fault::Statement), // query canceled: statement_timeout
    ("58", LOST),    // system error
    ("P0", Fault::Never), // raised by somebody's trigger
    ("XX", Fault::Server), // internal error, data or index corrupted
    ("XX000", LOST), // and all that Supavisor says
];

/// What an error with this SQLSTATE is about. One that nobody knows is the server's: no result is lost to it.
#[must_use]
pub fn fault(sqlstate: &str) -> Fault {
    let of = |code: &str| FAULTS.iter().find(|(known, _)| *known == code).map(|(_, fault)| *fault);
    of(sqlstate).or_else(|| of(sqlstate.get(..2)?)).unwrap_or(Fault::Server)
}

/// Whether the statement may be sent again at once: those who were in its way are through.
#[must_use]
pub(super) fn passes_at_once(sqlstate: &str) -> bool {
    matches!(sqlstate, "40001" | "40002" | "40P01")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_class_of_errors_has_its_mend() {
        for (code, expected) in [
            ("40001", Fault::Statement), // could not serialize access
            ("40P01", Fault::Statement), // deadlock
            ("55P03", Fault::Statement),
            ("57014", Fault::Statement),
            ("25006", USELESS),
            ("25P02", USELESS),
            ("26000", USELESS),
            ("0A000", USELESS),
            ("08006", LOST),
            ("08P01", LOST),
            ("40003", LOST),
            ("57P01", LOST),
            ("57P03", LOST),
            ("58030", LOST),
            ("XX000", LOST),
            ("53100", Fault::Server), // disk full
            ("53300", Fault::Server),
            ("42501", Fault::Server), // permission denied
            ("42883", Fault::Server), // the schema is older than this code
            ("55000", Fault::Server),
            ("XX001", Fault::Server),
            ("ZZ999", Fault::Server),
            ("", Fault::Server),
            ("é", Fault::Server),
            ("22P02", Fault::Never),
            ("22003", Fault::Never),
            ("23514", Fault::Never),
            ("23505", Fault::Never),
            ("54000", Fault::Never),
            ("P0001", Fault::Never),
        ] {
            assert_eq!(fault(code), expected, "{code}");
        }
    }

    #[test]
    fn the_table_says_each_code_once() {
        let codes: HashSet<&str> = FAULTS.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes.len(), FAULTS.len());
        assert!(codes.iter().all(|code| matches!(code.len(), 2 | 5)));
    }
}
