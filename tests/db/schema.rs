//! `infra/schema.sql`, for whoever wants to read the schema as a whole, is what the catalog has.

use std::{fs, path::Path};

use crate::support::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn what_people_read_is_what_is_there() {
    let bench = Bench::new().await;
    let found: String = bench.rows(include_str!("schema.sql")).await[0].get("schema");
    let found = format!(
        "-- The schema as a whole, as the catalog has it: to be read, not to be applied. It is made of infra/migrations and\n\
         -- infra/functions; `PUNCHCARD_RECORD=1 cargo xtask test --direct-only -- db::schema` writes it anew.\n\n{found}"
    );
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/schema.sql");
    if std::env::var_os("PUNCHCARD_RECORD").is_some() {
        fs::write(&file, &found).unwrap();
    }
    let read = fs::read_to_string(&file).unwrap_or_default();
    let differing = read.lines().zip(found.lines()).find(|(read, found)| read != found);
    assert!(read == found, "infra/schema.sql is out of date, first at {differing:?}");
}
