//! Counts what is asked of the API server.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use kube::{Client, client::Body};
use prometheus::IntCounterVec;
use tonic::codegen::{
    Service,
    http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header::CONTENT_TYPE},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client whose requests are counted by verb, resource and result.
pub fn counted(client: Client, calls: IntCounterVec) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(Counted { client, calls }, namespace)
}

#[derive(Clone)]
struct Counted {
    client: Client,
    calls: IntCounterVec,
}

impl Service<Request<Body>> for Counted {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { client, calls } = self.clone();
        let (verb, resource) = classify(request.method(), request.uri(), request.headers());
        Box::pin(async move {
            let answer = client.send(request).await;
            let result = answer.as_ref().map_or("unreachable", |answer| result_of(answer.status()));
            calls.with_label_values(&[verb, resource.as_str(), result]).inc();
            answer.map_err(Into::into)
        })
    }
}

/// Verb and resource of a request; names of objects and namespaces are left out.
fn classify(method: &Method, uri: &Uri, headers: &HeaderMap) -> (&'static str, String) {
    let mut parts: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let root = match parts.first() {
        Some(&"api") => 2,
        Some(&"apis") => 3,
        _ => return ("other", String::new()),
    };
    parts.drain(..root.min(parts.len()));
    if parts.len() > 2 && parts.first() == Some(&"namespaces") {
        parts.drain(..2);
    }
    let resource = match parts.as_slice() {
        [resource, _, part, ..] => format!("{resource}/{part}"),
        [resource, ..] => (*resource).to_owned(),
        [] => String::new(),
    };
    let is_watch = uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("watch=")));
    let is_apply = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply"));
    let verb = match (method, parts.len()) {
        (&Method::GET, _) if is_watch => "watch",
        (&Method::GET, 1) => "list",
        (&Method::GET, _) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) if is_apply => "apply",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, _) => "delete",
        _ => "other",
    };
    (verb, resource)
}

fn result_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::CONFLICT => "conflict",
        StatusCode::TOO_MANY_REQUESTS => "throttled",
        status if status.is_success() => "ok",
        status if status.is_client_error() => "refused",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_hold_verbs_and_resources_but_no_names() {
        let of = |method: Method, uri: &'static str| {
            let (verb, resource) = classify(&method, &Uri::from_static(uri), &HeaderMap::new());
            format!("{verb} {resource}")
        };
        assert_eq!(of(Method::GET, "/api/v1/namespaces/a/pods/b"), "get pods");
        assert_eq!(of(Method::GET, "/api/v1/pods?watch=true&x=y"), "watch pods");
        assert_eq!(of(Method::GET, "/apis/bizra.io/v1alpha1/namespaces/a/networks"), "list networks");
        assert_eq!(of(Method::PUT, "/apis/bizra.io/v1alpha1/namespaces/a/networks/b/status"), "update networks/status");
        assert_eq!(of(Method::POST, "/api/v1/namespaces/a/pods/b/eviction"), "create pods/eviction");
        assert_eq!(of(Method::GET, "/api/v1/namespaces/a"), "get namespaces");
        assert_eq!(of(Method::GET, "/version"), "other ");
    }
}
