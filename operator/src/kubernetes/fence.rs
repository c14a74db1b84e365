//! A leader that was paused, or whose host stood still, is late to learn that another one leads. By then its lease has run
//! out by its own clock, so nothing that it has begun is written any more.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use kube::{Client, client::Body};
use tokio::{sync::watch, time::Instant};
use tonic::codegen::{
    Service,
    http::{Method, Request, Response},
};

/// How long a leader may write.
#[derive(Clone, Debug)]
pub struct Tenure {
    until: watch::Receiver<Option<Instant>>,
}

impl Tenure {
    pub(super) fn new(until: watch::Receiver<Option<Instant>>) -> Self {
        Self { until }
    }

    /// True while nobody else can have taken the lease.
    pub fn lasts(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// The same client, but for writes after the tenure: they fail.
    pub fn fence(self, client: Client) -> Client {
        let namespace = client.default_namespace().to_owned();
        Client::new(Fence { client, tenure: self }, namespace)
    }
}

/// A write was held back.
#[derive(Debug, thiserror::Error)]
#[error("the lease was not renewed in time, and another replica may lead: nothing is written")]
struct NotLeading;

struct Fence {
    client: Client,
    tenure: Tenure,
}

impl Service<Request<Body>> for Fence {
    type Response = Response<Body>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, tenure) = (self.client.clone(), self.tenure.clone());
        Box::pin(async move {
            if !matches!(*request.method(), Method::GET | Method::HEAD) && !tenure.lasts() {
                return Err(NotLeading.into());
            }
            // In a box of its own, so that the outer client finds the inner one's error in it.
            client.send(request).await.map_err(Into::into)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        time::Duration,
    };

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{
        Api,
        api::{DeleteParams, PostParams},
    };

    use super::*;

    /// An API server that knows nothing and counts.
    #[derive(Clone, Default)]
    struct Counting(Arc<AtomicU32>);

    impl Service<Request<Body>> for Counting {
        type Response = Response<Body>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            self.0.fetch_add(1, Ordering::Relaxed);
            let status = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}"#;
            let response = Response::builder().status(404).body(Body::from(status.as_bytes().to_vec()));
            std::future::ready(Ok(response.unwrap()))
        }
    }

    #[tokio::test]
    async fn reads_always_pass_and_writes_only_while_the_lease_was_renewed_in_time() {
        let server = Counting::default();
        let (renew, until) = watch::channel(None);
        let client = Tenure::new(until).fence(Client::new(server.clone(), "default"));
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        let calls = || server.0.load(Ordering::Relaxed);

        assert!(api.get_opt("a").await.unwrap().is_none());
        assert_eq!(calls(), 1);
        let refused = api.create(&PostParams::default(), &ConfigMap::default()).await.unwrap_err();
        assert!(refused.to_string().contains("another replica may lead"), "{refused}");
        assert_eq!(calls(), 1, "a write before the lease was taken");

        renew.send_replace(Some(Instant::now() + Duration::from_mins(1)));
        let answered = api.delete("a", &DeleteParams::default()).await.unwrap_err();
        assert!(matches!(answered, kube::Error::Api(status) if status.code == 404));
        assert_eq!(calls(), 2);

        renew.send_replace(Some(Instant::now()));
        assert!(api.delete("a", &DeleteParams::default()).await.is_err());
        assert_eq!(calls(), 2, "a write after the lease had run out");
    }
}
