//! Kubernetes Events: best-effort. A failed one is logged and forgotten; no clean-up path waits for one, and when there are more
//! than can be published, the newest are dropped.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::resources::labels;

/// Longest note the API server takes, in bytes.
const NOTE_MAX_BYTES: usize = 1000;
/// Events that may wait to be published.
const WAITING_MAX: usize = 4096;
/// Events published at the same time.
const PUBLISHED_AT_ONCE: usize = 4;
/// Longest an event takes to be published.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// The same event of an object within this time is counted on the first one.
const SERIES_TIME: Duration = Duration::from_mins(6);
/// Events that are remembered to be counted on.
const REMEMBERED_MAX: usize = 1024;

/// How important an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Somebody may want to look.
    Warning,
}

/// Something worth telling about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// How important it is.
    pub severity: Severity,
    /// CamelCase.
    pub reason: String,
    /// For people.
    pub note: String,
}

impl Announcement {
    /// Of something that is as it should be.
    pub fn normal(reason: crate::controllers::conditions::Reason) -> Self {
        Self { severity: Severity::Normal, reason: reason.word, note: reason.message }
    }
}

/// Publishes events.
#[derive(Clone)]
pub struct Announcer {
    waiting: mpsc::Sender<(ObjectReference, Announcement)>,
}

impl Announcer {
    /// Publishes as this operator instance, in the background, as long as there is an announcer. Must be called within a runtime.
    pub fn new(client: Client, instance: &str) -> Self {
        let (waiting, receiver) = mpsc::channel(WAITING_MAX);
        let publisher = Arc::new(Publisher { client, instance: instance.to_owned(), recent: Mutex::default() });
        let incoming = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        tokio::spawn(incoming.for_each_concurrent(PUBLISHED_AT_ONCE, move |(about, announcement)| {
            let publisher = Arc::clone(&publisher);
            async move {
                match tokio::time::timeout(TIME_LIMIT, publisher.publish(about, announcement)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "event not published"),
                    Err(_) => tracing::debug!("event not published: time-out"),
                }
            }
        }));
        Self { waiting }
    }

    /// Publishes in the background.
    pub fn announce(&self, about: ObjectReference, announcement: Announcement) {
        if self.waiting.try_send((about, announcement)).is_err() {
            tracing::debug!("event dropped: too many wait");
        }
    }
}

struct Publisher {
    client: Client,
    instance: String,
    recent: Mutex<Recent>,
}

impl Publisher {
    async fn publish(&self, about: ObjectReference, announcement: Announcement) -> Result<(), kube::Error> {
        let now = MicroTime(Timestamp::now());
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let place = (about.uid.clone().unwrap_or_default(), announcement.reason.clone());
        let name = format!("{}.{:x}", about.name.as_deref().unwrap_or(labels::MANAGER), now.0.as_nanosecond());
        let again = {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.count(place, &name, Instant::now())
        };
        if let Some((name, count)) = again {
            let series = EventSeries { count, last_observed_time: now };
            // Everything else of an Event, its note too, cannot be changed.
            let patch = json!({"series": series});
            return events.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop);
        }
        let event = Event {
            metadata: ObjectMeta { namespace: Some(namespace), name: Some(name), ..ObjectMeta::default() },
            action: Some(announcement.reason.clone()),
            reason: Some(announcement.reason),
            note: Some(shorten(&announcement.note, NOTE_MAX_BYTES)),
            type_: Some(
                match announcement.severity {
                    Severity::Normal => "Normal",
                    Severity::Warning => "Warning",
                }
                .to_owned(),
            ),
            event_time: Some(now),
            regarding: Some(about),
            reporting_controller: Some(labels::MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        events.create(&PostParams::default(), &event).await.map(drop)
    }
}

/// Uid of an object and reason of an event.
type Place = (String, String);

/// What was published lately.
#[derive(Default)]
struct Recent {
    events: HashMap<Place, (String, i32, Instant)>,
    order: VecDeque<Place>,
}

impl Recent {
    /// The name of the event to count this one on, and how many it stands for then; none if it is a new one, which is
    /// remembered by `name`.
    fn count(&mut self, place: Place, name: &str, now: Instant) -> Option<(String, i32)> {
        if let Some((name, count, last)) = self.events.get_mut(&place)
            && now.saturating_duration_since(*last) < SERIES_TIME
        {
            *count = count.saturating_add(1);
            *last = now;
            return Some((name.clone(), *count));
        }
        if self.events.insert(place.clone(), (name.to_owned(), 1, now)).is_none() {
            self.order.push_back(place);
        }
        while self.order.len() > REMEMBERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.events.remove(&oldest);
            }
        }
        None
    }
}

/// At most `max` bytes of `text`, cut between characters.
pub fn shorten(text: &str, max: usize) -> String {
    let end = (0..=max.min(text.len())).rev().find(|&index| text.is_char_boundary(index)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_event_again_is_counted_and_what_is_remembered_is_bounded() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let place = |number: usize| (number.to_string(), "PodCreated".to_owned());
        assert_eq!(recent.count(place(0), "first", now), None);
        assert_eq!(recent.count(place(0), "second", now), Some(("first".to_owned(), 2)));
        assert_eq!(recent.count(place(0), "third", now + SERIES_TIME), None);
        for number in 1..=REMEMBERED_MAX {
            assert_eq!(recent.count(place(number), "other", now), None);
        }
        assert_eq!((recent.events.len(), recent.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert_eq!(recent.count(place(0), "anew", now), None);
    }
}
