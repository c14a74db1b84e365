//! Server-sent events: `GET /v1/events?from=HEIGHT:INDEX&types=A,B&follow=false`.
//!
//! An event's id is its position, so a client that comes back with `Last-Event-ID`, as browsers do by themselves, goes
//! on behind it. When nothing happens a comment comes every [`HEARTBEAT_INTERVAL`]. An error after the beginning is a
//! last event named `error`.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bizra_proto::v1;
use bytes::Bytes;
use futures::stream;
use serde::Deserialize;

use super::Gateway;
use super::events::event_json;
use super::problem::Problem;
use crate::event_store::{Event, EventError, EventFilter, Position, Subscription, SubscriptionRequest};

/// Time between two signs of life: below the patience of usual proxies.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// How long a client should wait before it comes back, in milliseconds.
const RETRY: &str = "retry: 1000\n\n";

const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    from: Option<String>,
    types: Option<String>,
    #[serde(default = "follow")]
    follow: bool,
}

fn follow() -> bool {
    true
}

pub(super) async fn events(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let result = subscribe(&gateway, &headers, query).await;
    let outcome = result.as_ref().map_or_else(Problem::reason, |_| "Ok");
    gateway.metrics.count("http", "Events", outcome);
    let subscription = result?;
    let open = gateway.metrics.open_subscription();
    let beginning = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(RETRY.as_bytes()))]);
    let parts = stream::unfold(Some((subscription, open)), |state| async {
        let (mut subscription, open) = state?;
        let (text, state) = match tokio::time::timeout(HEARTBEAT_INTERVAL, subscription.next()).await {
            Err(_) => (": heartbeat\n\n".to_owned(), Some((subscription, open))),
            Ok(None) => return None,
            Ok(Some(Ok(events))) => (part(events), Some((subscription, open))),
            Ok(Some(Err(error))) => (last_words(error), None),
        };
        Some((Ok(Bytes::from(text)), state))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(futures::StreamExt::chain(beginning, parts))).into_response())
}

async fn subscribe(
    gateway: &Gateway,
    headers: &HeaderMap,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Subscription, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let position = |text: &str| text.parse::<Position>().map_err(|error| Problem::bad_request(error.to_string()));
    let (from, after) = match headers.get(LAST_EVENT_ID) {
        Some(id) => (Some(position(id.to_str().unwrap_or_default())?), true),
        None => (query.from.as_deref().map(position).transpose()?, false),
    };
    let names = query.types.iter().flat_map(|types| types.split(','));
    let filter = EventFilter::from_names(names).map_err(Problem::bad_request)?;
    let request = SubscriptionRequest { from, after, filter, follow: query.follow };
    Ok(gateway.events.subscribe(request).await?)
}

fn part(events: Vec<Event>) -> String {
    let mut text = String::new();
    for event in events {
        let position = event.position;
        let event = v1::Event::from(event);
        // Writing to a string cannot fail.
        let _ = write!(text, "id: {position}\nevent: {}\ndata: {}\n\n", event.r#type, event_json(&event));
    }
    text
}

fn last_words(error: EventError) -> String {
    let problem = Problem::from(error);
    // A problem always has a JSON form.
    format!("event: error\ndata: {}\n\n", serde_json::to_string(&problem).unwrap_or_default())
}

impl From<EventError> for Problem {
    fn from(error: EventError) -> Self {
        let (status, reason) = match error {
            EventError::Pruned { .. } => (StatusCode::GONE, "Pruned"),
            EventError::Future { .. } => (StatusCode::NOT_FOUND, "FutureHeight"),
            EventError::NoSuchIndex { .. } => (StatusCode::NOT_FOUND, "NoSuchIndex"),
            EventError::Busy => (StatusCode::TOO_MANY_REQUESTS, "Busy"),
            EventError::Slow(_) => (StatusCode::REQUEST_TIMEOUT, "SlowSubscriber"),
            EventError::Storage(_) => (StatusCode::INTERNAL_SERVER_ERROR, "StorageFailed"),
            EventError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
        };
        Self::new(status, reason, error.to_string())
    }
}
