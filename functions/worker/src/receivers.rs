//! Who is being told, within one invocation: how many messages an account has on their way, how many go to one address, and who
//! does not answer. Receivers are told apart by the address that is connected to, not by how their host is written: one has as
//! many names as somebody likes.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

/// How many messages are on their way at once. An account may have as many of them as it leaves free: half alone, a third each
/// if there are two; so that there is a place for whoever comes next.
pub(crate) const AT_ONCE: usize = 50;
/// How many of them may go to one address. More than one account may have on its way: many hosts share an address, and one of
/// them alone does not keep the others from being told.
const AT_ONE_ADDRESS: usize = 40;
/// How many messages of an account an address may leave unanswered, until no more are sent there.
const SILENT_AFTER: u32 = 3;
/// How many receivers of an account may be silent, until it is sent nothing more if it leaves more unanswered than answered: it
/// may have any number of them.
const SILENT_RECEIVERS: usize = 4;

/// What is known so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Receivers(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    accounts: HashMap<Uuid, Account>,
    /// Messages on their way to each.
    addresses: HashMap<SocketAddr, usize>,
}

#[derive(Debug, Default)]
struct Account {
    sending: usize,
    answered: usize,
    unanswered: usize,
    /// How many messages each address has left unanswered.
    silent: HashMap<SocketAddr, u32>,
    /// How many had not even found an address by then.
    astray: usize,
}

impl Account {
    fn is_silent(&self) -> bool {
        self.silent.len() + self.astray >= SILENT_RECEIVERS && self.unanswered > self.answered
    }
}

/// Why a message is not sent to an address now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It leaves this account's messages unanswered.
    Silent,
    /// As many as may be are on their way there.
    Full,
}

impl Receivers {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many more messages each account may have on its way that has some, or is sent none, with so many places free.
    pub(crate) fn rooms(&self, free: usize) -> Vec<(Uuid, usize)> {
        let known = self.known();
        let bounded = known.accounts.iter().filter(|(_, account)| account.sending > 0 || account.is_silent());
        let room = |account: &Account| match account.is_silent() {
            true => 0,
            false => free.saturating_sub(account.sending) / 2,
        };
        bounded.map(|(id, account)| (*id, room(account))).collect()
    }

    /// A place for a message of the account, until it is dropped.
    pub(crate) fn place(&self, account: Uuid) -> Place {
        self.known().accounts.entry(account).or_default().sending += 1;
        Place { receivers: self.clone(), account, address: None, unfit: None }
    }
}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Place {
    receivers: Receivers,
    account: Uuid,
    /// Where to, once it is known.
    address: Option<SocketAddr>,
    /// Why it goes nowhere.
    pub(crate) unfit: Option<Unfit>,
}

impl Place {
    /// Whether it may go to that address, and not to the one before.
    pub(crate) fn enter(&mut self, address: SocketAddr) -> bool {
        self.leave();
        let mut known = self.receivers.known();
        let account = known.accounts.entry(self.account).or_default();
        if account.silent.get(&address).is_some_and(|times| *times >= SILENT_AFTER) {
            self.unfit = Some(Unfit::Silent);
            return false;
        }
        let there = known.addresses.entry(address).or_default();
        if *there >= AT_ONE_ADDRESS {
            self.unfit = Some(Unfit::Full);
            return false;
        }
        *there += 1;
        self.address = Some(address);
        true
    }

    /// Notes whether there was an answer in time.
    pub(crate) fn note(&self, answered: bool) {
        let mut known = self.receivers.known();
        let account = known.accounts.entry(self.account).or_default();
        match (answered, self.address) {
            (true, _) => account.answered += 1,
            (false, Some(address)) => {
                account.unanswered += 1;
                *account.silent.entry(address).or_default() += 1;
            }
            (false, None) => {
                account.unanswered += 1;
                account.astray += 1;
            }
        }
    }

    fn leave(&mut self) {
        let Some(address) = self.address.take() else { return };
        let mut known = self.receivers.known();
        if let Some(there) = known.addresses.get_mut(&address) {
            *there -= 1;
            if *there == 0 {
                known.addresses.remove(&address);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
        if let Some(account) = self.receivers.known().accounts.get_mut(&self.account) {
            account.sending -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 443))
    }

    const ONE: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    #[test]
    fn an_account_may_have_as_many_on_their_way_as_it_leaves_free() {
        let receivers = Receivers::default();
        assert_eq!(receivers.rooms(AT_ONCE), []);
        let places: Vec<_> = (0..10).map(|_| receivers.place(ONE)).collect();
        assert_eq!(receivers.rooms(AT_ONCE - 10), [(ONE, 15)], "25 of 50");
        let more: Vec<_> = (0..15).map(|_| receivers.place(ONE)).collect();
        assert_eq!(receivers.rooms(AT_ONCE - 25), [(ONE, 0)]);
        drop(more);
        assert_eq!(receivers.rooms(3), [(ONE, 0)], "others have the rest");
        drop(places);
        assert_eq!(receivers.rooms(AT_ONCE), []);
    }

    #[test]
    fn an_address_takes_so_many_at_once_and_one_account_alone_does_not_fill_it() {
        let receivers = Receivers::default();
        let enter = |account| {
            let mut place = receivers.place(account);
            (place.enter(address(1)), place)
        };
        let mut places: Vec<_> = (0..AT_ONCE / 2).map(|_| enter(ONE)).collect();
        assert!(places.iter().all(|(entered, _)| *entered));
        places.extend((places.len()..AT_ONE_ADDRESS).map(|_| enter(OTHER)));
        assert!(places.iter().all(|(entered, _)| *entered));
        let (entered, mut last) = enter(OTHER);
        assert_eq!((entered, last.unfit), (false, Some(Unfit::Full)));
        assert!(last.enter(address(2)), "but elsewhere");
        places.pop();
        assert!(last.enter(address(1)), "and there, once there is a place");
        assert!(!enter(OTHER).0 && enter(OTHER).1.enter(address(2)));
    }

    #[test]
    fn who_leaves_messages_unanswered_gets_no_more_of_that_account() {
        let receivers = Receivers::default();
        for times in 0..SILENT_AFTER {
            let mut place = receivers.place(ONE);
            assert!(place.enter(address(1)), "{times}");
            place.note(false);
        }
        let mut place = receivers.place(ONE);
        assert_eq!((place.enter(address(1)), place.unfit), (false, Some(Unfit::Silent)));
        assert!(place.enter(address(2)) && receivers.place(OTHER).enter(address(1)));
        drop(place);
        assert_eq!(receivers.rooms(AT_ONCE), [], "the account has others");
    }

    #[test]
    fn an_account_of_many_silent_receivers_is_sent_nothing_more_unless_more_answer() {
        let receivers = Receivers::default();
        let said = |account, last, answered| {
            let mut place = receivers.place(account);
            assert!(last == 0 || place.enter(address(last)));
            place.note(answered);
        };
        for last in [1, 2, 0] {
            said(ONE, last, false);
            assert_eq!(receivers.rooms(AT_ONCE), []);
        }
        said(ONE, 0, false); // not even an address
        assert_eq!(receivers.rooms(AT_ONCE), [(ONE, 0)]);
        for last in 1..=4 {
            said(OTHER, last, false);
        }
        for last in 5..=8 {
            said(OTHER, last, true);
        }
        assert_eq!(receivers.rooms(AT_ONCE), [(ONE, 0)]);
    }
}
