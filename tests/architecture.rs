//! The rules that `docs/ARCHITECTURE.md` states by absence.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Rust sources below a folder, with their unit tests cut off.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
                found.push((path.display().to_string(), code));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    assert!(!found.is_empty(), "{folder}");
    found
}

/// Fails for each line of code (comments aside) with one of the words, outside the files that may.
fn forbid(folder: &str, words: &[&str], but: &[&str]) {
    for (path, code) in sources(folder) {
        if but.iter().any(|but| path.ends_with(but)) {
            continue;
        }
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for word in words {
                assert!(!line.contains(word), "{path}: {word} does not belong here: {line}");
            }
        }
    }
}

#[test]
fn the_map_names_every_source_file() {
    let map = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let words: HashSet<&str> = map.split([' ', '\n', '`', ',', '(', ')', ':', ';']).collect();
    for folder in ["functions", "shared", "infra"] {
        for (path, _) in sources(folder) {
            let name = Path::new(&path).file_name().unwrap().to_str().unwrap();
            let named = words.iter().any(|word| *word == name || word.ends_with(&format!("/{name}")));
            assert!(named, "{path} is not on the map in docs/ARCHITECTURE.md");
        }
    }
    for (name, _) in shared::db::STATEMENTS {
        let (folder, verb) = name.split_once('/').unwrap();
        assert!(
            words.contains(verb) && words.contains(format!("{folder}/").as_str()),
            "{name} is not on the map"
        );
    }
}

#[test]
fn domain_knows_no_io() {
    let io = [
        "tokio_postgres",
        "hyper",
        "lambda",
        "std::env",
        "std::fs",
        "std::net",
        "crate::db",
        "getrandom",
        "rand::",
    ];
    forbid("shared/src/domain", &io, &[]);
    forbid("shared/src/domain", &["::now()"], &["deadline.rs"]);
}

#[test]
fn error_statuses_stand_in_one_place() {
    let statuses =
        ["respond(4", "respond(5", "status: 4", "status: 5", "\"statusCode\": 4", "\"statusCode\": 5"];
    forbid("functions/api/src", &statuses, &["error.rs"]);
    // Nobody else can make an ApiError of a status of their own.
    let (_, error) =
        sources("functions/api/src").into_iter().find(|(path, _)| path.ends_with("error.rs")).unwrap();
    assert!(error.contains("    fn new(status: u16,") && error.contains("    status: u16,"));
}

#[test]
fn a_worker_writes_jobs_by_claim_and_settle_alone_and_settle_is_fenced() {
    for (name, sql) in shared::db::STATEMENTS {
        let writes = ["UPDATE punchcard.queue", "INTO punchcard.outcomes", "DELETE FROM punchcard.queue"];
        assert!(!writes.iter().any(|write| sql.contains(write)), "{name}");
    }
    let jobs = fs::read_to_string(root().join("infra/migrations/0003_engine.sql")).unwrap();
    let settle = jobs.split("CREATE FUNCTION punchcard.settle").nth(1).unwrap();
    assert_eq!(settle.matches("q.lease_token = v.lease_token").count(), 2, "to settle and to try again");
}

#[test]
fn the_environment_is_read_in_one_place() {
    for folder in ["shared/src", "functions"] {
        forbid(folder, &["env::var", "env::vars"], &["shared/src/config.rs"]);
    }
}

#[test]
fn sql_stands_in_sql_files() {
    let sql = ["SELECT ", "INSERT INTO", "UPDATE ", "DELETE FROM"];
    for folder in ["shared/src", "functions", "infra/cli"] {
        forbid(folder, &sql, &["shared/src/db/migrate.rs"]);
    }
}

#[test]
fn functions_open_no_transaction() {
    for folder in ["shared/src", "functions"] {
        forbid(
            folder,
            &[".transaction(", "BEGIN", "batch_execute", "simple_query"],
            &["shared/src/db/migrate.rs"],
        );
    }
}

#[test]
fn the_template_and_the_code_agree() {
    let template = fs::read_to_string(root().join("template.yaml")).unwrap();
    let config = fs::read_to_string(root().join("shared/src/config.rs")).unwrap();
    assert!(!template.contains("ALLOW_PRIVATE_TARGETS"), "never deployed with private targets");
    assert!(!template.contains("provided.al2\n") && template.contains("provided.al2023"));
    assert!(template.contains("rate(1 minute)") && template.contains("MaximumRetryAttempts: 0"));
    for binary in ["api", "poller"] {
        assert!(template.contains(&format!("Binary: {binary}\n")), "{binary}");
    }
    let settings =
        ["SECRET_ARN", "JWT_ISSUER", "JWKS_URL", "JWT_AUDIENCE", "ACCOUNT_CLAIM", "CONCURRENCY", "LINGER_MS"];
    for setting in settings {
        assert!(
            template.contains(&format!("{setting}:")) && config.contains(&format!("\"{setting}\"")),
            "{setting}"
        );
    }
    // The alarm for a poller that stopped counts this message.
    assert!(
        template.contains("tick done")
            && sources("functions/worker").iter().any(|(_, s)| s.contains("\"tick done\""))
    );
}
