//! `punchcard tokens`: the service tokens of the team's own backend.

use clap::Subcommand;
use shared::db::{
    Db,
    kinds::is_name,
    tokens::{TOKEN_PREFIX, token_hash},
};

use crate::{Failure, random_hex, show, soon};

#[derive(Subcommand)]
pub(crate) enum Tokens {
    /// Create a token and show it, this once.
    Create {
        /// Whose: 1 to 64 of a-z, 0-9, _, . and -.
        name: String,
        /// enqueue, grant or operate; repeatable.
        #[arg(long = "scope", required = true, value_parser = ["enqueue", "grant", "operate"])]
        scopes: Vec<String>,
    },
    /// List names and scopes.
    List,
    /// Revoke a name's token; of two, the one in a slot. It works for up to 30 s more.
    Revoke {
        name: String,
        /// 1 or 2, as `list` shows them.
        #[arg(long, value_parser = clap::value_parser!(i16).range(1..=2))]
        slot: Option<i16>,
        /// All that the name has.
        #[arg(long, conflicts_with = "slot")]
        all: bool,
    },
}

pub(crate) async fn run(db: &Db, command: Tokens) -> Result<(), Failure> {
    match command {
        Tokens::Create { name, scopes } => {
            if !is_name(&name) {
                return Err("the name of a token is 1 to 64 of a-z, 0-9, _, . and -".into());
            }
            let token = format!("{TOKEN_PREFIX}{}", random_hex()?);
            let slot = db.create_token(&name, &scopes, &token_hash(&token), soon()).await?;
            slot.ok_or_else(|| format!("two tokens of {name} are valid already: revoke one first"))?;
            println!("{token}");
            eprintln!("Keep it: it is not shown again.");
            Ok(())
        }
        Tokens::List => db.list_tokens(soon()).await?.iter().try_for_each(show),
        Tokens::Revoke { name, slot, all } => {
            if !db.revoke_token(&name, slot, all, soon()).await?.is_empty() {
                println!("revoked");
                return Ok(());
            }
            let known = db.list_tokens(soon()).await?;
            let slots: Vec<_> = known.iter().filter(|token| token.name == name).collect();
            let shown = slots.iter().map(|token| format!("{} (of {})", token.slot, token.created_at));
            let shown = shown.collect::<Vec<_>>().join(" and ");
            Err(match (slots.as_slice(), slot) {
                ([], _) => format!("there is no token of {name}"),
                (_, Some(slot)) => format!("{name} has no token in slot {slot}: it has {shown}"),
                (_, None) => format!("{name} has two tokens, in the slots {shown}: say --slot, or --all"),
            }
            .into())
        }
    }
}
