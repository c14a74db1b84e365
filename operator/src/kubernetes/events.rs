//! Kubernetes Events: best-effort. A failed one is logged and forgotten; no clean-up path waits for one.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::resources::labels;

/// Longest note the API server takes, in bytes.
const NOTE_MAX_BYTES: usize = 1000;

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
    recorder: Recorder,
}

impl Announcer {
    /// Publishes as this operator instance.
    pub fn new(client: Client, instance: &str) -> Self {
        let reporter = Reporter { controller: labels::MANAGER.to_owned(), instance: Some(instance.to_owned()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Publishes in the background.
    pub fn announce(&self, about: ObjectReference, announcement: Announcement) {
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            let event = Event {
                type_: match announcement.severity {
                    Severity::Normal => EventType::Normal,
                    Severity::Warning => EventType::Warning,
                },
                note: Some(shorten(&announcement.note, NOTE_MAX_BYTES)),
                action: announcement.reason.clone(),
                reason: announcement.reason,
                secondary: None,
            };
            match tokio::time::timeout(Duration::from_secs(10), recorder.publish(&event, &about)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "event not published"),
                Err(_) => tracing::debug!("event not published: time-out"),
            }
        });
    }
}

/// At most `max` bytes of `text`, cut between characters.
pub fn shorten(text: &str, max: usize) -> String {
    let end = (0..=max.min(text.len())).rev().find(|&index| text.is_char_boundary(index)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}
