//! Races of who sends a message and what became of it, 200 times each: it is one worker's at a time, and what counts is said by
//! the one that has it.

use std::{sync::Arc, time::Duration};

use shared::db::{
    Db,
    webhooks::{Delivery, Recorded, Round, Sent},
};
use uuid::Uuid;

use super::races::{PRICE, TIMES, buy, claim, done, race, soon, track};
use crate::support::Bench;

/// A succeeded job, of which one message is to be said.
async fn to_be_told(bench: &Bench, db: &Db) -> Uuid {
    let account = bench.account(PRICE).await;
    bench.sql(&format!("SELECT punchcard.set_webhook('{account}', 'https://example.com/')")).await;
    buy(bench, account).await;
    let lease = claim(db).await;
    let settled = db.settle(&[(lease, done())], soon()).await.unwrap();
    assert!(settled.told, "somebody is to be told");
    account
}

async fn take(db: &Db) -> Vec<Delivery> {
    db.claim_deliveries(&Round::of(10, Duration::from_secs(60)), soon()).await.unwrap().deliveries
}

/// Attempt, whether it was heard, and whether it is sent again, of the account's one message.
async fn state(bench: &Bench, account: Uuid) -> (i16, bool, bool) {
    let select = format!(
        "SELECT attempt, delivered_at IS NOT NULL, next_at IS NOT NULL FROM punchcard.messages
         WHERE account_id = '{account}'"
    );
    let rows = bench.rows(&select).await;
    assert_eq!(rows.len(), 1, "one message");
    (rows[0].get(0), rows[0].get(1), rows[0].get(2))
}

/// The same message taken by somebody else, as far as what is recorded of it goes.
fn copy(delivery: &Delivery, taken: Delivery) -> Delivery {
    Delivery { id: delivery.id, attempt: delivery.attempt, ..taken }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_would_send_a_message_one_does() {
    let (bench, one, other) = track().await;
    let (mut firsts, mut seconds) = (0, 0);
    for time in 0..TIMES {
        let account = to_be_told(&bench, &one).await;
        let (a, b) = (Arc::clone(&one), Arc::clone(&other));
        let (first, second) = race(time, async move { take(&a).await }, async move { take(&b).await }).await;
        assert_eq!(first.len() + second.len(), 1, "taken once");
        (firsts, seconds) = (firsts + first.len(), seconds + second.len());
        assert_eq!(
            state(&bench, account).await,
            (1, false, true),
            "sent once, and kept until it is recorded"
        );
        let sent: Vec<_> = first.into_iter().chain(second).map(|taken| (taken, Sent::Delivered)).collect();
        assert_eq!(one.settle_deliveries(&sent, soon()).await.unwrap().count, 1);
        assert_eq!(state(&bench, account).await, (1, true, false));
        assert_eq!(bench.balance(account).await, (0, 0));
    }
    assert!(firsts > 0 && seconds > 0, "a race: {firsts} and {seconds}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_an_end_shows_the_job_as_it_ended() {
    let (bench, one, other) = track().await;
    let (mut at_once, mut later) = (0, 0);
    for time in 0..TIMES {
        let account = bench.account(PRICE).await;
        bench.sql(&format!("SELECT punchcard.set_webhook('{account}', 'https://example.com/')")).await;
        buy(&bench, account).await;
        let lease = claim(&one).await;
        let (a, b) = (Arc::clone(&one), Arc::clone(&other));
        let settle = async move { a.settle(&[(lease, done())], soon()).await.unwrap() };
        let ((), taken) = race(time, async move { drop(settle.await) }, async move { take(&b).await }).await;
        (at_once, later) = (at_once + taken.len(), later + 1 - taken.len());
        let taken = if taken.is_empty() { take(&one).await } else { taken };
        let job = &taken[0].job;
        assert!(job.status.is_final() && job.output.is_some(), "{job:?}");
        let sent: Vec<_> = taken.into_iter().map(|taken| (taken, Sent::Delivered)).collect();
        assert_eq!(one.settle_deliveries(&sent, soon()).await.unwrap().count, 1);
    }
    assert!(at_once > 0 && later > 0, "a race: {at_once} and {later}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_records_of_one_sending_one_counts() {
    let (bench, one, other) = track().await;
    let (mut heard, mut unheard) = (0, 0);
    for time in 0..TIMES {
        let account = to_be_told(&bench, &one).await;
        let delivery = take(&one).await.remove(0);
        // For its other columns alone.
        let spare = {
            bench.sql("UPDATE punchcard.outbox SET next_at = now()").await;
            let spare = take(&other).await.remove(0);
            bench.sql("UPDATE punchcard.outbox SET attempt = 1").await;
            copy(&delivery, spare)
        };
        let retry = Sent::Retry { delay: Duration::from_secs(3_600), error: "no".into() };
        let (said, other_said) = ([(delivery, Sent::Delivered)], [(spare, retry)]);
        let (a, b) = (Arc::clone(&one), Arc::clone(&other));
        let (delivered, retried) = race(
            time,
            async move { (a.settle_deliveries(&said, soon()).await.unwrap(), said) },
            async move { (b.settle_deliveries(&other_said, soon()).await.unwrap(), other_said) },
        )
        .await;
        let end = state(&bench, account).await;
        assert!(end == (1, true, false) || end == (1, false, true), "{delivered:?} {retried:?} {end:?}");
        // Whoever met the other one at it, or comes again, hears that it is recorded.
        for (said, answer) in [(delivered.1, delivered.0), (retried.1, retried.0)] {
            assert_eq!(answer.count + answer.out_of_reach.len(), 1);
            let again = one.settle_deliveries(&said, soon()).await.unwrap();
            assert_eq!((again.count, again.out_of_reach.len(), state(&bench, account).await), (1, 0, end));
        }
        (heard, unheard) = (heard + usize::from(end.1), unheard + usize::from(end.2));
        bench.sql("DELETE FROM punchcard.outbox").await;
        assert_eq!(bench.balance(account).await, (0, 0));
    }
    assert!(heard > 0 && unheard > 0, "a race: {heard} and {unheard}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_sent_again_changes_nothing() {
    let (bench, one, _) = track().await;
    let hour = Duration::from_secs(3_600);
    for sent in [
        Sent::PutBack(hour),
        Sent::Retry { delay: hour, error: "no".into() },
        Sent::Delivered,
        Sent::GiveUp("no".into()),
        Sent::Gone("410".into()),
    ] {
        let account = to_be_told(&bench, &one).await;
        let said = [(take(&one).await.remove(0), sent)];
        let row = format!("SELECT d::text FROM punchcard.messages d WHERE account_id = '{account}'");
        let recorded = Recorded { count: 1, out_of_reach: vec![] };
        assert_eq!(one.settle_deliveries(&said, soon()).await.unwrap(), recorded);
        let first: String = bench.rows(&row).await[0].get(0);
        assert_eq!(one.settle_deliveries(&said, soon()).await.unwrap(), recorded, "as after a lost answer");
        assert_eq!(bench.rows(&row).await[0].get::<_, String>(0), first, "{said:?}");
        // Nor once it is sent anew: that sending is another one.
        bench.sql("UPDATE punchcard.outbox SET next_at = now()").await;
        if !take(&one).await.is_empty() {
            let first: String = bench.rows(&row).await[0].get(0);
            assert_eq!(one.settle_deliveries(&said, soon()).await.unwrap(), recorded);
            assert_eq!(bench.rows(&row).await[0].get::<_, String>(0), first, "{said:?}");
            bench.sql("DELETE FROM punchcard.outbox").await;
        }
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_comes_after_another_took_the_message_changes_nothing() {
    let (bench, one, other) = track().await;
    let (mut late, mut in_time) = (0, 0);
    for time in 0..TIMES {
        let account = to_be_told(&bench, &one).await;
        let delivery = take(&one).await.remove(0);
        bench.sql("UPDATE punchcard.outbox SET next_at = now()").await;
        let (a, b) = (Arc::clone(&one), Arc::clone(&other));
        let (recorded, taken) = race(
            time,
            async move { a.settle_deliveries(&[(delivery, Sent::Delivered)], soon()).await.unwrap().count },
            async move { take(&b).await },
        )
        .await;
        assert_eq!(recorded + taken.len(), 1, "recorded in time, or sent again");
        let expected = if recorded == 1 { (1, true, false) } else { (2, false, true) };
        assert_eq!(state(&bench, account).await, expected);
        (late, in_time) = (late + taken.len(), in_time + recorded);
        let sent: Vec<_> = taken.into_iter().map(|taken| (taken, Sent::Delivered)).collect();
        one.settle_deliveries(&sent, soon()).await.unwrap();
        assert!(state(&bench, account).await.1);
        assert_eq!(bench.balance(account).await, (0, 0));
    }
    assert!(late > 0 && in_time > 0, "a race: {late} and {in_time}");
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(bench.count(deadlocks).await, 0);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_being_recorded_is_sent_again_all_the_same() {
    let (bench, one, _) = track().await;
    let operator = Arc::new(bench.operators_db());
    for time in 0..TIMES {
        to_be_told(&bench, &one).await;
        let said = [(take(&one).await.remove(0), Sent::GiveUp("no".into()))];
        let id = said[0].0.id;
        let (a, b) = (Arc::clone(&one), Arc::clone(&operator));
        let (recorded, resent) =
            race(time, async move { a.settle_deliveries(&said, soon()).await.unwrap() }, async move {
                b.resend(id, soon()).await.unwrap()
            })
            .await;
        assert!(resent, "there is such a message: {recorded:?}");
        bench.sql("DELETE FROM punchcard.outbox WHERE true").await;
    }
    assert!(!operator.resend(Uuid::nil(), soon()).await.unwrap(), "and no such one");
}
