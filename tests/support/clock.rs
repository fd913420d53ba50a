//! A clock of a test's own: every function of its database tells the time by it, so that a year passes in a second.

use shared::db::schema::FUNCTIONS;

use super::Bench;

/// Columns that are filled in with the time, and what by.
const DEFAULTS: &[(&str, &str)] = &[
    ("accounts", "now"),
    ("movements", "clock_timestamp"),
    ("jobs", "now"),
    ("outbox", "now"),
    ("kind_terms", "now"),
];

impl Bench {
    /// From now on the database's functions tell the time by a clock of their own, which stands where it is set; its months
    /// begin there.
    pub async fn begin_at(&self, at: &str) {
        self.sql(
            "CREATE SCHEMA clock;
             CREATE TABLE clock.shift (by interval NOT NULL);
             INSERT INTO clock.shift VALUES ('0');
             CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS
                 'SELECT pg_catalog.now() + (SELECT s.by FROM clock.shift s)';
             CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
                 'SELECT pg_catalog.clock_timestamp() + (SELECT s.by FROM clock.shift s)';
             GRANT USAGE ON SCHEMA clock TO PUBLIC;
             GRANT SELECT ON clock.shift TO PUBLIC",
        )
        .await;
        for (_, source) in FUNCTIONS {
            let source = source
                .replace("clock_timestamp()", "clock.clock_timestamp()")
                .replace(" now()", " clock.now()")
                .replace("(now()", "(clock.now()");
            self.sql(&format!("SET check_function_bodies = off; {source}")).await;
        }
        for (table, clock) in DEFAULTS {
            let set =
                format!("ALTER TABLE punchcard.{table} ALTER COLUMN created_at SET DEFAULT clock.{clock}()");
            self.sql(&set).await;
        }
        self.set_clock(at).await;
        self.sql(
            "DO $$ DECLARE t text; BEGIN
                 FOR t IN SELECT name FROM punchcard.periods LOOP EXECUTE format('DROP TABLE punchcard.%I', t); END LOOP;
                 WHILE punchcard.make_periods() LOOP END LOOP;
             END $$",
        )
        .await;
    }

    /// Sets that clock.
    pub async fn set_clock(&self, at: &str) {
        self.sql(&format!("UPDATE clock.shift SET by = timestamptz '{at}' - pg_catalog.now()")).await;
    }
}
