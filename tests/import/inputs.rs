//! What the jobs' inputs are is known, or said: a job that gets `{}` for its input is no use to anybody.

use serde_json::json;
use uuid::Uuid;

use super::{lines_with, old_table, refused, said, with};
use crate::support::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn inputs_in_several_columns_are_asked_for_and_come_as_an_object() {
    let bench = Bench::new().await;
    let account = Uuid::new_v4();
    old_table(&bench, &[account], 20).await;
    bench
        .sql(
            "ALTER TABLE public.jobs DROP payload, ADD text text DEFAULT 'hello', ADD \"Size\" integer DEFAULT 3, ADD extra jsonb DEFAULT '{\"a\":[1]}',
                 ADD \"x+y\" text DEFAULT '[7]'",
        )
        .await;
    for more in [&["--dry-run"][..], &["--pause", "0"]] {
        let line = refused(&bench, &with(more)).await;
        lines_with(
            &line,
            &[
                "no column is the input, and every job would get {}",
                "--no-input",
                "extra (jsonb: perhaps an input), text, Size",
            ],
        );
    }
    for (map, why) in [
        ("input=text+nothing", "has no column nothing"),
        ("input=text+text", "text is said twice"),
        ("output=text+extra", "has no column text+extra"),
        ("input=text,input=extra", "input is said twice"),
    ] {
        lines_with(&refused(&bench, &with(&["--map", map])).await, &[why]);
    }
    lines_with(&refused(&bench, &with(&["--map", "input=text", "--no-input"])).await, &["say one of them"]);
    for none in [&["--no-input"][..], &["--map", "input="]] {
        lines_with(
            &said(&bench, &with(&[none, &["--dry-run"]].concat())).await,
            &["dry run: nothing has changed"],
        );
    }
    lines_with(&said(&bench, &with(&["--map", "input=x+y", "--dry-run"])).await, &["mapped: input=x+y"]);
    let plan = said(&bench, &with(&["--map", "input=text+Size+extra", "--dry-run"])).await;
    lines_with(&plan, &["mapped: input=text+Size+extra", "columns left out: x+y"]);
    said(&bench, &with(&["--map", "input=text+Size+extra", "--pause", "0"])).await;
    let page = bench.get(account, "/api/jobs?status=queued&limit=1&include=input").await;
    assert_eq!(page.body["data"][0]["input"], json!({ "text": "hello", "Size": 3, "extra": { "a": [1] } }));
    bench.drain().await;
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_whose_input_is_null_are_counted_and_odd_ids_and_inputs_do_not_stop_the_others() {
    let bench = Bench::new().await;
    let account = Uuid::new_v4();
    bench
        .sql(&format!(
            "CREATE TABLE public.jobs (id numeric PRIMARY KEY, user_id uuid, status text, type text DEFAULT 'qr.svg', data text);
             INSERT INTO public.jobs (id, user_id, status, data) VALUES
                 (1, '{account}', 'queued', NULL), (99999999999999999999999999, '{account}', 'queued', '{{\"text\":\"t\"}}'),
                 (0.5, '{account}', 'queued', '{{\"text\":\"t\"}}'), ('NaN', '{account}', 'queued', '{{\"text\":\"t\"}}'),
                 (5, '{account}', 'queued', 'plain'), (6, '{account}', 'queued', '\"\\u0000\"'),
                 (7, '{account}', 'queued', '\"' || repeat('x', 65535) || '\"'), (8, '{account}', 'queued', '\"' || repeat('x', 65534) || '\"')"
        ))
        .await;
    let done = said(&bench, &with(&["--pause", "0"])).await;
    lines_with(
        &done,
        &[
            "without an input, which get {}: 1",
            "skipped 1: its input is not JSON: 5",
            "skipped 1: its input contains \\u0000: 6",
            "skipped 1: its input has more than 65,536 bytes: 7",
            "imported: 0 as history, 5 to be run",
        ],
    );
    lines_with(&said(&bench, &with(&["--pause", "0"])).await, &["in Punchcard already: 5"]);
    bench.assert_audit_is_clean().await;
}
