//! The state machine of a job, as one table: what may happen to it where, where it goes, and what becomes of its hold.
//! `punchcard.settle`, `cancel`, `claim` and `rescue` do what stands here: `tests/db/transitions.rs` compares them, pair by
//! pair, and the diagram in docs/LIFE_OF_A_JOB.md is this table's.

use super::Status;

/// Where a job stands. A running job that is to be canceled, or that waits for somebody outside, is a state of its own here,
/// and `running` to a caller. What ends a run is said by its worker or, also before that, by a call back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits for `run_at`, then for a worker.
    Queued,
    /// Under a lease.
    Running,
    /// Under a lease, and its worker is told to stop.
    Canceling,
    /// Running outside, under no lease, until somebody calls back.
    Waiting,
    /// Final.
    Succeeded,
    /// Final: the dead letters.
    Failed,
    /// Final.
    Canceled,
}

/// What may happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A worker takes it.
    Claim,
    /// Its worker: done.
    Complete,
    /// Its worker: an error, with attempts left.
    Retry,
    /// Its worker: not the job's fault, or nothing to do yet; later.
    Snooze,
    /// Its worker: the time is nearly up, what it saved is where the next run goes on.
    Yield,
    /// Its worker: somebody outside does it, and calls back.
    Wait,
    /// Nobody called back in time.
    Overdue,
    /// Its worker dropped it when its time was up, or never reported: with crashes left.
    Crash,
    /// The same, and that was the last.
    LastCrash,
    /// Its worker: it will never work, or that was the last attempt.
    Fail,
    /// Its worker: it will never work with this input.
    Reject,
    /// Its worker dropped it because it was to be canceled.
    Stop,
    /// Its worker: never started.
    Return,
    /// Somebody cancels it.
    Cancel,
    /// Its life is over: `expires_at`.
    Expire,
}

/// What becomes of the hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Money {
    /// It stays.
    Held,
    /// It is captured; of a metered kind, what was used, and the rest released.
    Captured,
    /// It is released.
    Released,
    /// As the kind's `on_cancel` says.
    OnCancel,
    /// The same of a job that has run before (`has_run` in `queue`); one that has not is released.
    OnCancelOnceRun,
    /// As the kind's `on_input_error` says.
    OnInputError,
}

impl State {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::Canceling,
        Self::Waiting,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
    ];

    /// The status that a caller sees.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::Queued => Status::Queued,
            Self::Running | Self::Canceling | Self::Waiting => Status::Running,
            Self::Succeeded => Status::Succeeded,
            Self::Failed => Status::Failed,
            Self::Canceled => Status::Canceled,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Canceling => "canceling",
            Self::Waiting => "waiting",
            other => other.status().as_str(),
        }
    }
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 15] = [
        Self::Claim,
        Self::Complete,
        Self::Retry,
        Self::Snooze,
        Self::Yield,
        Self::Wait,
        Self::Overdue,
        Self::Crash,
        Self::LastCrash,
        Self::Fail,
        Self::Reject,
        Self::Stop,
        Self::Return,
        Self::Cancel,
        Self::Expire,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Complete => "complete",
            Self::Retry => "retry",
            Self::Snooze => "snooze",
            Self::Yield => "yield",
            Self::Wait => "wait",
            Self::Overdue => "overdue",
            Self::Crash => "crash",
            Self::LastCrash => "last crash",
            Self::Fail => "fail",
            Self::Reject => "reject",
            Self::Stop => "stop",
            Self::Return => "return",
            Self::Cancel => "cancel",
            Self::Expire => "expire",
        }
    }
}

/// Where an event takes a job, and what becomes of its hold; `None`: nothing happens, whoever tries.
#[must_use]
pub fn next(state: State, event: Event) -> Option<(State, Money)> {
    let to = |state, money| Some((state, money));
    match (state, event) {
        (State::Queued, Event::Claim) => to(State::Running, Money::Held),
        (State::Queued, Event::Cancel) => to(State::Canceled, Money::OnCancelOnceRun),
        (State::Queued, Event::Expire) => to(State::Failed, Money::Released),
        // A report of a run that is over: its lease is.
        (
            State::Queued,
            Event::Complete
            | Event::Retry
            | Event::Snooze
            | Event::Yield
            | Event::Wait
            | Event::Overdue
            | Event::Crash
            | Event::LastCrash
            | Event::Fail
            | Event::Reject
            | Event::Stop
            | Event::Return,
        ) => None,

        // One worker at a time.
        (State::Running | State::Canceling, Event::Claim) => None,
        (State::Running | State::Canceling, Event::Complete) => to(State::Succeeded, Money::Captured),
        (State::Running | State::Canceling, Event::Fail) => to(State::Failed, Money::Released),
        (State::Running | State::Canceling, Event::Reject) => to(State::Failed, Money::OnInputError),

        (State::Running, Event::Retry | Event::Snooze | Event::Yield | Event::Crash | Event::Return) => {
            to(State::Queued, Money::Held)
        }
        (State::Running, Event::Wait) => to(State::Waiting, Money::Held),
        (State::Running, Event::LastCrash | Event::Expire) => to(State::Failed, Money::Released),
        (State::Running, Event::Cancel) => to(State::Canceling, Money::Held),
        // Nobody asked for it; nobody is waited for.
        (State::Running, Event::Stop | Event::Overdue) => None,
        (State::Canceling, Event::Overdue) => None,

        (State::Canceling, Event::Cancel) => to(State::Canceling, Money::Held),
        (
            State::Canceling,
            Event::Retry
            | Event::Snooze
            | Event::Yield
            | Event::Wait
            | Event::Crash
            | Event::LastCrash
            | Event::Stop
            | Event::Expire,
        ) => to(State::Canceled, Money::OnCancel),
        (State::Canceling, Event::Return) => to(State::Canceled, Money::OnCancelOnceRun),

        (State::Waiting, Event::Complete) => to(State::Succeeded, Money::Captured),
        (State::Waiting, Event::Retry) => to(State::Queued, Money::Held),
        (State::Waiting, Event::Fail | Event::Overdue | Event::Expire) => to(State::Failed, Money::Released),
        (State::Waiting, Event::Reject) => to(State::Failed, Money::OnInputError),
        // No worker is to be asked, and whoever is at work was paid for or not: as for a running job.
        (State::Waiting, Event::Cancel) => to(State::Canceled, Money::OnCancel),
        // What only a worker says: there is none.
        (
            State::Waiting,
            Event::Claim
            | Event::Snooze
            | Event::Yield
            | Event::Wait
            | Event::Crash
            | Event::LastCrash
            | Event::Stop
            | Event::Return,
        ) => None,

        (
            State::Succeeded | State::Failed | State::Canceled,
            Event::Claim
            | Event::Complete
            | Event::Retry
            | Event::Snooze
            | Event::Yield
            | Event::Wait
            | Event::Overdue
            | Event::Crash
            | Event::LastCrash
            | Event::Fail
            | Event::Reject
            | Event::Stop
            | Event::Return
            | Event::Cancel
            | Event::Expire,
        ) => None,
    }
}

/// The table as a Mermaid diagram: an arrow for each pair of states, with what leads from one to the other.
#[must_use]
pub fn diagram() -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> queued : enqueue (hold)\n");
    for from in State::ALL {
        for to in State::ALL {
            let words = Event::ALL.into_iter().filter_map(|event| {
                let (_, money) = next(from, event).filter(|(state, _)| *state == to)?;
                Some(match money {
                    Money::Held => event.word().to_owned(),
                    Money::Captured => format!("{} (capture)", event.word()),
                    Money::Released => format!("{} (release)", event.word()),
                    Money::OnCancel => format!("{} (on_cancel)", event.word()),
                    Money::OnCancelOnceRun => format!("{} (on_cancel, if it has run)", event.word()),
                    Money::OnInputError => format!("{} (on_input_error)", event.word()),
                })
            });
            let words: Vec<String> = words.collect();
            if !words.is_empty() {
                text += &format!("    {} --> {} : {}\n", from.word(), to.word(), words.join(", "));
            }
        }
        if from.status().is_final() {
            text += &format!("    {} --> [*]\n", from.word());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_open_exactly_as_long_as_its_job_is_unfinished() {
        for from in State::ALL {
            for event in Event::ALL {
                if let Some((to, money)) = next(from, event) {
                    assert!(!from.status().is_final(), "{from:?} is final");
                    assert_eq!(money == Money::Held, !to.status().is_final(), "{from:?} {event:?}");
                }
            }
        }
    }

    #[test]
    fn the_diagram_is_the_one_in_the_docs() {
        let docs = include_str!("../../../docs/LIFE_OF_A_JOB.md");
        let drawn = docs.split("```mermaid\n").nth(1).and_then(|rest| rest.split("```").next());
        assert_eq!(drawn, Some(diagram().as_str()), "paste this:\n{}", diagram());
    }
}
