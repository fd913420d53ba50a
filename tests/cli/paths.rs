//! What a role may create in a schema of the path, and would fit a call better than PostgreSQL's own function does
//! (CVE-2018-1058), runs in no command of the operator's.

use serde_json::json;
use uuid::Uuid;

use super::{at, said};
use crate::support::{Bench, OWNER, as_role, connect};

/// Functions of PostgreSQL's that take anything: name, arguments and result of a better fit, and how it does the same.
const BETTER: &[(&str, &str, &str, &str)] = &[
    ("cardinality", "uuid[]", "integer", "RETURN pg_catalog.cardinality($1)"),
    ("cardinality", "text[]", "integer", "RETURN pg_catalog.cardinality($1)"),
    ("unnest", "uuid[]", "SETOF uuid", "RETURN QUERY SELECT pg_catalog.unnest($1)"),
    ("unnest", "text[]", "SETOF text", "RETURN QUERY SELECT pg_catalog.unnest($1)"),
    ("format", "text, text", "text", "RETURN pg_catalog.format($1, $2)"),
    ("format", "text, name", "text", "RETURN pg_catalog.format($1, $2)"),
    ("format", "text, regprocedure", "text", "RETURN pg_catalog.format($1, $2)"),
    ("format", "text, text, text", "text", "RETURN pg_catalog.format($1, $2, $3)"),
    ("format", "text, text, name", "text", "RETURN pg_catalog.format($1, $2, $3)"),
    ("format", "text, regprocedure, name", "text", "RETURN pg_catalog.format($1, $2, $3)"),
    ("format", "text, text, text, text", "text", "RETURN pg_catalog.format($1, $2, $3, $4)"),
    ("array_to_string", "text[], text", "text", "RETURN pg_catalog.array_to_string($1, $2)"),
    ("array_position", "text[], text", "integer", "RETURN pg_catalog.array_position($1, $2)"),
    ("json_build_object", "text, text", "json", "RETURN pg_catalog.json_build_object($1, $2)"),
    ("to_json", "text", "json", "RETURN pg_catalog.to_json($1)"),
];
/// The same of operators, by the types on both sides.
const OPERATORS: &[(&str, &str)] =
    &[("text", "bigint"), ("text", "integer"), ("text", "name"), ("text", "uuid")];

/// Makes all of it, as any role may where CREATE on `public` is everybody's: PostgreSQL's default up to 14.
async fn set_traps(bench: &Bench) {
    bench.sql("CREATE SEQUENCE public.sprung; GRANT ALL ON SEQUENCE public.sprung TO PUBLIC").await;
    bench.sql("GRANT ALL ON SCHEMA public TO PUBLIC").await;
    let spring = "PERFORM pg_catalog.nextval('public.sprung')";
    for (name, arguments, result, same) in BETTER {
        bench
            .sql(&format!(
                "CREATE FUNCTION public.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql
                 AS $$ BEGIN {spring}; {same}; END $$"
            ))
            .await;
    }
    for (left, right) in OPERATORS {
        bench
            .sql(&format!(
                "CREATE FUNCTION public.joined({left}, {right}) RETURNS text LANGUAGE plpgsql
                 AS $$ BEGIN {spring}; RETURN pg_catalog.concat($1, $2); END $$;
                 CREATE OPERATOR public.|| (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.joined)"
            ))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_others_created_in_the_path_runs_in_a_command() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    bench.enqueue(account, "qr.svg", 2).await;
    bench.post(account, json!({ "kind": "qr.svg", "input": 7 }), None).await;
    bench
        .sql(&format!(
            "CREATE TABLE public.tasks (id bigserial PRIMARY KEY, account_id uuid NOT NULL, status text NOT NULL DEFAULT 'queued',
                 payload json NOT NULL DEFAULT '{{}}', created_at timestamptz NOT NULL DEFAULT now());
             INSERT INTO public.tasks (account_id) VALUES ('{}');
             GRANT SELECT, UPDATE ON public.tasks TO {OWNER}",
            Uuid::new_v4()
        ))
        .await;
    bench.allow_temporary(OWNER).await;
    // As of a role that was not made by `punchcard roles`.
    let path =
        format!("ALTER ROLE {OWNER} IN DATABASE {} SET search_path = \"$user\", public", bench.database);
    bench.sql(&path).await;
    set_traps(&bench).await;
    let account = account.to_string();
    let import = ["import", "--from", "tasks", "--kind", "qr.svg", "--price", "1", "--pause", "0"];
    let commands: &[&[&str]] = &[
        &["jobs", "list", &account],
        &["jobs", "failed"],
        &["jobs", "redrive", "qr.svg", "--dry-run"],
        &["credits", "show", &account],
        &["credits", "audit"],
        &["limits", "show"],
        &["tokens", "list"],
        &["tokens", "create", "--scope", "operate", "ci"],
        &["webhooks", "failed"],
        &["doctor"],
        &["doctor", "--grants"],
        &import,
    ];
    let sprung = "SELECT (CASE WHEN is_called THEN last_value ELSE 0 END)::bigint FROM public.sprung";
    let owner = as_role(&bench.direct_url, OWNER);
    for url in [&owner, &bench.direct_url] {
        for command in commands {
            let output = at(url, command);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let done = output.status.success() || command[0] == "doctor" || text.contains("already");
            assert!(done, "{command:?}: {text}");
            assert_eq!(bench.count(sprung).await, 0, "{command:?}");
        }
    }
    said(&at(&bench.direct_url, &["roles"]));
    assert_eq!(bench.count(sprung).await, 0, "roles");
    // They do spring where the path has them.
    connect(&owner)
        .await
        .query_typed("SELECT cardinality('{}'::uuid[]), format('%s', 'a'::name)", &[])
        .await
        .unwrap();
    assert!(bench.count(sprung).await >= 2);
    bench.assert_audit_is_clean().await;
}
