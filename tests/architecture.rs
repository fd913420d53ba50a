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
    let settle = fs::read_to_string(root().join("infra/functions/run/settle.sql")).unwrap();
    assert_eq!(settle.matches("q.lease_token = v.lease_token").count(), 2, "to look, and to end");
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
            // The doctor's transaction is one message long; `pinned` is the operator's.
            &["shared/src/db/migrate.rs", "shared/src/db/pinned.rs", "shared/src/doctor/checks.rs"],
        );
    }
}

#[test]
fn the_feature_sqs_is_known_to_one_file() {
    for folder in ["shared/src", "functions", "infra"] {
        forbid(folder, &["feature = \"sqs\"", "aws_config", "aws_sdk_sqs::Client"], &["shared/src/wake.rs"]);
    }
}

fn template() -> String {
    fs::read_to_string(root().join("template.yaml")).unwrap()
}

/// The text of one resource, or parameter, of the template.
fn resource(name: &str) -> String {
    let template = template();
    let from = template.split(&format!("\n  {name}:\n")).nth(1).unwrap_or_else(|| panic!("no {name}"));
    let lines = from.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    lines.collect::<Vec<_>>().join("\n")
}

fn default_of(parameter: &str) -> u32 {
    let text = resource(parameter);
    let default = text.lines().find_map(|line| line.trim().strip_prefix("Default: "));
    default.unwrap_or_else(|| panic!("{parameter}")).parse().unwrap()
}

#[test]
fn the_template_and_the_code_agree() {
    let template = template();
    let config = fs::read_to_string(root().join("shared/src/config.rs")).unwrap();
    assert!(!template.contains("ALLOW_PRIVATE_TARGETS"), "never deployed with private targets");
    assert!(!template.contains("provided.al2\n") && template.contains("provided.al2023"));
    assert!(template.contains("rate(1 minute)") && template.contains("MaximumRetryAttempts: 0"));
    for (binary, source) in [
        ("api", "api/src/main.rs"),
        ("poller", "worker/src/main.rs"),
        ("sqs-worker", "worker/src/bin/sqs-worker.rs"),
    ] {
        assert!(template.contains(&format!("Binary: {binary}\n")), "{binary}");
        assert!(root().join("functions").join(source).exists(), "{source}");
    }
    let settings = [
        "SECRET_ARN",
        "JWT_ISSUER",
        "JWKS_URL",
        "JWT_AUDIENCE",
        "ACCOUNT_CLAIM",
        "CONCURRENCY",
        "LINGER_MS",
        "WAKE_QUEUE_URL",
        "MOST_HELPERS",
    ];
    for setting in settings {
        assert!(
            template.contains(&format!("{setting}:")) && config.contains(&format!("\"{setting}\"")),
            "{setting}"
        );
    }
    // Alarms count these messages.
    for (line, folder) in [
        ("tick done", "functions/worker"),
        ("wake-ups left to the next tick", "functions/worker"),
        ("wake-ups not sent", "shared/src"),
    ] {
        assert!(template.contains(&format!("$.message = \"{line}\"")), "{line}");
        assert!(sources(folder).iter().any(|(_, code)| code.contains(&format!("\"{line}\""))), "{line}");
    }
}

#[test]
fn connections_fit_into_the_smallest_pooler_with_a_fifth_to_spare() {
    let functions =
        ["ApiReservedConcurrency", "PollerReservedConcurrency", "SqsMaximumConcurrency"].map(default_of);
    // Two of each poller; two mappings, of as many workers each.
    let connections = functions[0] + 2 * functions[1] + 2 * functions[2];
    assert!(connections * 6 / 5 <= 200, "{connections} connections");
    let worker = resource("SqsWorkerFunction");
    assert_eq!(worker.matches("MaximumConcurrency: !Ref SqsMaximumConcurrency").count(), 2);
    assert_eq!(worker.matches("Type: SQS").count(), 2);
}

#[test]
fn a_queue_waits_six_times_as_long_as_its_worker_may_run_and_keeps_what_comes_again() {
    let allowed = resource("PollerTimeout");
    let allowed = allowed.split("AllowedValues: [").nth(1).unwrap().split(']').next().unwrap();
    let visibilities = resource("WakeUps");
    let mut longest = 0;
    for timeout in allowed.split(", ") {
        let six_times = timeout.parse::<u32>().unwrap() * 6;
        let line = format!("\"{timeout}\": {{ Visibility: {six_times} }}");
        assert!(visibilities.contains(&line), "{line}");
        longest = longest.max(six_times);
    }
    assert_eq!(visibilities.matches("Visibility").count(), allowed.split(", ").count());
    for queue in ["WakeQueue", "HelpQueue"] {
        let queue = resource(queue);
        assert!(queue.contains("VisibilityTimeout: !FindInMap [WakeUps, !Ref PollerTimeout, Visibility]"));
        let number = |name: &str| {
            let line = queue.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
            line.split(' ').next().unwrap().parse::<u32>().unwrap()
        };
        // Else what cannot be read would be forgotten before it is a dead letter: a delay, and a delivery more than allowed.
        assert!(number("MessageRetentionPeriod: ") > 900 + (number("maxReceiveCount: ") + 1) * longest);
    }
    for function in ["PollerFunction", "SqsWorkerFunction"] {
        assert!(
            resource(function).contains("Timeout: !Ref PollerTimeout"),
            "a kind that one may run, the other may"
        );
    }
}

#[test]
fn without_sqs_nothing_of_it_is_deployed_and_each_role_may_only_what_it_does() {
    let of_sqs =
        ["WakeQueue", "HelpQueue", "WakeDeadLetters", "SqsWorkerFunction", "SqsWorkerRole", "SqsWorkerLog"];
    let alarms = ["WakeUpsUnreadable", "WakeUpsLate", "WakeUpsNotSent", "WakeUpsFailed", "SqsWorkerErrors"];
    for name in of_sqs.iter().chain(&alarms) {
        assert!(resource(name).contains("Condition: HasSqs"), "{name}");
    }
    for queue in ["WakeQueue", "HelpQueue", "WakeDeadLetters", "UndeliveredTicks"] {
        assert!(resource(queue).contains("SqsManagedSseEnabled: true"), "{queue}");
    }
    for sender in ["ApiRole", "PollerRole"] {
        let role = resource(sender);
        assert!(
            role.contains("- HasSqs")
                && role.matches("sqs:").count() == 1
                && role.contains("sqs:SendMessage")
        );
    }
    let worker = resource("SqsWorkerRole");
    assert!(
        worker.contains("sqs:ReceiveMessage, sqs:DeleteMessage, sqs:GetQueueAttributes")
            && !worker.contains("sqs:Send")
    );
    for role in ["ApiRole", "PollerRole", "SqsWorkerRole"] {
        assert!(!resource(role).contains("sqs:*") && !resource(role).contains("secretsmanager:*"), "{role}");
    }
}
