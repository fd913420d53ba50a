//! `punchcard accounts`: erases an account, and writes out everything that there is of one (ADR 21).

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use shared::db::{
    Db,
    accounts::{Erasure, ExportPlace},
};
use uuid::Uuid;

use crate::{Failure, output, show, soon};

/// How often somebody else's step is waited for, half a second each.
const PATIENCE: u32 = 20;

#[derive(Subcommand)]
pub(crate) enum Accounts {
    /// Close an account for good, and clear what its users and workers wrote: inputs, outputs, metadata, tags, webhooks, error
    /// texts and idempotency keys. Its entries stay. Exits with 0 once nothing is left; until then
    /// ticks go on, and so does this command when it is run again.
    Erase {
        account: Uuid,
        /// Do it; without this, only say what would be done. Needless to go on with one that was begun.
        #[arg(long)]
        yes: bool,
    },
    /// Write out everything that there is of an account, a JSON object to a line.
    Export {
        account: Uuid,
        /// To this file; one that an earlier run left unfinished is gone on with. Without it, to standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

pub(crate) async fn run(db: &Db, command: Accounts) -> Result<(), Failure> {
    match command {
        Accounts::Erase { account, yes } => erase(db, account, yes).await,
        Accounts::Export { account, out: None } => {
            let said = |page: &str| {
                output::text(page);
                Ok(())
            };
            export(db, account, ExportPlace::default(), said).await
        }
        Accounts::Export { account, out: Some(path) } => export_to(db, account, &path).await,
    }
}

async fn erase(db: &Db, account: Uuid, yes: bool) -> Result<(), Failure> {
    let jobs = db.count_jobs(account, soon()).await?;
    if !yes && db.erasure(account, soon()).await?.is_none() {
        let known = db.account(account, soon()).await?.ok_or("there is no such account")?;
        println!("would close account {account} for good, and clear the payloads of its {jobs} jobs");
        println!(
            "{} of them are unfinished and would be canceled, but for those that may not be any more; it has {} credits \
             free and {} held, which stay in the books",
            known.unfinished_jobs, known.available, known.held
        );
        return Err("nothing was done: say --yes to do it".into());
    }
    let mut erasure = db.erase_account(account, soon()).await?;
    let bar = ProgressBar::new(u64::try_from(jobs).unwrap_or_default());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} jobs, {eta} left") {
        bar.set_style(style);
    }
    let mut still = 0;
    while erasure.done_at.is_none() && still < PATIENCE {
        bar.set_position(u64::try_from(erasure.jobs).unwrap_or_default());
        let more = db.erase_payloads(account, soon()).await?;
        let before = std::mem::replace(&mut erasure, db.erase_account(account, soon()).await?);
        if more || erasure != before {
            still = 0;
        } else if erasure.error.is_some() {
            break;
        } else {
            // A tick, or who died of it, is at this step.
            still += 1;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    bar.finish_and_clear();
    show(&erasure)?;
    match erasure {
        Erasure { done_at: Some(_), jobs, keys, messages, .. } => {
            println!(
                "erased: {jobs} jobs, {keys} idempotency keys, {messages} messages that were never delivered"
            );
            Ok(())
        }
        Erasure { error: Some(why), .. } => {
            Err(format!("closed, but not erased yet: {why}; ticks go on in some minutes").into())
        }
        Erasure { .. } => Err("closed, but not erased yet: a tick is at it".into()),
    }
}

/// Writes the pages from one on.
async fn export(
    db: &Db,
    account: Uuid,
    from: ExportPlace,
    mut write: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let mut place = Some(from);
    while let Some(from) = place {
        let page = db.export(account, from, soon()).await?;
        write(&page.text(|next| next.to_string()))?;
        place = page.next;
    }
    Ok(())
}

async fn export_to(db: &Db, account: Uuid, path: &Path) -> Result<(), Failure> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    if db.account(account, soon()).await?.is_none() {
        return Err("there is no such account".into());
    }
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(named)?;
    let from = match Left::of(&file).map_err(named)? {
        Left::Nothing => ExportPlace::default(),
        Left::Other => return Err(format!("{}: is no export", path.display()).into()),
        Left::Part { account: of, .. } | Left::All { account: of } if of != account => {
            return Err(format!("{}: is an export of account {of}", path.display()).into());
        }
        Left::All { .. } => {
            return Err(format!("{}: is whole already: remove it to export anew", path.display()).into());
        }
        // What is behind it is gone.
        Left::Part { is_open: true, .. } if db.erasure(account, soon()).await?.is_some() => {
            return Err(format!(
                "{}: ends where the account was erased; remove it to export what is left",
                path.display()
            )
            .into());
        }
        Left::Part { from, length, .. } => {
            // What is behind the last whole page is written again.
            file.set_len(length).map_err(named)?;
            from
        }
    };
    file.seek(SeekFrom::End(0)).map_err(named)?;
    let bar = ProgressBar::new_spinner().with_message(format!("writing {}", path.display()));
    bar.enable_steady_tick(Duration::from_millis(200));
    let written = export(db, account, from, |page| file.write_all(page.as_bytes())).await;
    bar.finish_and_clear();
    written?;
    println!("wrote {}", path.display());
    Ok(())
}

/// What an earlier run left in a file.
#[derive(Debug, PartialEq)]
enum Left {
    Nothing,
    /// Something else.
    Other,
    /// Up to here, and where to go on.
    Part {
        account: Uuid,
        /// It was not erased then.
        is_open: bool,
        from: ExportPlace,
        length: u64,
    },
    All {
        account: Uuid,
    },
}

impl Left {
    fn of(file: &File) -> std::io::Result<Self> {
        #[derive(Deserialize)]
        struct Line<'a> {
            r#type: &'a str,
            next_cursor: Option<&'a str>,
            account_id: Option<Uuid>,
            erased_at: Option<&'a str>,
        }
        let mut reader = BufReader::new(file);
        let (mut bytes, mut read, mut account, mut left) = (Vec::new(), 0, None, Self::Nothing);
        let mut is_open = false;
        while reader.by_ref().read_until(b'\n', &mut bytes)? > 0 {
            // One that was cut off has no end.
            if bytes.last() != Some(&b'\n') {
                break;
            }
            read += bytes.len() as u64;
            // Lines that say where to go on are short: others need not be read.
            if account.is_none() || bytes.len() < 300 {
                let line: Option<Line<'_>> = serde_json::from_slice(&bytes).ok();
                if let (None, Some(first)) = (account, &line) {
                    account = first.account_id;
                    is_open = first.erased_at.is_none();
                }
                match (account, line) {
                    (None, _) => return Ok(Self::Other),
                    (Some(account), Some(Line { r#type: "end", .. })) => left = Self::All { account },
                    (Some(account), Some(Line { r#type: "cursor", next_cursor: Some(cursor), .. })) => {
                        let Ok(from) = cursor.parse() else { return Ok(Self::Other) };
                        left = Self::Part { account, is_open, from, length: read };
                    }
                    _ => {}
                }
            }
            bytes.clear();
        }
        Ok(match left {
            Self::Nothing if read > 0 || !bytes.is_empty() => Self::Other,
            left => left,
        })
    }
}
