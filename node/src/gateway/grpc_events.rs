//! gRPC: the Events service.

use std::pin::Pin;

use bizra_proto::v1;
use bizra_proto::v1::events_server::Events;
use futures::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::Gateway;
use crate::event_store::{EventError, EventFilter, Position, SubscriptionRequest};

pub(super) struct EventsService {
    pub(super) gateway: Gateway,
}

#[tonic::async_trait]
impl Events for EventsService {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let result = self.open(request.into_inner()).await;
        let outcome = result.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
        self.gateway.metrics.count("grpc", "Subscribe", &format!("{outcome:?}"));
        result.map(Response::new)
    }
}

impl EventsService {
    async fn open(&self, request: v1::SubscribeRequest) -> Result<<Self as Events>::SubscribeStream, Status> {
        let v1::SubscribeRequest { from, after, types, history_only } = request;
        let filter = EventFilter::from_names(types.iter().map(String::as_str)).map_err(Status::invalid_argument)?;
        let from = from.map(|v1::EventPosition { height, index }| Position { height, index });
        let request = SubscriptionRequest { from, after, filter, follow: !history_only };
        let subscription = self.gateway.events.subscribe(request).await?;
        let open = self.gateway.metrics.open_subscription();
        let parts = stream::unfold((subscription, open), |(mut subscription, open)| async {
            let part = match subscription.next().await? {
                Ok(events) => events.into_iter().map(|event| Ok(v1::Event::from(event))).collect(),
                Err(error) => vec![Err(Status::from(error))],
            };
            Some((stream::iter::<Vec<Result<v1::Event, Status>>>(part), (subscription, open)))
        });
        Ok(Box::pin(parts.flatten()))
    }
}

impl From<EventError> for Status {
    fn from(error: EventError) -> Self {
        let message = error.to_string();
        match error {
            EventError::Pruned { .. } | EventError::Future { .. } | EventError::NoSuchIndex { .. } => {
                Self::out_of_range(message)
            }
            EventError::Busy | EventError::Slow(_) => Self::resource_exhausted(message),
            EventError::Storage(_) => Self::internal(message),
            EventError::Stopping => Self::unavailable(message),
        }
    }
}
