//! Nothing that a low role can create runs as the owner: not its temporary domains, tables, functions, operators or casts.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::{APP, Bench, OWNER, as_role, connect};

/// The functions of both schemas: name, whether it runs as its owner, whether it is a trigger's, its path, the types of its
/// arguments, how it is written, who may call it, and its schema. But for those whose text is parsed for good when they are made.
const FUNCTIONS: &str =
    "SELECT p.oid::regprocedure::text, p.proname::text, p.prosecdef, p.prorettype = 'trigger'::regtype,
       coalesce((SELECT substr(c, 13) FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%'), ''),
       ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) t), p.prosrc,
       ARRAY(SELECT r.rolname::text FROM pg_roles r
             WHERE r.rolname IN ('anon', 'authenticated', 'service_role', 'punchcard_app')
               AND has_function_privilege(r.oid, p.oid, 'EXECUTE')), n.nspname::text
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname IN ('punchcard', 'punchcard_api') AND p.prosqlbody IS NULL ORDER BY p.prosecdef, p.proname";

#[tokio::test(flavor = "multi_thread")]
async fn every_function_that_others_reach_has_a_path_that_ends_in_pg_temp() {
    let bench = Bench::new().await;
    let (mut definers, mut triggers) = (0, 0);
    for row in bench.rows(FUNCTIONS).await {
        let (name, definer, trigger) =
            (row.get::<_, String>(0), row.get::<_, bool>(2), row.get::<_, bool>(3));
        let (path, source) = (row.get::<_, String>(4), row.get::<_, String>(6));
        definers += i32::from(definer);
        triggers += i32::from(trigger);
        if path == "pg_catalog, pg_temp" {
            continue;
        }
        assert!(
            path.is_empty() && !definer && !trigger,
            "{name}: SET search_path = pg_catalog, pg_temp, not {path}"
        );
        // It runs with the path of whoever calls it. Types that it declares are looked for once in a session.
        assert_eq!(
            row.get::<_, Vec<String>>(7),
            Vec::<String>::new(),
            "{name} has no pin and may be called by others"
        );
        let declared =
            source.split_once("DECLARE").map_or("", |(_, rest)| rest.split("BEGIN").next().unwrap_or(rest));
        for line in declared.lines().filter(|line| !line.trim().is_empty()) {
            let keywords = ["bigint", "integer", "smallint", "boolean", "numeric"];
            let by_keyword = keywords.iter().any(|word| line.trim().trim_end_matches(';').ends_with(word));
            assert!(by_keyword, "{name} has no pin: its type is looked for in pg_temp: {line}");
        }
    }
    assert!(definers >= 18 && triggers >= 2, "{definers} {triggers}");
}

/// Types that a domain of the same name can stand for. Those that are keywords (`bigint`) are never looked for elsewhere, but
/// have other names.
const TYPES: &[&str] = &[
    "text",
    "uuid",
    "json",
    "jsonb",
    "bytea",
    "int2",
    "int4",
    "int8",
    "numeric",
    "bool",
    "float8",
    "timestamptz",
    "interval",
    "name",
    "oid",
    "regclass",
    "regtype",
    "regprocedure",
    "regproc",
    "regrole",
    "varchar",
    "date",
];

/// What the functions name or might, if a path let them: each calls the trap.
const NAMES: &[&str] = &[
    "now()",
    "clock_timestamp()",
    "gen_random_uuid()",
    "jsonb_typeof(pg_catalog.jsonb)",
    "octet_length(pg_catalog.text)",
    "json_typeof(pg_catalog.json)",
    "cardinality(pg_catalog.anyarray)",
    "concat_ws(pg_catalog.text, pg_catalog.text)",
    "length(pg_catalog.text)",
    "current_setting(pg_catalog.text)",
    "quote_ident(pg_catalog.text)",
];

/// Temporary objects that run what is told to run only if the owner runs it, under the names of everything else.
async fn set_traps(client: &Client, relations: &[String], as_owner: &str) {
    client
        .batch_execute(&format!(
            "CREATE FUNCTION pg_temp.trap() RETURNS pg_catalog.bool LANGUAGE plpgsql AS $f$ BEGIN
                 IF current_user = '{OWNER}' THEN PERFORM pg_catalog.nextval('public.sprung'); {as_owner} END IF;
                 RETURN true;
             END $f$;
             CREATE FUNCTION pg_temp.trap(v pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE sql AS 'SELECT pg_temp.trap()';
             CREATE FUNCTION pg_temp.trap_row() RETURNS trigger LANGUAGE plpgsql
                 AS 'BEGIN PERFORM pg_temp.trap(); RETURN NEW; END'"
        ))
        .await
        .expect("the trap");
    for name in NAMES {
        let function = format!(
            "CREATE FUNCTION pg_temp.{name} RETURNS pg_catalog.text LANGUAGE sql AS 'SELECT pg_temp.trap()::pg_catalog.text'"
        );
        client.batch_execute(&function).await.expect(&function);
    }
    for relation in relations {
        let table = format!(
            "CREATE TEMPORARY TABLE {relation} (id pg_catalog.uuid, name pg_catalog.text);
             CREATE TRIGGER t BEFORE INSERT OR UPDATE ON pg_temp.{relation} FOR EACH ROW EXECUTE FUNCTION pg_temp.trap_row()"
        );
        client.batch_execute(&table).await.expect(&table);
    }
    for operator in ["=", "<>", "||", "->", "@>"] {
        let operator = format!(
            "CREATE FUNCTION pg_temp.by_operator(a pg_catalog.text, b pg_catalog.text) RETURNS pg_catalog.bool
                 LANGUAGE sql AS 'SELECT pg_temp.trap()';
             CREATE OPERATOR pg_temp.{operator} (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text,
                                                 FUNCTION = pg_temp.by_operator);
             ALTER FUNCTION pg_temp.by_operator RENAME TO by_operator_{}", operator.as_bytes()[0]
        );
        client.batch_execute(&operator).await.expect(&operator);
    }
    let cast = "CREATE TYPE pg_temp.sly AS (v pg_catalog.text);
         CREATE FUNCTION pg_temp.from_sly(pg_temp.sly) RETURNS pg_catalog.uuid LANGUAGE plpgsql
             AS 'BEGIN PERFORM pg_temp.trap(); RETURN ($1).v; END';
         CREATE CAST (pg_temp.sly AS pg_catalog.uuid) WITH FUNCTION pg_temp.from_sly(pg_temp.sly) AS IMPLICIT";
    client.batch_execute(cast).await.expect("a cast");
    // The last, since they shadow what the statements above name.
    for name in TYPES {
        let domain = format!(
            "CREATE DOMAIN pg_temp.{name} AS pg_catalog.{name} CHECK (pg_temp.trap(VALUE::pg_catalog.text))"
        );
        client.batch_execute(&domain).await.expect(&domain);
    }
    client.batch_execute("SET search_path = pg_temp, pg_catalog").await.expect("a path");
}

/// How each function is called so that it does its work; others are called with something of each type. `{a}` is an account
/// with credits, `{b}` one whose credits are the team's, `{queued}`, `{running}` and `{ended}` are jobs of `{a}`.
const CALLS: &[(&str, &str)] = &[
    (
        "enqueue",
        "('{a}', 'qr.svg', '{\"text\":\"x\"}', 'key-' || pg_catalog.random(), 1, pg_catalog.now(),
      '{\"tags\":[\"a\"],\"metadata\":{\"order\":\"7\"},\"retry\":{\"max_attempts\":2,\"jitter\":0.5},
        \"webhook\":{\"url\":\"https://example.com/\"}}')",
    ),
    ("enqueue", "('{a}', 'qr.svg', '{\"text\":\"x\"}', 'the same key')"),
    ("enqueue", "('{a}', 'qr.svg', '{\"text\":\"x\"}', 'the same key')"),
    ("enqueue", "('{b}', 'qr.svg', '{\"text\":\"x\"}')"),
    ("enqueue", "('{a}', 'qr.svg', '{\"text\":\"\\u0000\"}')"),
    ("enqueue", "(ROW('{a}')::pg_temp.sly, 'qr.svg', '{\"text\":\"x\"}')"),
    (
        "enqueue_batch",
        "('{a}', '[{\"kind\":\"qr.svg\",\"input\":{\"text\":\"x\"},\"tags\":[\"a\"],\"priority\":1},{\"kind\":\"free\",\"input\":null}]', 'batch')",
    ),
    (
        "enqueue_batch",
        "('{a}', '[{\"kind\":\"qr.svg\",\"input\":{\"text\":\"x\"},\"tags\":[\"a\"],\"priority\":1},{\"kind\":\"free\",\"input\":null}]', 'batch')",
    ),
    ("claim", "(2, ARRAY['qr.svg'], true, 60, 60, p_named => ARRAY['{queued}'::pg_catalog.uuid])"),
    (
        "settle",
        "(ARRAY['{running}'::pg_catalog.uuid], ARRAY[1], ARRAY['retry'], ARRAY[60], ARRAY[NULL], ARRAY['{\"code\":\"x\"}'])",
    ),
    ("rescue", "(10)"),
    (
        "check_in",
        "(ARRAY['{running}'::pg_catalog.uuid], ARRAY[1], ARRAY[50::smallint], ARRAY['half'], ARRAY['{}'])",
    ),
    ("call_back", "('{running}', 1, 'progress', p_message => 'half', p_percent => 50::smallint)"),
    ("cancel", "('{queued}', '{a}')"),
    ("retry", "('{ended}', '{a}')"),
    ("redrive", "('echo.http', p_account_id => '{a}')"),
    ("refund", "('{ended}', 'a present')"),
    ("grant_credits", "('{c}', 5, 'grant-' || pg_catalog.random(), 'a present')"),
    ("increment_user_credits", "('{c}', 5, 'adjust-' || pg_catalog.random(), NULL, 'a present')"),
    ("balance", "('{b}')"),
    ("set_webhook", "('{c}', 'https://example.com/', ARRAY['job.failed'])"),
    ("rotate_webhook_secret", "('{c}')"),
    ("claim_deliveries", "(10, 60)"),
    (
        "settle_deliveries",
        "(ARRAY['{a}'::pg_catalog.uuid], ARRAY['{a}'::pg_catalog.uuid], ARRAY[1::smallint], ARRAY['gone'], ARRAY[0], ARRAY['x'], ARRAY['https://example.com/'])",
    ),
    ("source_health", "()"),
    ("return_credits", "()"),
    (
        "use_credit_source",
        "('public.user_credits', 'user_id', 'credits', 'public.increment_user_credits', p_force => true)",
    ),
];

/// Something of a type, as the caller of a function would write it.
fn plausible(of_type: &str) -> String {
    let value = match of_type {
        "uuid" => "'{a}'::pg_catalog.uuid",
        "text" => "'qr.svg'::pg_catalog.text",
        "json" => "'{\"text\":\"x\"}'::pg_catalog.json",
        "jsonb" => "'{}'::pg_catalog.jsonb",
        "boolean" => "true",
        "bytea" => "'x'::pg_catalog.bytea",
        "timestamp with time zone" => "pg_catalog.now()",
        "smallint" | "integer" | "bigint" | "numeric" | "double precision" => return format!("1::{of_type}"),
        _ => {
            return format!(
                "NULL::{}",
                of_type.replace("uuid[]", "pg_catalog.uuid[]").replace("text[]", "pg_catalog.text[]")
            );
        }
    };
    value.to_owned()
}

/// A team's credits, so that purchases of `b` draw from there: its function names its table without a schema.
async fn with_a_source(bench: &Bench, b: Uuid) {
    bench
        .sql(&format!(
            "CREATE TABLE public.user_credits (user_id uuid PRIMARY KEY, credits integer NOT NULL CHECK (credits >= 0));
             INSERT INTO public.user_credits VALUES ('{b}', 1000);
             CREATE FUNCTION public.increment_user_credits(p_user_id uuid, p_amount integer) RETURNS text LANGUAGE plpgsql AS $$
             DECLARE there text;
             BEGIN
                 UPDATE user_credits SET credits = credits + p_amount WHERE user_id = p_user_id RETURNING credits INTO there;
                 RETURN there;
             END $$;
             GRANT SELECT, UPDATE ON public.user_credits TO {OWNER}; GRANT USAGE ON SCHEMA public TO {OWNER}"
        ))
        .await;
    let owner = connect(&as_role(&bench.direct_url, OWNER)).await;
    let take = "SELECT punchcard.use_credit_source('public.user_credits', 'user_id', 'credits', 'public.increment_user_credits', p_force => true)";
    owner.batch_execute(take).await.expect("a source");
}

/// All that a role can create is under the names of all that the functions name: they do as they do, and none of it runs as
/// their owner. The role may call even what nobody but the owner may, and calls the helpers first: what they look for once in
/// a session would be found where the role says.
async fn attack(role: &str) {
    let bench = Bench::new().await;
    let (a, b, c) = (bench.account(1000).await, Uuid::new_v4(), bench.account(0).await);
    with_a_source(&bench, b).await;
    bench.sql(&format!("SELECT punchcard.set_webhook('{a}', 'https://example.com/')")).await;
    // As the team might have it where there is a Realtime.
    connect(&as_role(&bench.direct_url, OWNER))
        .await
        .batch_execute("SELECT punchcard.set_realtime(true)")
        .await
        .unwrap();
    bench.enqueue(a, "qr.svg", 1).await;
    bench.sql("SELECT * FROM punchcard.claim(9, ARRAY['qr.svg'], true, 600, 600)").await;
    bench.enqueue(a, "echo.http", 1).await;
    bench.sql("SELECT punchcard.settle(ARRAY[job_id], ARRAY[lease_token], ARRAY['fail'], ARRAY[0], ARRAY[NULL], ARRAY['{\"code\":\"x\"}'])
               FROM punchcard.claim(9, ARRAY['echo.http'], true, 600, 600)").await;
    bench.enqueue(a, "qr.svg", 1).await;
    bench.sql(&format!(
        "CREATE SEQUENCE public.sprung; GRANT ALL ON SEQUENCE public.sprung TO PUBLIC; GRANT USAGE ON SCHEMA public TO PUBLIC;
         GRANT USAGE ON SCHEMA punchcard_api TO {role};
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA punchcard, punchcard_api TO {role}"
    )).await;
    bench.allow_temporary(role).await;
    let job = |status: &str| {
        format!("SELECT id::text FROM punchcard.jobs_now WHERE account_id = '{a}' AND status = '{status}'")
    };
    let mut named = BTreeMap::from([("{a}", a.to_string()), ("{b}", b.to_string()), ("{c}", c.to_string())]);
    for (name, status) in [("{queued}", "queued"), ("{running}", "running"), ("{ended}", "failed")] {
        named.insert(name, bench.rows(&job(status)).await[0].get(0));
    }
    let fill = |sql: &str| named.iter().fold(sql.to_owned(), |sql, (name, value)| sql.replace(name, value));

    let functions = bench.rows(FUNCTIONS).await;
    let relations = bench
        .rows(
            "SELECT quote_ident(relname) FROM pg_class
        WHERE relnamespace = 'punchcard'::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition AND relname <> 'name'",
        )
        .await;
    let relations: Vec<String> = relations.iter().map(|row| row.get(0)).collect();
    let client = connect(&bench.direct_url).await;
    client.batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).await.unwrap();
    let mint = format!("UPDATE punchcard.accounts SET available = 1000000 WHERE id = '{c}' AND share = 0;");
    set_traps(&client, &relations, &mint).await;

    let mut done = 0;
    for _ in 0..2 {
        for row in functions.iter().filter(|row| !row.get::<_, bool>(3)) {
            let (signature, name, definer) =
                (row.get::<_, String>(0), row.get::<_, String>(1), row.get::<_, bool>(2));
            let arguments = row.get::<_, Vec<String>>(5);
            let mut calls: Vec<String> =
                CALLS.iter().filter(|(it, _)| *it == name).map(|(_, call)| fill(call)).collect();
            if calls.is_empty() {
                let values: Vec<String> = arguments.iter().map(|of_type| fill(&plausible(of_type))).collect();
                calls.push(format!("({})", values.join(", ")));
            }
            for call in calls {
                let schema = row.get::<_, String>(8);
                let answer = client.batch_execute(&format!("SELECT * FROM {schema}.{name}{call}")).await;
                let code = answer
                    .as_ref()
                    .err()
                    .map(|error| error.code().map_or(String::new(), |it| it.code().to_owned()));
                // A function that runs as the owner does its work, or refuses by its rules; a helper may fail for want of rights.
                let worked = code.as_deref().is_none_or(|code| code.starts_with("PT"));
                assert!(worked || !definer, "{signature}: {call}: {answer:?}");
                done += i32::from(definer && code.is_none());
            }
        }
    }
    assert!(done > 30, "{done} calls did their work");
    let sprung = "SELECT (CASE WHEN is_called THEN last_value ELSE 0 END)::bigint FROM public.sprung";
    assert_eq!(bench.count(sprung).await, 0, "something of the caller's ran as the owner");
    let minted = format!("SELECT count(*) FROM punchcard.accounts WHERE id = '{c}' AND available > 20");
    assert_eq!(bench.count(&minted).await, 0);
    bench.assert_audit_is_clean().await;

    // The trap does spring: in a function of the owner's whose path is empty, and in a helper's declarations.
    bench.sql(&format!(
        "CREATE FUNCTION public.careless(p varchar) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
             AS 'DECLARE t text; BEGIN t := p; END';
         ALTER FUNCTION public.careless OWNER TO {OWNER}"
    )).await;
    client.batch_execute("SELECT public.careless('x')").await.unwrap();
    assert!(bench.count(sprung).await > 0, "the trap is none");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_the_functions_role_creates_runs_as_the_owner() {
    attack(APP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_the_service_role_creates_runs_as_the_owner() {
    attack("service_role").await;
}

/// The one that was found: a domain `text`, looked for in `pg_temp` although the path was empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_domain_mints_nothing() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let app = connect(&as_role(&bench.direct_url, APP)).await;
    let refused =
        app.batch_execute("CREATE DOMAIN pg_temp.text AS pg_catalog.text").await.expect_err("no TEMP");
    assert_eq!(refused.code().map(|code| code.code()), Some("42501"));
    bench.allow_temporary(APP).await;
    app.batch_execute(&format!(
        "CREATE FUNCTION pg_temp.evil(v pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN
           IF current_user <> session_user THEN UPDATE punchcard.accounts SET available = 1000000 WHERE id = '{account}' AND share = 0; END IF;
           RETURN true; END $f$;
         CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.evil(VALUE::pg_catalog.text))"
    )).await.unwrap();
    let buy = format!(
        "SELECT job_id FROM punchcard.enqueue('{account}', 'qr.svg', '{{\"text\":\"x\"}}', 'k', p_options => '{{\"tags\":[\"a\"]}}')"
    );
    app.batch_execute(&buy).await.expect("a purchase");
    assert_eq!(bench.balance(account).await, (9, 1));
    bench.assert_audit_is_clean().await;
}

/// The team's function that moves credits runs as the owner, in a session of the caller's.
#[tokio::test(flavor = "multi_thread")]
async fn a_credit_source_whose_path_begins_with_pg_temp_is_refused() {
    let bench = Bench::new().await;
    with_a_source(&bench, Uuid::new_v4()).await;
    let owner = connect(&as_role(&bench.direct_url, OWNER)).await;
    for path in ["pg_temp, public", "\"pg_temp\""] {
        let take = format!(
            "SELECT punchcard.use_credit_source('public.user_credits', 'user_id', 'credits', p_search_path => '{path}')"
        );
        let error = owner.batch_execute(&take).await.expect_err("refused");
        let detail = error.as_db_error().unwrap().detail().unwrap_or_default().to_owned();
        assert!(detail.contains("must not name pg_temp"), "{detail}");
    }
}
