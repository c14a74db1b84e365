//! What waits to be reconciled. An object is in the queue at most once and is never reconciled twice at the same time; what
//! happens to it meanwhile brings it back. A wake-up call waits a moment for others, but never longer for more of them, so
//! that an object which changes all the time still gets its turn.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::probe::NodeKey;

/// An object rests for so many times what its last reconciliation took before a change brings it back: however busy its
/// surroundings, it leaves most of the time to others.
const REST_FACTOR: u32 = 4;
/// Longest rest.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// Namespace and name of an object.
pub(super) type Key = NodeKey;

/// A queue of one kind. Bounded by the number of its objects.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Something became due earlier than a worker may know.
    news: Notify,
}

#[derive(Default)]
struct State {
    due: BTreeSet<(Instant, Key)>,
    entries: HashMap<Key, Entry>,
}

#[derive(Default)]
struct Entry {
    /// When it is due, if it waits.
    due: Option<Instant>,
    is_running: bool,
    /// It was woken while it was running.
    again: Option<Instant>,
    /// No change brings it back before.
    rests_until: Option<Instant>,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes an object: it is due after `delay`, or when it is due anyway if that is sooner.
    pub(super) fn wake(&self, key: Key, delay: Duration) {
        self.state().wake(key, Instant::now(), delay);
        self.news.notify_one();
    }

    /// Waits for the object that has been due longest; says how long it was. It has to be given back with
    /// [`done`](Self::done).
    pub(super) async fn next(&self) -> (Key, Duration) {
        loop {
            let (taken, left) = {
                let mut state = self.state();
                (state.take(Instant::now()), state.due.first().map(|(at, _)| *at))
            };
            if let Some(taken) = taken {
                // A call wakes one worker only, and that may be this one, which is busy from now on.
                if left.is_some() {
                    self.news.notify_one();
                }
                return taken;
            }
            match left {
                Some(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = self.news.notified() => {}
                    }
                }
                None => self.news.notified().await,
            }
        }
    }

    /// Gives an object back. It comes again after `again`, or sooner if it is woken; with none it is forgotten until then.
    pub(super) fn done(&self, key: Key, took: Duration, again: Option<Duration>) {
        self.state().done(key, Instant::now(), took, again);
        self.news.notify_one();
    }

    /// How many objects are due and wait for a worker.
    pub(super) fn depth(&self) -> usize {
        self.state().depth(Instant::now())
    }
}

impl State {
    fn wake(&mut self, key: Key, now: Instant, delay: Duration) {
        let entry = self.entries.entry(key.clone()).or_default();
        let at = now + delay;
        let at = entry.rests_until.map_or(at, |rest| at.max(rest));
        if entry.is_running {
            entry.again = Some(entry.again.map_or(at, |again| again.min(at)));
        } else {
            self.schedule(key, at);
        }
    }

    fn take(&mut self, now: Instant) -> Option<(Key, Duration)> {
        let first = self.due.first().filter(|(at, _)| *at <= now)?.clone();
        self.due.remove(&first);
        let (at, key) = first;
        let entry = self.entries.entry(key.clone()).or_default();
        entry.due = None;
        entry.is_running = true;
        Some((key, now.saturating_duration_since(at)))
    }

    fn done(&mut self, key: Key, now: Instant, took: Duration, again: Option<Duration>) {
        let entry = self.entries.entry(key.clone()).or_default();
        entry.is_running = false;
        let rests_until = now + took.saturating_mul(REST_FACTOR).min(LONGEST_REST);
        entry.rests_until = Some(rests_until);
        let woken = entry.again.take().map(|at| at.max(rests_until));
        match (woken, again.map(|again| now + again)) {
            (Some(woken), Some(again)) => self.schedule(key, woken.min(again)),
            (Some(at), None) | (None, Some(at)) => self.schedule(key, at),
            (None, None) => drop(self.entries.remove(&key)),
        }
    }

    fn depth(&self, now: Instant) -> usize {
        self.due.iter().take_while(|(at, _)| *at <= now).count()
    }

    fn schedule(&mut self, key: Key, at: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        if let Some(due) = entry.due {
            if due <= at {
                return;
            }
            self.due.remove(&(due, key.clone()));
        }
        entry.due = Some(at);
        self.due.insert((at, key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("default".to_owned(), name.to_owned())
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn an_object_that_is_woken_all_the_time_still_gets_its_turn() {
        let (mut state, start) = (State::default(), Instant::now());
        for moment in 0..20 {
            state.wake(key("busy"), start + ms(moment * 10), ms(200));
            assert_eq!(state.take(start + ms(moment * 10)), None);
        }
        assert_eq!(state.take(start + ms(200)), Some((key("busy"), ms(0))));
    }

    #[test]
    fn nothing_is_worked_on_twice_at_a_time_and_no_call_is_lost() {
        let (mut state, now) = (State::default(), Instant::now());
        state.wake(key("one"), now, ms(0));
        assert!(state.take(now).is_some());
        state.wake(key("one"), now, ms(0));
        assert_eq!(state.take(now + ms(60_000)), None);
        state.done(key("one"), now, ms(0), None);
        assert!(state.take(now).is_some());
        state.done(key("one"), now, ms(0), None);
        assert!(state.entries.is_empty() && state.due.is_empty());
    }

    #[test]
    fn what_is_due_longest_comes_first_and_what_waits_is_counted() {
        let (mut state, start) = (State::default(), Instant::now());
        state.wake(key("later"), start, ms(10_000));
        state.wake(key("b"), start, ms(2));
        state.wake(key("a"), start, ms(3));
        assert_eq!(state.depth(start), 0);
        assert_eq!(state.depth(start + ms(1000)), 2);
        assert_eq!(state.take(start + ms(1000)), Some((key("b"), ms(998))));
        assert_eq!(state.take(start + ms(1000)), Some((key("a"), ms(997))));
        assert_eq!(state.take(start + ms(1000)), None);
    }

    #[test]
    fn a_slow_object_rests_and_comes_back_by_itself() {
        let (mut state, start) = (State::default(), Instant::now());
        state.wake(key("slow"), start, ms(0));
        assert!(state.take(start).is_some());
        state.done(key("slow"), start, ms(100), Some(ms(60_000)));
        state.wake(key("slow"), start, ms(0));
        assert_eq!(state.take(start + ms(399)), None);
        assert!(state.take(start + ms(400)).is_some());
        state.done(key("slow"), start + ms(400), ms(0), Some(ms(60_000)));
        assert_eq!(state.take(start + ms(60_399)), None);
        assert!(state.take(start + ms(60_400)).is_some());
    }
}
