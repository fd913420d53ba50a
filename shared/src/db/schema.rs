//! The schema as this build has it: its migrations, its functions, and the servers that it is for.

/// The least version of PostgreSQL, as `server_version_num` has it: views with their caller's rights need it.
const LEAST_VERSION: i32 = 150_000;

/// Why a server of that `server_version_num`, or a database of that `server_encoding`, is not one for Punchcard.
pub(crate) fn unfit(version: i32, encoding: &str) -> Option<String> {
    if version < LEAST_VERSION {
        let (major, minor, least) = (version / 10_000, version % 10_000, LEAST_VERSION / 10_000);
        return Some(format!(
            "the server is PostgreSQL {major}.{minor}: Punchcard needs version {least} or newer"
        ));
    }
    (encoding != "UTF8").then(|| {
        format!(
            "the database's encoding is {encoding}: Punchcard needs UTF8 \
             (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)"
        )
    })
}

macro_rules! migrations {
    ($($name:literal),+ $(,)?) => {
        /// The migrations' names, oldest first.
        pub const MIGRATIONS: &[&str] = &[$($name),+];
        /// What is in them, in the same order. An applied file is never edited once a release is tagged.
        #[cfg(feature = "migrate")]
        pub(super) const MIGRATION_SOURCES: &[&str] =
            &[$(include_str!(concat!("../../../infra/migrations/", $name, ".sql"))),+];
    };
}

#[cfg(feature = "migrate")]
macro_rules! functions {
    ($($folder:literal => [$($name:literal),+ $(,)?]),+ $(,)?) => {
        /// The functions: name and source, each a file of `infra/functions`.
        pub const FUNCTIONS: &[(&str, &str)] = &[$($(
            ($name, include_str!(concat!("../../../infra/functions/", $folder, "/", $name, ".sql"))),
        )+)+];
    };
}

migrations!["0001_tables", "0002_views", "0003_supabase", "0004_roles"];

#[cfg(feature = "migrate")]
functions![
    "access" => ["access", "everybody_else", "grant_access", "revoke_defaults", "set_policies"],
    "audit" => ["audit_accounts", "audit_next", "audit_rows"],
    "credit_source" => ["call_of_mover", "check_source_table", "draw_credits", "drawable", "move_at_source", "return_credits", "source_balance", "source_failed", "source_health", "source_knows", "try_credit_source", "use_credit_source"],
    "credits" => ["balance", "check_movement", "deal_credits", "deal_spent", "expire_credits", "find_archived", "find_ends", "find_entries", "find_holds", "find_movements", "fold_entries", "grant_credits", "hold_credits", "increment_user_credits", "look_first", "move_credits", "pass_limits", "refund", "spread_account"],
    "enqueue" => ["canonical", "check_input", "check_metadata", "check_options", "check_retry_of", "check_retry_policy", "check_tags", "check_webhook", "enqueue", "enqueue_batch", "fingerprints", "first_id", "is_whole", "key_digest", "label", "options_of_batch", "read_batch", "refuse_batch", "refuse_request", "replay_batch", "replay_job", "request_hash", "uuid_time", "uuid_v7", "validate_batch"],
    "erasure" => ["cancel_all", "clear_payloads", "erase_account", "erase_payloads", "erase_step", "erased_error", "refuse_closed"],
    "jobs" => ["cancel", "find_failed", "find_jobs", "find_labeled_jobs", "find_matching_jobs", "find_newest_jobs", "find_redrivable", "find_unfinished_jobs", "find_unsuccessful_jobs", "job_now", "lock_job", "redrive", "retry", "show_jobs"],
    "retention" => ["apply_retention", "archive_jobs", "archive_of", "archived_job", "before_name", "carry_entries", "check_carry", "check_month", "detach_month", "entries_to_carry", "forget_keys", "months_before", "open_archive", "refuse_gone"],
    "run" => ["call_back", "captured", "check_in", "claim", "claim_singly", "enter_deferred", "lapsed", "lock_due", "lock_for_settling", "rescue", "rescue_singly", "served_kinds", "settle"],
    "statement" => ["entries_since", "find_statement", "share_at"],
    "supabase" => ["broadcast_outcomes", "set_realtime"],
    "upkeep" => ["attach_periods", "empty_spare", "keep_up", "make_period", "make_periods", "wanted_periods"],
    "webhooks" => ["claim_deliveries", "rotate_webhook_secret", "set_webhook", "settle_deliveries"],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_old_or_not_unicode_is_told_in_one_line() {
        assert_eq!(unfit(150_018, "UTF8"), None);
        assert_eq!(unfit(180_000, "UTF8"), None);
        let old = unfit(140_009, "UTF8").unwrap_or_default();
        assert_eq!(old, "the server is PostgreSQL 14.9: Punchcard needs version 15 or newer");
        let encoding = unfit(150_018, "SQL_ASCII").unwrap_or_default();
        assert!(encoding.contains("SQL_ASCII") && encoding.contains("UTF8"), "{encoding}");
    }
}
