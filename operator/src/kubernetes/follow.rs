//! Fills a cache from a watch, for ever.

use std::{collections::BTreeSet, pin::pin};

use futures::StreamExt as _;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher},
};

use super::cache::{Cache, Cached, Change, key_of};

/// Objects of a page, where the server has no streaming lists.
const PAGE_SIZE: u32 = 100;

/// Watches a kind in a namespace (none means everywhere) and hands every change to `changed` after the cache has it; after
/// the first full list, `listed` is called. Lists are streamed where the server can: then no list of everything is ever in
/// memory, neither here nor there.
pub async fn follow<K: Cached>(
    client: Client,
    namespace: Option<String>,
    cache: &Cache<K>,
    changed: impl Fn(Change<K>),
    listed: impl FnOnce(),
) {
    let api: Api<K> = match &namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let kind = K::kind(&());
    let mut listed = Some(listed);
    let mut streaming = true;
    loop {
        let config = watcher::Config::default().page_size(PAGE_SIZE);
        let config = if K::SELECTOR.is_empty() { config } else { config.labels(K::SELECTOR) };
        let config = if streaming { config.streaming_lists() } else { config };
        let mut events = pin!(watcher(api.clone(), config).default_backoff());
        let mut listed_now = BTreeSet::new();
        while let Some(event) = events.next().await {
            match event.map(|event| event.modify(Cached::prune)) {
                Ok(watcher::Event::Init) => listed_now.clear(),
                // Kept as it comes: a whole list as it is told takes many times the room of what is kept.
                Ok(watcher::Event::InitApply(object)) => {
                    listed_now.insert(key_of(&object));
                    cache.put(object).into_iter().for_each(&changed);
                }
                Ok(watcher::Event::InitDone) => {
                    let listed_now = std::mem::take(&mut listed_now);
                    cache.keep_only(namespace.as_deref(), &listed_now).into_iter().for_each(&changed);
                    if let Some(listed) = listed.take() {
                        listed();
                    }
                }
                Ok(watcher::Event::Apply(object)) => cache.put(object).into_iter().for_each(&changed),
                Ok(watcher::Event::Delete(object)) => changed(cache.remove(&object)),
                Err(error) if streaming && cannot_stream(&error) => {
                    tracing::info!(%kind, "the API server has no streaming lists; listing page by page");
                    streaming = false;
                    break;
                }
                Err(error) => tracing::warn!(%kind, %error, "watch interrupted"),
            }
        }
    }
}

/// The server does not know `sendInitialEvents`, or does not want it.
fn cannot_stream(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if matches!(status.code, 400 | 422))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::{Context, Poll},
    };

    use futures::future::{BoxFuture, FutureExt as _};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::client::Body;
    use tonic::codegen::{
        Service,
        http::{Request, Response},
    };

    use super::*;
    use crate::kubernetes::Answer;

    /// Streams one list and then has no news for ever.
    #[derive(Clone, Default)]
    struct OneList(Arc<AtomicBool>);

    const LIST: &str = concat!(
        r#"{"type":"ADDED","object":{"metadata":{"name":"unreadable","namespace":"n","resourceVersion":"1"},"data":7}}"#,
        "\n",
        r#"{"type":"ADDED","object":{"metadata":{"name":"fine","namespace":"n","resourceVersion":"2"}}}"#,
        "\n",
        r#"{"type":"BOOKMARK","object":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"3","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
        "\n",
    );

    impl Service<Request<Body>> for OneList {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            if self.0.swap(true, Ordering::Relaxed) {
                return futures::future::pending().boxed();
            }
            let answer = Response::new(Body::from(LIST.as_bytes().to_vec()));
            futures::future::ready(Ok(answer)).boxed()
        }
    }

    #[tokio::test]
    async fn an_object_that_cannot_be_read_keeps_no_other_from_being_told() {
        let cache = Cache::<ConfigMap>::default();
        let listed = tokio::sync::Notify::new();
        let client = Client::new(OneList::default(), "n");
        tokio::select! {
            () = follow(client, None, &cache, |_| {}, || listed.notify_one()) => {}
            () = listed.notified() => {}
        }
        let key = |name: &str| ("n".to_owned(), name.to_owned());
        assert!(matches!(cache.look(&key("fine")), Answer::Known(_)));
        // Nothing is known of the other: it is asked for before anything is made of that.
        assert_eq!(cache.look(&key("unreadable")), Answer::Absent);
    }
}
