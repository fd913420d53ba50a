//! What there is after a random sequence (`sequences.rs`), held against what was promised.

use uuid::Uuid;

use super::{
    model::{Job, Stand},
    sequences::Sequence,
};

impl Sequence<'_> {
    /// Everything that can be seen, and the audit.
    pub async fn compare(&self) {
        let shown = self.lane.bench.rows(
            "SELECT n.id, concat_ws(' ', n.status, CASE WHEN n.cancel_requested_at IS NOT NULL THEN 'stop' END,
                 CASE WHEN n.waiting_until IS NOT NULL
                     THEN 'waits ' || ceil(extract(epoch FROM n.waiting_until - now()) / 10)::int * 10 END,
                 'captured', coalesce(n.captured, 0), 'crashes', n.crashes,
                 CASE WHEN EXISTS (SELECT FROM punchcard.jobs r WHERE r.retry_of = n.id) THEN 'retried' END,
                 CASE WHEN EXISTS (SELECT FROM punchcard.ledger l WHERE l.job_id = n.id AND l.kind = 'adjust') THEN 'refunded' END,
                 CASE WHEN q.job_id IS NOT NULL THEN concat_ws(' ', 'attempt', q.attempt, 'saved', q.checkpoint) END)
             FROM punchcard.jobs_now n LEFT JOIN punchcard.queue q ON q.job_id = n.id ORDER BY n.id",
        );
        let shown = shown.await.into_iter().map(|row| (row.get(0), row.get(1)));
        let promised = self.model.jobs.iter().map(|(id, job)| (*id, words(job, self.model.now)));
        assert_eq!(shown.collect::<Vec<(Uuid, String)>>(), promised.collect::<Vec<_>>());
        for (account, id) in self.accounts.iter().enumerate() {
            let balance = (self.model.available[account], self.model.held[account]);
            assert_eq!(self.lane.bench.balance(*id).await, balance, "account {account}");
        }
        let messages = self.lane.bench.rows(
            "SELECT d.job_id, concat_ws(' ', d.event, d.url, d.attempt, CASE WHEN d.next_at IS NOT NULL THEN 'due'
                 WHEN d.delivered_at IS NOT NULL THEN 'delivered' ELSE 'given up' END)
             FROM punchcard.messages d
             UNION ALL SELECT w.account_id, 'disabled' FROM punchcard.webhooks w WHERE w.disabled_at IS NOT NULL",
        );
        let mut messages: Vec<(Uuid, String)> =
            messages.await.into_iter().map(|row| (row.get(0), row.get(1))).collect();
        messages.sort();
        let mut promised: Vec<(Uuid, String)> =
            self.model.outbox.messages.iter().map(|message| (message.job, message.words())).collect();
        for (hook, id) in self.model.outbox.hooks.iter().zip(&self.accounts) {
            promised.extend(matches!(hook, Some((_, true))).then(|| (*id, "disabled".to_owned())));
        }
        promised.sort();
        assert_eq!(messages, promised);
        let findings = self.lane.bench.rows("SELECT invariant || ' ' || finding FROM punchcard.audit").await;
        let findings: Vec<String> = findings.iter().map(|row| row.get(0)).collect();
        assert!(findings.is_empty(), "{findings:?}");
    }
}

/// A job in the words of `compare`; times are within ten seconds.
fn words(job: &Job, now: i64) -> String {
    let mut words = vec![job.status().to_owned()];
    match job.stand {
        Stand::Running { told_to_stop: true, .. } => words.push("stop".into()),
        Stand::Waiting { until, .. } => words.push(format!("waits {}", until - now)),
        _ => {}
    }
    words.push(format!("captured {} crashes {}", job.captured, job.crashes));
    words.extend(job.retried.then(|| "retried".into()));
    words.extend(job.refunded.then(|| "refunded".into()));
    if !job.is_final() {
        let running = u32::from(job.status() == "running");
        words.push(format!("attempt {} saved", job.errors + running));
        words.extend(job.saved.map(|state| state.to_string()));
    }
    words.join(" ")
}
