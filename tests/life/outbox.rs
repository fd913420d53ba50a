//! The model's outbox, written from docs/LIFE_OF_A_JOB.md like the rest of it (`model.rs`): who is told of what, and until when
//! it is said again. No SQL, one list of messages.

use std::collections::BTreeSet;

use uuid::Uuid;

/// What may be asked for.
pub const EVENTS: [&str; 4] = ["job.running", "job.succeeded", "job.failed", "job.canceled"];
/// Seconds: how long a worker has to send what it took, and after what time it is sent again.
pub const SENDING: i64 = 60;
pub const AGAIN: i64 = 200;

/// Who is told of what.
#[derive(Debug, Clone)]
pub struct Hook {
    pub url: &'static str,
    pub events: Vec<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Said again from then on.
    Due(i64),
    Delivered,
    GivenUp,
}

#[derive(Debug)]
pub struct Message {
    /// Known once it was taken to be sent.
    id: Option<Uuid>,
    account: usize,
    pub job: Uuid,
    pub event: &'static str,
    /// `None`: the account's, as it is when it is sent.
    pub url: Option<&'static str>,
    pub attempt: i16,
    /// The last attempt of which it is recorded what became of it.
    settled: i16,
    pub fate: Fate,
}

impl Message {
    /// As it is compared with the product's.
    pub fn words(&self) -> String {
        let fate = match self.fate {
            Fate::Due(_) => "due",
            Fate::Delivered => "delivered",
            Fate::GivenUp => "given up",
        };
        let attempt = self.attempt.to_string();
        let words = [Some(self.event), self.url, Some(attempt.as_str()), Some(fate)];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// A message in the hands of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    pub id: Uuid,
    pub job: Uuid,
    pub event: &'a str,
    pub url: Option<&'a str>,
    pub attempt: i16,
}

/// What its receiver made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Yes,
    NotNow,
    Never,
    /// 410: no more of it.
    Gone,
}

#[derive(Debug, Default)]
pub struct Outbox {
    /// Of each account, and whether it is disabled.
    pub hooks: Vec<Option<(Hook, bool)>>,
    pub messages: Vec<Message>,
    /// Jobs whose own webhook wants to hear no more of them.
    pub gone: BTreeSet<(Uuid, &'static str)>,
}

impl Outbox {
    /// A job's webhook stands in for its account's.
    pub fn tell(
        &mut self,
        now: i64,
        account: usize,
        job: Uuid,
        own: Option<&Hook>,
        event: &'static str,
    ) -> bool {
        let wanted = |hook: &Hook| hook.events.contains(&event);
        let url = match (own, &self.hooks[account]) {
            (Some(own), _) if wanted(own) => Some(own.url),
            (None, Some((hook, false))) if wanted(hook) => None,
            _ => return false,
        };
        self.push(now, account, job, event, url);
        true
    }

    /// Whoever is still at work on a job hears that it was dropped.
    pub fn tell_to_drop(&mut self, now: i64, account: usize, job: Uuid, url: &'static str) {
        self.push(now, account, job, "cancel", Some(url));
    }

    fn push(&mut self, now: i64, account: usize, job: Uuid, event: &'static str, url: Option<&'static str>) {
        let fate = Fate::Due(now);
        self.messages.push(Message { id: None, account, job, event, url, attempt: 0, settled: 0, fate });
    }

    pub fn due(&self, now: i64) -> usize {
        self.messages.iter().filter(|message| matches!(message.fate, Fate::Due(at) if at <= now)).count()
    }

    /// A message is taken to be sent. Answers whether there is such a one, and it goes there.
    pub fn take(&mut self, now: i64, taken: Taken) -> bool {
        let due = |message: &Message| matches!(message.fate, Fate::Due(at) if at <= now);
        let known = self.messages.iter().position(|message| message.id == Some(taken.id));
        // Those that nobody has seen yet are alike.
        let found = known.or_else(|| {
            self.messages.iter().position(|message| {
                message.id.is_none()
                    && due(message)
                    && (message.job, message.event) == (taken.job, taken.event)
            })
        });
        let Some(message) = found.map(|at| &mut self.messages[at]) else { return false };
        let accounts = match &self.hooks[message.account] {
            Some((hook, false)) => Some(hook.url),
            _ => None,
        };
        let right = due(message)
            && (message.job, message.event) == (taken.job, taken.event)
            && match message.url {
                None => accounts,
                Some(url) => Some(url).filter(|url| !self.gone.contains(&(message.job, *url))),
            } == taken.url
            && message.attempt + 1 == taken.attempt;
        message.id = Some(taken.id);
        message.attempt += 1;
        message.fate = Fate::Due(now + SENDING);
        right
    }

    /// What became of messages counts once, and if nobody else took them meanwhile. Answers of how many it has.
    pub fn record(&mut self, now: i64, sent: &[(Taken, Heard)]) -> usize {
        let (mut recorded, mut before) = (Vec::new(), 0);
        for (taken, heard) in sent {
            let same = |message: &&mut Message| message.id == Some(taken.id);
            let Some(message) = self.messages.iter_mut().find(same) else { continue };
            if message.settled == taken.attempt {
                before += 1;
            }
            if message.attempt != taken.attempt || message.settled == taken.attempt {
                continue;
            }
            message.settled = taken.attempt;
            message.fate = match heard {
                Heard::Yes => Fate::Delivered,
                Heard::NotNow => Fate::Due(now + AGAIN),
                Heard::Never | Heard::Gone => Fate::GivenUp,
            };
            recorded.push((message.account, message.job, message.url, *heard, taken.url));
        }
        for (account, job, url, heard, sent_to) in &recorded {
            if *heard != Heard::Gone {
                continue;
            }
            match url {
                // What else was to go there is not sent any more, but for what is on its way, or was reported along with it.
                Some(own) => {
                    self.gone.insert((*job, *own));
                    for message in &mut self.messages {
                        let along = sent.iter().any(|(taken, _)| message.id == Some(taken.id));
                        if message.job == *job
                            && message.url == *url
                            && !along
                            && message.attempt == message.settled
                            && matches!(message.fate, Fate::Due(_))
                        {
                            message.fate = Fate::GivenUp;
                        }
                    }
                }
                // Unless the account has moved meanwhile.
                None => {
                    if let Some((hook, disabled)) = &mut self.hooks[*account]
                        && Some(hook.url) == *sent_to
                    {
                        *disabled = true;
                    }
                }
            }
        }
        recorded.len() + before
    }
}
