//! All SQL there is, as text: what means one thing under every setting, and what a careless hand could leave out.

use std::{fs, path::Path};

/// Every text with SQL in it: name and text. Of the documents what is fenced as SQL.
fn texts() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            let read = || fs::read_to_string(&path).unwrap();
            if path.is_dir() {
                walk(&path, found);
            } else if name.ends_with(".sql") {
                found.push((name, read()));
            } else if name.ends_with(".md") {
                let fenced = read();
                for (n, rest) in fenced.split("```sql\n").skip(1).enumerate() {
                    found.push((format!("{name}#{n}"), rest.split("```").next().unwrap().to_owned()));
                }
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for folder in ["infra/migrations", "infra/functions", "infra/cli/src", "shared/src", "docs"] {
        walk(&root.join(folder), &mut found);
    }
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let fenced = readme.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    found.extend(fenced.map(|sql| ("README.md".to_owned(), sql)));
    assert!(found.len() > 90, "{}", found.len());
    found
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A word or a number, in upper case; or a dollar quote, since what is in a function's body is SQL too.
    Word(String),
    /// A string, as it stands between its quotes; whether it is `E'…'`.
    String(String, bool),
    /// Any other character.
    Mark(char),
}

/// Reads SQL as PostgreSQL does, as far as words, strings and comments go.
fn tokens(sql: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("$$") {
            found.push(Token::Word("$$".into()));
            2
        } else if first == '\'' {
            let escaped = found.last() == Some(&Token::Word("E".into()));
            let mut end = 1;
            let bytes = rest.as_bytes();
            while bytes[end] != b'\'' || bytes.get(end + 1) == Some(&b'\'') {
                end += if bytes[end] == b'\'' || (escaped && bytes[end] == b'\\') { 2 } else { 1 };
            }
            found.push(Token::String(rest[1..end].to_owned(), escaped));
            end + 1
        } else if first == '"' {
            let end = rest[1..].find('"').unwrap_or(rest.len() - 2) + 2;
            found.push(Token::Word(rest[1..end - 1].to_owned()));
            end
        } else if word(first) {
            let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
            found.push(Token::Word(rest[..end].to_uppercase()));
            end
        } else {
            if !first.is_whitespace() {
                found.push(Token::Mark(first));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    found
}

fn is(token: Option<&Token>, word: &str) -> bool {
    token == Some(&Token::Word(word.into()))
}

/// Whether the statement that begins at `at` has a WHERE of its own: in no sub-select, and before its end.
fn has_where(tokens: &[Token], at: usize) -> bool {
    let mut depth = 0;
    for token in &tokens[at..] {
        match token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') if depth == 0 => return false,
            Token::Mark(')') => depth -= 1,
            Token::Mark(';') if depth == 0 => return false,
            Token::Word(word) if word == "$$" => return false,
            Token::Word(word) if depth == 0 && word == "WHERE" => return true,
            _ => {}
        }
    }
    false
}

/// What changes all rows of a table at once; safeupdate refuses it, and rightly.
fn without_where(sql: &str) -> Vec<String> {
    let tokens = tokens(sql);
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        let changes = (is(tokens.get(at), "DELETE") && is(tokens.get(at + 1), "FROM"))
            // Not FOR UPDATE, DO UPDATE SET, BEFORE UPDATE OR …, GRANT …, UPDATE ON: those name no table to be changed next.
            || (is(tokens.get(at), "UPDATE")
                && !["FOR", "KEY", "DO", "BEFORE", "AFTER", "OR"].iter().any(|word| is(before, word))
                && match tokens.get(at + 1) {
                    Some(Token::Word(word)) => !["ON", "OR", "OF"].contains(&word.as_str()),
                    following => following == Some(&Token::Mark('%')),
                });
        if changes && !has_where(&tokens, at) {
            found.push(format!("{:?}", &tokens[at..tokens.len().min(at + 6)]));
        }
    }
    // What is put together at run time is SQL too.
    for token in &tokens {
        if let Token::String(text, _) = token
            && ["UPDATE ", "DELETE FROM "].iter().any(|word| text.starts_with(word))
        {
            found.extend(without_where(text));
        }
    }
    found
}

#[test]
fn nothing_changes_all_rows_of_a_table_at_once() {
    assert_eq!(without_where("DELETE FROM a.b; SELECT 1 WHERE true").len(), 1);
    assert_eq!(without_where("WITH x AS (DELETE FROM b RETURNING 1) SELECT 1 FROM x WHERE true").len(), 1);
    assert_eq!(without_where("UPDATE b SET c = (SELECT 1 WHERE true)").len(), 1);
    assert_eq!(without_where("EXECUTE format('UPDATE %s SET x = 1', t)").len(), 1);
    assert!(
        without_where("SELECT 1 FOR UPDATE; INSERT INTO a VALUES (1) ON CONFLICT (b) DO UPDATE SET c = 1")
            .is_empty()
    );
    assert!(without_where("GRANT SELECT, UPDATE ON a TO b; DELETE FROM a WHERE only_one").is_empty());
    for (name, sql) in texts() {
        assert_eq!(without_where(&sql), Vec::<String>::new(), "{name}: it needs a WHERE");
    }
}

/// Such a string means something else where `standard_conforming_strings` is off, also in a function that was made while it
/// was on: bodies are read when they are called.
#[test]
fn a_backslash_stands_doubled_in_an_e_string() {
    let plain = |sql: &str| -> Vec<String> {
        let strings = tokens(sql).into_iter().filter_map(|token| match token {
            Token::String(text, false) if text.contains('\\') => Some(text),
            _ => None,
        });
        strings.collect()
    };
    assert_eq!(plain(r"SELECT '\x', E'\\x', 'it''s' -- '\y'"), [r"\x"]);
    for (name, sql) in texts() {
        assert_eq!(plain(&sql), Vec::<String>::new(), "{name}: write E'\\\\…'");
    }
}

#[test]
fn no_line_is_wider_than_110_columns() {
    let wide = |(name, sql): &(String, String)| {
        let lines = sql.lines().enumerate().filter(|(_, line)| line.chars().count() > 110);
        lines.map(|(n, _)| format!("{name}:{}", n + 1)).collect::<Vec<_>>()
    };
    let files = texts().into_iter().filter(|(name, _)| name.ends_with(".sql"));
    let wide: Vec<String> = files.flat_map(|file| wide(&file)).collect();
    assert!(wide.is_empty(), "{wide:?}");
}

/// Whoever copies an example copies its pin: without `pg_temp` at its end, a caller's temporary types run as the owner.
#[test]
fn no_path_leaves_pg_temp_out_or_names_it_first() {
    let mut paths = 0;
    for (name, sql) in texts() {
        // The import's are temporary themselves.
        let sql = sql.replace("CREATE OR REPLACE FUNCTION", "CREATE FUNCTION");
        let functions =
            sql.split("CREATE FUNCTION ").skip(1).filter(|function| !function.starts_with("pg_temp."));
        for function in functions {
            let header = function.split("AS $$").next().unwrap();
            let path = header.split_once("SET search_path = ").map(|(_, path)| path);
            if let Some(path) = path {
                assert!(path.starts_with("pg_catalog, pg_temp"), "{name}: {header}");
                paths += 1;
            }
            assert!(path.is_some() || !header.contains("SECURITY DEFINER"), "{name}: {header}");
            assert!(path.is_some() || !header.contains("RETURNS trigger"), "{name}: {header}");
        }
        for set in ["SET search_path = ''", "SET search_path TO ''", "set_config('search_path', ''"] {
            assert!(!sql.contains(set), "{name}: {set}");
        }
    }
    assert!(paths > 30, "{paths}");
}

/// Whether a text changes rows that it finds by a sub-select with `UNION` (`infra/migrations/README.md`).
fn drops_touched_rows(sql: &str) -> bool {
    let tokens = tokens(sql);
    let word = |at: usize, words: &[&str]| match &tokens[at] {
        Token::Word(word) => words.contains(&word.as_str()),
        _ => false,
    };
    (0..tokens.len()).any(|begin| {
        // Not a lock, a clause of an INSERT, a trigger or a privilege.
        let elsewhere = ["KEY", "FOR", "DO", "BEFORE", "AFTER", "OR", "GRANT", "REVOKE", "ON"];
        if !word(begin, &["UPDATE", "DELETE"]) || (begin > 0 && word(begin - 1, &elsewhere)) {
            return false;
        }
        let mut depth = 0;
        for (at, token) in tokens.iter().enumerate().skip(begin) {
            match token {
                Token::Mark('(') => depth += 1,
                Token::Mark(')') => depth -= 1,
                Token::Word(_) if word(at, &["UNION", "INTERSECT", "EXCEPT"]) => return true,
                _ => {}
            }
            if depth < 0 || *token == Token::Mark(';') {
                return false;
            }
        }
        false
    })
}

#[test]
fn what_changes_rows_finds_none_by_a_sub_select_that_would_drop_touched_ones() {
    for (sql, found) in [
        ("DELETE FROM q USING (SELECT a FROM v UNION ALL SELECT b FROM w) x WHERE q.a = x.a", true),
        ("WITH d AS (UPDATE q SET b = x.b FROM (SELECT 1 AS b UNION SELECT 2) x) SELECT", true),
        (
            "WITH x AS MATERIALIZED (SELECT 1 UNION ALL SELECT 2), d AS (DELETE FROM q USING x) SELECT 1",
            false,
        ),
        ("SELECT FROM q FOR NO KEY UPDATE; SELECT 1 UNION SELECT 2", false),
    ] {
        assert_eq!(drops_touched_rows(sql), found, "{sql}");
    }
    let found: Vec<String> =
        texts().into_iter().filter(|(_, sql)| drops_touched_rows(sql)).map(|(name, _)| name).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// Where a function joins a table that empties all the time by `=` with a row of another: `alias.key = other.key`.
fn joins_by_equality(sql: &str) -> Vec<String> {
    let mut found = Vec::new();
    for table in ["queue", "outbox", "deferred_entries"] {
        for verb in ["JOIN", "UPDATE", "DELETE FROM"] {
            let begins = format!("{verb} punchcard.{table} ");
            for (at, _) in sql.match_indices(&begins) {
                let rest = &sql[at + begins.len()..];
                let alias: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
                let statement = rest.split("RETURNING").next().unwrap_or(rest);
                let statement = statement.split("\n    )").next().unwrap_or(statement);
                for key in ["job_id", "id"] {
                    let compared = format!(" {alias}.{key} = ");
                    for (n, _) in statement.match_indices(&compared) {
                        let mut other = statement[n + compared.len()..].chars();
                        let (name, dot) = (other.next(), other.next());
                        if name.is_some_and(|name| name.is_ascii_lowercase()) && dot == Some('.') {
                            found.push(format!(
                                "{begins}… {compared}{}",
                                &statement[n + compared.len()..][..8]
                            ));
                        }
                    }
                }
            }
        }
    }
    found
}

/// A vacuum that finds such a table empty leaves its pages and counts no row: the planner takes it for one row until it is analyzed
/// again, and reads all of its key for each row of the other. `= ANY (ARRAY[…])` can only be looked up.
#[test]
fn what_empties_all_the_time_is_joined_by_what_can_only_be_looked_up() {
    assert_eq!(
        joins_by_equality("UPDATE punchcard.queue q SET x = 1 FROM v WHERE q.job_id = v.job_id").len(),
        1
    );
    assert_eq!(joins_by_equality("v JOIN punchcard.outbox b ON b.id = ANY (ARRAY[v.id])").len(), 0);
    for (name, sql) in texts().iter().filter(|(name, _)| name.contains("infra/functions")) {
        assert_eq!(joins_by_equality(sql), Vec::<String>::new(), "{name}");
    }
}

/// Functions that PostgreSQL parses and plans for each call, and may: they are called seldom.
const PLANNED_EACH_TIME: &[&str] = &[
    "access",
    "before_name",
    "drawable",
    "entries_to_carry",
    "everybody_else",
    "grant_credits",
    "increment_user_credits",
    "months_before",
    "rotate_webhook_secret",
    "wanted_periods",
];

#[test]
fn no_function_that_is_called_often_is_planned_for_each_call() {
    let all = texts();
    let functions = all.iter().filter(|(name, _)| name.contains("infra/functions"));
    let mut rows = Vec::new();
    for (file, sql) in functions.clone() {
        let name = file.rsplit('/').next().unwrap().trim_end_matches(".sql");
        let head = sql.split("$$").next().unwrap();
        if !head.contains("LANGUAGE sql") {
            continue;
        }
        let replaces_its_call = !head.contains(" SET ") && !head.contains("SECURITY DEFINER");
        assert_eq!(!replaces_its_call, PLANNED_EACH_TIME.contains(&name), "{name}");
        if replaces_its_call && (head.contains("RETURNS SETOF") || head.contains("RETURNS TABLE")) {
            rows.push(name);
        }
    }
    assert!(rows.contains(&"served_kinds"), "{rows:?}");
    for (file, sql) in functions {
        for name in &rows {
            assert!(!sql.contains(&format!("SELECT punchcard.{name}(")), "{file}: {name} stands in FROM");
        }
    }
}
