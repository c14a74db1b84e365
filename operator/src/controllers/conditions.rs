//! Conditions of a status, and what their changes announce.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::{
    api::condition,
    kubernetes::{Announcement, Severity, WriteError, shorten},
};

/// Longest message of a condition, in bytes.
const MESSAGE_MAX_BYTES: usize = 2048;

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    fn text(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// A reason and a message: the machine's word and the reader's sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// CamelCase.
    pub word: String,
    /// What is the case, and what to do if somebody must.
    pub message: String,
}

impl Reason {
    /// Shorthand.
    pub fn new(word: &str, message: impl Into<String>) -> Self {
        Self { word: word.to_owned(), message: message.into() }
    }
}

/// Conditions being written, one of each type.
pub struct Conditions<'a> {
    old: &'a [Condition],
    generation: i64,
    now: Timestamp,
    new: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// Starts from the conditions that were there, to keep their transition times.
    pub fn new(old: &'a [Condition], generation: i64, now: Timestamp) -> Self {
        Self { old, generation, now, new: Vec::new() }
    }

    /// Sets a condition.
    pub fn set(&mut self, type_: &str, status: Truth, reason: &Reason) {
        let kept = self.old.iter().find(|old| old.type_ == type_ && old.status == status.text());
        self.new.push(Condition {
            type_: type_.to_owned(),
            status: status.text().to_owned(),
            reason: reason.word.clone(),
            message: shorten(&reason.message, MESSAGE_MAX_BYTES),
            observed_generation: Some(self.generation),
            last_transition_time: kept.map_or(Time(self.now), |old| old.last_transition_time.clone()),
        });
    }

    /// Sets `Reconciling` and `Stalled`.
    pub fn set_progress(&mut self, progress: &Headway<'_>) {
        let Headway { ready, reason, is_done, behind, failure, stalled, order } = progress;
        let (truth, reconciling) = match (failure, stalled, order) {
            (Some(failure), _, _) => (Truth::True, &Reason::new("WriteFailed", failure.clone())),
            (None, Some(_), _) => (Truth::False, &Reason::new("Stalled", "see the condition Stalled")),
            // Who was told to stand still, and does, is not on the way to anything.
            (None, None, Some(order)) => (Truth::False, *order),
            // All are well, and not yet as the spec asks: a rolling change goes on.
            (None, None, None) if *ready && behind.is_some() => (Truth::True, behind.unwrap_or(reason)),
            (None, None, None) if *ready && *is_done => {
                (Truth::False, &Reason::new("AsSpecified", "nothing is left to do"))
            }
            (None, None, None) => (Truth::from(!ready), *reason),
        };
        self.set(condition::RECONCILING, truth, reconciling);
        match stalled {
            Some(reason) => self.set(condition::STALLED, Truth::True, reason),
            None => self.set(condition::STALLED, Truth::False, &Reason::new("NotStalled", "nobody has to act")),
        }
    }

    /// The result.
    pub fn finish(self) -> Vec<Condition> {
        self.new
    }
}

/// What to say of a write that the API server refuses. Trying again does not help: somebody has to act.
pub fn refused(error: &WriteError) -> Reason {
    Reason::new("WriteRefused", format!("{error}; change the spec, or what refuses it"))
}

/// How far an object has come, whatever its kind.
pub struct Headway<'a> {
    /// It is ready.
    pub ready: bool,
    /// Why it is, or is not.
    pub reason: &'a Reason,
    /// The plan had no steps.
    pub is_done: bool,
    /// Why something was not made from the present spec yet.
    pub behind: Option<&'a Reason>,
    /// What failed, and may succeed when it is tried again.
    pub failure: Option<String>,
    /// What somebody has to act on.
    pub stalled: Option<&'a Reason>,
    /// The order it obeys by standing still.
    pub order: Option<&'a Reason>,
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// True if the condition is there and true.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// Conditions that are only there while something is out of the ordinary, and what it is called when they go.
const EXTRAORDINARY: [(&str, &str); 7] = [
    (condition::DEGRADED, "Recovered"),
    (condition::PAUSED, "Resumed"),
    (condition::FENCED, "FenceLifted"),
    (condition::HIBERNATED, "Woken"),
    (condition::POWER_CONCENTRATED, "PowerSpread"),
    (condition::REPLACED, "ReplacementOver"),
    (condition::JAILED_VALIDATOR, "JailingsAcknowledged"),
];

/// Reasons of a node that is not ready yet, on its way as it should be. While they last the status tells of them; of these alone
/// a first provision would be half of its writes.
const STEPS: [&str; 8] = [
    "VolumePending",
    "PodMissing",
    "PodPending",
    "KeyPending",
    "WaitingForGenesis",
    "Unasked",
    "Starting",
    "CatchingUp",
];

/// True if nothing is out of the ordinary with what is not ready for this reason.
pub fn is_step(ready: Option<&Condition>) -> bool {
    ready.is_some_and(|ready| ready.status != "True" && STEPS.contains(&ready.reason.as_str()))
}

/// What to announce of a change of conditions: `Ready` and the abnormal ones, when status or reason changed. One step after the
/// other on the way up is no news; that it is gone back is.
pub fn announcements(old: &[Condition], new: &[Condition]) -> Vec<Announcement> {
    let changed = |type_: &str| {
        let (before, now) = (find(old, type_), find(new, type_));
        let told = |condition: &Condition| (condition.status.clone(), condition.reason.clone());
        before.map(told) != now.map(told)
    };
    let extraordinary =
        EXTRAORDINARY.into_iter().filter(|(type_, _)| changed(type_)).map(|(type_, word)| match find(new, type_) {
            Some(now) => {
                let is_trouble =
                    matches!(type_, condition::DEGRADED | condition::POWER_CONCENTRATED | condition::JAILED_VALIDATOR);
                let severity = if is_trouble { Severity::Warning } else { Severity::Normal };
                Announcement { severity, reason: now.reason.clone(), note: now.message.clone() }
            }
            None => Announcement::normal(Reason::new(word, format!("the condition {type_} is over"))),
        });
    [condition::READY, condition::STALLED, condition::QUORUM_SAFE, condition::KEY_NOT_IN_GENESIS]
        .into_iter()
        .filter_map(|type_| {
            let now = find(new, type_)?;
            let before = find(old, type_);
            if before.is_some_and(|before| before.status == now.status && before.reason == now.reason) {
                return None;
            }
            if type_ == condition::READY && is_step(Some(now)) && before.is_none_or(|before| before.status != "True") {
                return None;
            }
            let abnormal_if_true = matches!(type_, condition::STALLED | condition::KEY_NOT_IN_GENESIS);
            let good = (now.status == "True") != abnormal_if_true;
            // A condition that begins as it should be is no news.
            if good && before.is_none() && type_ != condition::READY {
                return None;
            }
            let severity = if good || type_ == condition::READY && before.is_none_or(|before| before.status != "True") {
                Severity::Normal
            } else {
                Severity::Warning
            };
            Some(Announcement { severity, reason: now.reason.clone(), note: now.message.clone() })
        })
        .chain(extraordinary)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_time_is_kept_until_the_status_changes() {
        let early = Timestamp::from_second(1).unwrap_or_default();
        let late = Timestamp::from_second(2).unwrap_or_default();
        let mut first = Conditions::new(&[], 1, early);
        first.set(condition::READY, Truth::False, &Reason::new("PodMissing", "no pod"));
        let first = first.finish();
        let mut second = Conditions::new(&first, 1, late);
        second.set(condition::READY, Truth::False, &Reason::new("Starting", "starting"));
        let second = second.finish();
        assert_eq!(second[0].last_transition_time, Time(early));
        let mut third = Conditions::new(&second, 1, late);
        third.set(condition::READY, Truth::True, &Reason::new("InSync", "in sync"));
        let third = third.finish();
        assert_eq!(third[0].last_transition_time, Time(late));
        assert_eq!(announcements(&second, &third).len(), 1);
        assert_eq!(announcements(&third, &third), Vec::new());
    }

    #[test]
    fn who_is_ready_and_not_yet_as_the_spec_asks_is_reconciling() {
        let (ready, rolling) = (Reason::new("AllValidatorsReady", "m"), Reason::new("RollingUpdate", "m"));
        let told = |behind, order| {
            let mut conditions = Conditions::new(&[], 1, Timestamp::default());
            let (failure, stalled) = (None, None);
            let headway = Headway { ready: true, reason: &ready, is_done: true, behind, failure, stalled, order };
            conditions.set_progress(&headway);
            let told = conditions.finish();
            find(&told, condition::RECONCILING)
                .map(|told| format!("{}/{}", told.status, told.reason))
                .unwrap_or_default()
        };
        assert_eq!(told(None, None), "False/AsSpecified");
        assert_eq!(told(Some(&rolling), None), "True/RollingUpdate");
        assert_eq!(told(Some(&rolling), Some(&Reason::new("Paused", "m"))), "False/Paused");
    }

    #[test]
    fn steps_on_the_way_up_are_no_news_but_trouble_and_a_fall_are() {
        let told = |conditions: &[Condition], truth, word: &str| {
            let mut next = Conditions::new(conditions, 1, Timestamp::default());
            next.set(condition::READY, truth, &Reason::new(word, ""));
            let next = next.finish();
            let words: Vec<String> = announcements(conditions, &next).into_iter().map(|news| news.reason).collect();
            (words, next)
        };
        let none = Vec::<String>::new();
        let (first, pending) = told(&[], Truth::False, "VolumePending");
        assert_eq!(first, none);
        let (next, pending) = told(&pending, Truth::Unknown, "Unasked");
        assert_eq!(next, none);
        assert_eq!(told(&pending, Truth::False, "Unschedulable").0, ["Unschedulable"]);
        let (up, ready) = told(&pending, Truth::True, "InSync");
        assert_eq!(up, ["InSync"]);
        assert_eq!(told(&ready, Truth::False, "CatchingUp").0, ["CatchingUp"]);
    }
}
